// node-postgres: no libpq, everything at once, results as text unless told otherwise.
'use strict'
const fs = require('node:fs')
const { Client } = require('pg')

const options = {
	host: process.env.PGHOST, database: process.env.PGDATABASE, user: process.env.PGUSER,
	ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT, 'utf8') },
}

async function attempt(client, text, values) {
	try {
		const { rows } = await client.query(text, values)
		console.log(text, JSON.stringify(rows))
	} catch (e) {
		console.log(text, e.code)
	}
}

async function main() {
	const client = new Client(options)
	client.on('notice', (n) => console.log(n.severity, n.message))
	await client.connect()

	console.log('simple')
	const several = await client.query('SELECT 1 AS one; SELECT name FROM items WHERE id < 3 ORDER BY id')
	console.log(several.map((r) => [r.command, r.rowCount, r.rows, r.fields.map((f) => [f.name, f.dataTypeID])]))

	console.log('parameters')
	for (const binary of [false, true]) {
		const result = await client.query({
			text: 'SELECT id, name, ratio, good, data, tags FROM items WHERE id = ANY($1) ORDER BY id', values: [[5, 7]], binary,
		})
		console.log(JSON.stringify(result.rows))
	}
	for (const id of [1, 2, 7]) {
		const result = await client.query({ name: 'by-id', text: 'SELECT name, doc FROM items WHERE id = $1', values: [id], rowMode: 'array' })
		console.log(JSON.stringify(result.rows))
	}
	console.log((await client.query('SELECT $1::bytea AS b, $2::text AS t', [Buffer.from([0, 255]), null])).rows)

	console.log('all at once')
	const all = await Promise.allSettled([
		client.query('SELECT $1::int AS n', [1]),
		client.query('DELETE FROM customers WHERE id = $1', [1]),
		client.query('SELECT $1::int AS n', [2]),
		client.query('SELECT 3 AS n'),
	])
	console.log(all.map((r) => r.value?.rows ?? r.reason.code))

	console.log('rows in pieces')
	// What pg-cursor does: a portal that is executed again and again.
	let pieces = 0
	const portal = client.query({ text: 'SELECT id FROM items WHERE id <= $1 ORDER BY id', values: [250], rows: 100 })
	client.connection.on('portalSuspended', () => pieces++)
	console.log((await portal).rowCount, pieces)

	console.log('cancel')
	const running = client.query('SELECT pg_sleep(30)').catch((e) => console.log(e.code))
	setTimeout(() => new Client(options).cancel(client, client.activeQuery ?? client._activeQuery), 300)
	await running

	console.log('notifications')
	await client.query('LISTEN news')
	const told = new Promise((resolve) => client.once('notification', resolve))
	await client.query("SELECT pg_notify('news', 'to all')")
	const { channel, payload, processId } = await told
	console.log(channel, payload, processId === client.processID)

	console.log('settings')
	client.connection.on('parameterStatus', (p) => console.log(p.parameterName, p.parameterValue))
	await client.query("SET TimeZone TO 'Asia/Tokyo'")
	console.log((await client.query('SELECT made::text, pg_backend_pid() AS pid FROM items WHERE id = 1')).rows.map((r) => [r.made, r.pid === client.processID]))
	await client.query("DO $$BEGIN RAISE NOTICE 'note %', 42; END$$")

	console.log('refused in a transaction')
	for (const text of ['BEGIN', 'INSERT INTO written (id) VALUES (1)', 'SAVEPOINT s', 'DELETE FROM customers', 'SELECT 1',
		'ROLLBACK TO s', 'SELECT count(*) FROM written', 'DELETE FROM customers', 'ROLLBACK', 'SELECT count(*) FROM written']) {
		await attempt(client, text)
	}
	await attempt(client, 'SELECT 1 / $1::int AS x', [0])
	await client.end()
}

main().catch((e) => {
	console.error(e)
	process.exitCode = 1
})

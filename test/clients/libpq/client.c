/*
 * libpq, called directly: what the languages that wrap it don't use, too. An error
 * shows as its SQLSTATE, a transaction by its status.
 */
#include <libpq-fe.h>
#include <libpq/libpq-fs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>

static PGconn *conn;

static void show(PGresult *r)
{
	printf("%s %s", PQresStatus(PQresultStatus(r)), PQcmdStatus(r));
	if (PQresultErrorField(r, PG_DIAG_SQLSTATE))
		printf(" %s", PQresultErrorField(r, PG_DIAG_SQLSTATE));
	for (int row = 0; row < PQntuples(r); row++) {
		printf("\n ");
		for (int col = 0; col < PQnfields(r); col++) {
			printf(" %s=", PQfname(r, col));
			if (PQgetisnull(r, row, col))
				printf("null");
			else if (PQfformat(r, col) == 0)
				printf("%s", PQgetvalue(r, row, col));
			else
				for (int i = 0; i < PQgetlength(r, row, col); i++)
					printf("%02x", (unsigned char)PQgetvalue(r, row, col)[i]);
		}
	}
	printf(" [%d]\n", PQtransactionStatus(conn));
	PQclear(r);
}

static void run(const char *sql)
{
	printf("%s: ", sql);
	show(PQexec(conn, sql));
}

static unsigned int number(const char *sql)
{
	PGresult *r = PQexec(conn, sql);
	unsigned int n = PQntuples(r) == 1 ? strtoul(PQgetvalue(r, 0, 0), NULL, 10) : 0;
	PQclear(r);
	return n;
}

static void parameters(void)
{
	const char *columns = "SELECT id, name, price, ratio, made, good, data, tags, doc, key FROM items WHERE id = $1";
	uint32_t five = htonl(5);
	const char *binary[] = {(const char *)&five}, *text[] = {"5"}, *null[] = {NULL};
	int length[] = {4}, one[] = {1};

	for (int format = 0; format < 2; format++) {
		show(PQexecParams(conn, columns, 1, NULL, text, NULL, NULL, format));
		show(PQexecParams(conn, columns, 1, (Oid[]){23}, binary, length, one, format));
		show(PQexecParams(conn, columns, 1, (Oid[]){23}, null, NULL, NULL, format));
	}
	show(PQprepare(conn, "p", columns, 0, NULL));
	show(PQdescribePrepared(conn, "p"));
	show(PQexecPrepared(conn, "p", 1, text, NULL, NULL, 0));
	show(PQprepare(conn, "p", "SELECT 1", 0, NULL));
	show(PQexecPrepared(conn, "none", 0, NULL, NULL, NULL, 0));
}

static void pipeline(void)
{
	const char *one[] = {"1"};

	PQenterPipelineMode(conn);
	PQsendQueryParams(conn, "SELECT $1::int AS a", 1, NULL, one, NULL, NULL, 0);
	PQsendQueryParams(conn, "SELECT name FROM items WHERE id = $1", 1, NULL, one, NULL, NULL, 1);
	PQpipelineSync(conn);
	PQsendQueryParams(conn, "SELECT 'before'", 0, NULL, NULL, NULL, NULL, 0);
	PQsendQueryParams(conn, "DELETE FROM customers WHERE id = $1", 1, NULL, one, NULL, NULL, 0);
	PQsendQueryParams(conn, "SELECT 'skipped'", 0, NULL, NULL, NULL, NULL, 0);
	PQpipelineSync(conn);
	PQsendQueryParams(conn, "SELECT 'after'", 0, NULL, NULL, NULL, NULL, 0);
	PQpipelineSync(conn);
	for (int syncs = 0; syncs < 3;) {
		PGresult *r = PQgetResult(conn);
		if (!r)
			continue;
		syncs += PQresultStatus(r) == PGRES_PIPELINE_SYNC;
		show(r);
	}
	PQexitPipelineMode(conn);
}

static void rows_one_by_one(void)
{
	int rows = 0;
	PGresult *r;

	PQsendQuery(conn, "SELECT id FROM items ORDER BY id LIMIT 300");
	PQsetSingleRowMode(conn);
	while ((r = PQgetResult(conn))) {
		rows += PQresultStatus(r) == PGRES_SINGLE_TUPLE;
		PQclear(r);
	}
	printf("%d rows\n", rows);
	run("BEGIN");
	run("DECLARE c BINARY CURSOR FOR SELECT id, name FROM items ORDER BY id");
	run("FETCH 2 FROM c");
	show(PQdescribePortal(conn, "c"));
	run("COMMIT");
}

/* copy reads what a COPY sends, and sends it to another one. */
static void copy(const char *out, const char *in)
{
	size_t size = 0;
	unsigned long hash = 5381;
	char *all = NULL, *piece;
	int n;

	PQclear(PQexec(conn, out));
	while ((n = PQgetCopyData(conn, &piece, 0)) > 0) {
		for (int i = 0; i < n; i++)
			hash = hash * 33 + (unsigned char)piece[i];
		all = realloc(all, size + n);
		memcpy(all + size, piece, n);
		size += n;
		PQfreemem(piece);
	}
	printf("%zu bytes, %lx ", size, hash);
	show(PQgetResult(conn));
	PQclear(PQgetResult(conn));
	PQclear(PQexec(conn, in));
	PQputCopyData(conn, all, size);
	PQputCopyEnd(conn, NULL);
	show(PQgetResult(conn));
	PQclear(PQgetResult(conn));
	free(all);
}

static void copies(void)
{
	run("BEGIN");
	copy("COPY (SELECT id, name, data, price FROM items) TO STDOUT", "COPY written FROM STDIN");
	copy("COPY (SELECT id, name, data, price FROM items) TO STDOUT (FORMAT csv, HEADER)", "COPY written FROM STDIN (FORMAT csv, HEADER)");
	copy("COPY (SELECT id, name, data, price FROM items) TO STDOUT (FORMAT binary)", "COPY written FROM STDIN (FORMAT binary)");
	run("SELECT count(*), sum(price), count(name), count(DISTINCT data) FROM written");
	run("ROLLBACK");
	PQclear(PQexec(conn, "COPY written FROM STDIN"));
	PQputCopyData(conn, "1\t", 2);
	PQputCopyEnd(conn, "the client gives up");
	show(PQgetResult(conn));
	PQclear(PQgetResult(conn));
}

static void large_objects(void)
{
	static char buffer[200000];
	Oid object;
	int fd;

	memset(buffer, 'o', sizeof buffer);
	run("BEGIN");
	object = lo_create(conn, 0);
	fd = lo_open(conn, object, INV_READ | INV_WRITE);
	printf("open %d\n", fd);
	printf("write %d\n", lo_write(conn, fd, buffer, sizeof buffer));
	printf("seek %lld\n", (long long)lo_lseek64(conn, fd, -10, SEEK_END));
	printf("tell %d\n", lo_tell(conn, fd));
	printf("read %d\n", lo_read(conn, fd, buffer, sizeof buffer));
	printf("truncate %d\n", lo_truncate64(conn, fd, 1000));
	printf("seek %d\n", lo_lseek(conn, fd, 0, SEEK_END));
	printf("close %d\n", lo_close(conn, fd));
	printf("unlink %d\n", lo_unlink(conn, object));
	run("COMMIT");
	run("BEGIN");
	printf("open what is gone %d [%d]\n", lo_open(conn, object, INV_READ), PQtransactionStatus(conn));
	run("ROLLBACK");
}

static void call(const char *what, int oid, int in_text)
{
	int result[16] = {0}, length = 0;
	PQArgBlock arguments[] = {{.isint = 1, .len = 4, .u.integer = 21}, {.len = 6, .u.ptr = (int *)"ab\"cde"}};
	PGresult *r = PQfn(conn, oid, result, &length, !in_text, in_text ? arguments + 1 : arguments, 1);

	printf("%s: %s %s %d %.*s [%d]\n", what, PQresStatus(PQresultStatus(r)),
		PQresultErrorField(r, PG_DIAG_SQLSTATE) ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : "", in_text ? 0 : result[0],
		in_text && length > 0 ? length : 0, (char *)result, PQtransactionStatus(conn));
	PQclear(r);
}

static void function_calls(void)
{
	unsigned int twice = number("SELECT 'twice'::regproc::oid");

	call("a user's function", twice, 0);
	call("a built-in function", number("SELECT 'btrim(text)'::regprocedure::oid"), 1);
	call("no function", 1, 0);
	call("an aggregate", number("SELECT 'sum(int)'::regprocedure::oid"), 0);
	run("BEGIN");
	call("one that fails the transaction", number("SELECT 'pg_ls_dir(text)'::regprocedure::oid"), 1);
	call("one after it", twice, 0);
	run("ROLLBACK");
}

static void cancel(void)
{
	char why[256];
	PGcancel *handle = PQgetCancel(conn);

	PQsendQuery(conn, "SELECT pg_sleep(30)");
	usleep(300000);
	printf("cancel %d ", PQcancel(handle, why, sizeof why));
	PQfreeCancel(handle);
	for (PGresult *r; (r = PQgetResult(conn));)
		show(r);
}

static void notifications(void)
{
	PGnotify *n = NULL;

	run("LISTEN news");
	run("NOTIFY news, 'to all'");
	while (!(n = PQnotifies(conn))) {
		poll(&(struct pollfd){.fd = PQsocket(conn), .events = POLLIN}, 1, 5000);
		PQconsumeInput(conn);
	}
	printf("%s %s %s\n", n->relname, n->extra, n->be_pid == PQbackendPID(conn) ? "our own" : "another's");
	PQfreemem(n);
	run("UNLISTEN *");
}

static void settings(void)
{
	run("SET TimeZone = 'Asia/Tokyo'");
	run("SET application_name = 'changed'");
	run("BEGIN");
	run("SET LOCAL DateStyle = 'German'");
	printf("%s, ", PQparameterStatus(conn, "DateStyle"));
	run("ROLLBACK");
	printf("%s, %s, %s, %s\n", PQparameterStatus(conn, "DateStyle"), PQparameterStatus(conn, "TimeZone"),
		PQparameterStatus(conn, "application_name"), PQparameterStatus(conn, "standard_conforming_strings"));
	printf("backend %s, protocol %d, server %d\n",
		(int)number("SELECT pg_backend_pid()") == PQbackendPID(conn) ? "is known" : "is another's",
		PQprotocolVersion(conn), PQserverVersion(conn) / 10000);
}

static void refused(void)
{
	run("BEGIN");
	run("INSERT INTO written (id) VALUES (1)");
	run("SAVEPOINT s");
	run("DELETE FROM customers");
	run("SELECT 1");
	run("ROLLBACK TO s");
	run("SELECT count(*) FROM written");
	show(PQexecParams(conn, "DELETE FROM customers WHERE id = 1", 0, NULL, NULL, NULL, NULL, 0));
	run("COMMIT");
	run("SELECT count(*) FROM written");
	run("SELECT 1; DELETE FROM customers; SELECT 2");
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	conn = PQconnectdb("");
	if (PQstatus(conn) != CONNECTION_OK) {
		fputs(PQerrorMessage(conn), stderr);
		return 1;
	}
	run("SELECT count(*), min(name) FROM items");
	run("");
	run("SELECT 1; SELECT 2");
	run("SELECT 1 / 0");
	parameters();
	pipeline();
	rows_one_by_one();
	copies();
	large_objects();
	function_calls();
	cancel();
	notifications();
	settings();
	refused();
	PQfinish(conn);
	return 0;
}

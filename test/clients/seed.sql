-- What the clients work on. A planner's role may do with it what it likes, but for
-- customers, which it may only read: by the server's privileges on a direct
-- connection, by policy through Chaperone.
CREATE TABLE items (
	id int PRIMARY KEY, name text, price numeric(10,2), ratio float8, made timestamptz, day date,
	good boolean, data bytea, tags text[], doc jsonb, key uuid);
INSERT INTO items
	SELECT n, CASE WHEN n % 7 = 0 THEN NULL ELSE 'item ' || n || CASE WHEN n % 5 = 0 THEN E' "a",\tß\\ \n' ELSE '' END END,
		n * 1.25, n / 3.0, timestamptz '2026-01-01 00:00:00+00' + n * interval '61 seconds', date '2026-01-01' + n,
		n % 2 = 0, decode(md5(n::text), 'hex'), ARRAY['t' || n, NULL, 'x,y'], jsonb_build_object('n', n, 'half', n / 2.0),
		md5(n::text)::uuid
	FROM generate_series(1, 1000) n;
CREATE TABLE written (id int, name text, data bytea, price numeric);
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
CREATE VIEW dear AS SELECT id, name FROM items WHERE price > 1200;
GRANT SELECT ON items, dear TO orders_reader;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON written TO orders_reader;

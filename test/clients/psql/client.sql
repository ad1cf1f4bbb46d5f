-- psql, with what it adds to SQL. Errors show as their SQLSTATE.
\set VERBOSITY sqlstate
\pset format unaligned
\pset null <null>

\echo simple
SELECT count(*), sum(id), min(name), max(key::text) FROM items;
SELECT 1 AS one\; SELECT 'two' AS two\; SELECT NULL AS three;
SELECT * FROM items WHERE id IN (5, 7) ORDER BY id;
SELECT twice(21), now() IS NOT NULL AS now;
SELECT 1 / 0;
SELECT nothing;
;

\echo described
SELECT id, name, price, tags FROM items \gdesc
\d items
\df twice

\echo prepared in SQL
PREPARE p (int) AS SELECT name FROM items WHERE id = $1;
EXECUTE p (3);
DEALLOCATE p;
EXECUTE p (3);

\echo rows in pieces
\set FETCH_COUNT 100
SELECT id FROM items ORDER BY id LIMIT 250;
\unset FETCH_COUNT
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id, name FROM items ORDER BY id;
FETCH 3 FROM c;
MOVE 100 FROM c;
FETCH BACKWARD 2 FROM c;
CLOSE c;
FETCH 1 FROM c;
ROLLBACK;

\echo copy
\copy (SELECT id, name, data, tags FROM items WHERE id < 12 ORDER BY id) TO STDOUT
\copy (SELECT id, name, data, tags FROM items WHERE id < 12 ORDER BY id) TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)
\copy (SELECT id, name, data, price FROM items ORDER BY id) TO PROGRAM 'sha256sum' (FORMAT binary)
\copy (SELECT id, name, data, price FROM items ORDER BY id) TO 'items.bin' (FORMAT binary)
\copy written FROM 'items.bin' (FORMAT binary)
\copy written (id, name) FROM STDIN (FORMAT csv)
2001,"with ""quotes"", and
a line"
2002,
\.
COPY written (id, name) FROM STDIN;
3001	tab\tbackslash\\
3002	\N
\.
COPY written (id) FROM STDIN;
not a number
\.
SELECT count(*), count(name), sum(price), md5(string_agg(id || coalesce(name, '-') || coalesce(data, '-'), ',' ORDER BY id)) FROM written;
TRUNCATE written;

\echo large objects
\! head -c 300000 /dev/zero | tr '\0' 'x' >object.txt
\lo_import object.txt
\lo_export :LASTOID object.out
\! cmp object.txt object.out && echo same
SELECT length(lo_get(:LASTOID));
\lo_unlink :LASTOID
\lo_unlink :LASTOID

\echo notifications
LISTEN news;
NOTIFY news;
UNLISTEN news;

\echo settings
SET application_name = 'changed';
SHOW application_name;
SET TimeZone = 'Asia/Tokyo';
SELECT timestamptz '2026-01-01 00:00:00+00';
\encoding
SET statement_timeout = '50ms';
SELECT pg_sleep(10);
RESET statement_timeout;
RESET ALL;

\echo refused in a transaction
BEGIN;
INSERT INTO written (id) VALUES (1);
SAVEPOINT s;
DELETE FROM customers;
SELECT 1;
ROLLBACK TO s;
SELECT count(*) FROM written;
DELETE FROM customers;
COMMIT;
SELECT count(*) FROM written;
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO written (id) VALUES (1);
DELETE FROM customers;
SELECT count(*) FROM written;
ROLLBACK;
\unset ON_ERROR_ROLLBACK
-- Nothing of a string runs unless all of it may, so the first statement is the refused one.
DELETE FROM customers\; SELECT 2;
\echo done

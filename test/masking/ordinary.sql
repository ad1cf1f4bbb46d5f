-- Ordinary statements, a line each, over types and constructs: sent direct and
-- through Chaperone they must be answered alike, to the byte. "notes" and
-- "cities" are those of seed.sql; "all_types" is made by the test. Where columns
-- are masked, those behind "!" are refused: what they call, make or name can't
-- be traced.

-- constants and types
SELECT 1, 2.5, 'text', NULL, true, false
SELECT 1::int2, 2::int4, 3::int8, 4.5::numeric, 5.5::float4, 6.5::float8, 7::oid
SELECT 'a'::text, 'b'::varchar(10), 'c'::char(4), 'd'::name, 'e'::"char"
SELECT '\x00ff10'::bytea, B'1010', X'1F', '101'::varbit(8)
SELECT '2026-11-25'::date, '12:34:56.789'::time, '12:34:56+02'::timetz, '2026-11-25 12:34:56'::timestamp, '2026-11-25 12:34:56+02'::timestamptz, '1 year 2 mons 3 days 04:05:06.7'::interval
SELECT '{"a": [1, 2, {"b": null}]}'::json, '{"a": [1, 2, {"b": null}]}'::jsonb, '$.a[*]'::jsonpath
SELECT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, '192.168.0.1/24'::inet, '10.0.0.0/8'::cidr, '08:00:2b:01:02:03'::macaddr, '08:00:2b:01:02:03:04:05'::macaddr8
SELECT '(1,2)'::point, '[(0,0),(1,1)]'::lseg, '(1,1),(0,0)'::box, '[(0,0),(1,1),(2,0)]'::path, '((0,0),(1,1),(2,0))'::polygon, '<(0,0),5>'::circle, '{1,2,3}'::line
SELECT '[1,10)'::int4range, '[1,10)'::int8range, '[1.5,2.5]'::numrange, '[2026-01-01,2026-02-01)'::daterange, '{[1,2),[5,6)}'::int4multirange
SELECT 'a fat cat'::tsvector, 'fat & cat'::tsquery, '<a>b</a>'::xml, '12.34'::money, '0/16B3748'::pg_lsn
SELECT ARRAY[1, 2, NULL], ARRAY['a', 'b"c', 'NULL'], '{{1,2},{3,4}}'::int[], '[2:3]={7,8}'::int[], '{}'::text[], ARRAY['2026-01-01'::date]
! SELECT ROW(1, 'a', NULL), (ROW(1, 'x')::pair).b, 'calm'::mood, '+123'::phone_number
SELECT 'NaN'::float8, 'Infinity'::float4, '-Infinity'::numeric, 'infinity'::timestamp, '-infinity'::date, 1e100::numeric, 0.000000001
SELECT 'äöü€😀', E'tab\there', U&'\00e4', $$dollar$$, '', ' '
SELECT 9223372036854775807, -9223372036854775808, 2147483647, 32767::int2, 12345678901234567890
SELECT pg_typeof(1), pg_typeof('a'), pg_typeof(NULL), 'pg_class'::regclass, 'int4'::regtype, 'now'::regproc
SELECT * FROM all_types ORDER BY id
TABLE all_types
SELECT a FROM all_types a ORDER BY id
SELECT row_to_json(a) FROM all_types a ORDER BY id
VALUES (1, 'a'), (2, NULL)
SELECT
SELECT FROM cities

-- expressions and functions
SELECT 1 + 2 * 3 / 4 % 5, 2 ^ 10, |/ 16, @ -5, 7 & 3, 7 | 8, 7 # 1, ~ 7, 1 << 4
SELECT 'a' || 'b' || NULL, concat('a', NULL, 1), upper('x'), substring('hello' FROM 2 FOR 3), position('l' IN 'hello'), trim(BOTH 'x' FROM 'xxhixx')
SELECT CASE WHEN 1 > 0 THEN 'yes' ELSE 'no' END, coalesce(NULL, 1), nullif(1, 1), greatest(1, 2, 3), least('a', 'b')
SELECT 1 IN (1, 2), 1 BETWEEN 0 AND 2, NULL IS NULL, 1 IS DISTINCT FROM NULL, 'abc' LIKE 'a%', 'abc' ~ '^a', 'abc' SIMILAR TO 'a_c'
SELECT extract(year FROM date '2026-11-25'), date_trunc('month', timestamp '2026-11-25 12:00'), age(timestamp '2026-11-25', timestamp '2000-01-01'), to_char(1234.5, '9,999.99')
SELECT array_agg(n ORDER BY n DESC), string_agg(n::text, ','), sum(n), avg(n), count(*), min(n), max(n), bool_and(n > 0) FROM generate_series(1, 5) n
SELECT jsonb_build_object('a', 1, 'b', ARRAY[1, 2]), json_agg(name), jsonb_object_agg(name, people) FROM cities
SELECT md5('x'), encode(sha256('x'), 'hex'), encode('\x00ff', 'base64'), quote_literal('it''s'), format('%s %I %L', 1, 'a b', 'c')
SELECT regexp_replace('abc', 'b', 'x'), regexp_matches('a1b2', '\d', 'g'), regexp_split_to_array('a,b', ',')
SELECT unnest(ARRAY[1, 2, 3]), unnest(ARRAY['a', 'b'])
SELECT (ARRAY[1, 2, 3])[2], (ARRAY[1, 2, 3])[2:3], ('{"a": {"b": 1}}'::jsonb)['a']['b']
SELECT width_bucket(5, 0, 10, 5), round(2.567, 2), trunc(-2.5), ceil(1.1), mod(10, 3), gcd(12, 18), lcm(4, 6)
SELECT to_tsvector('english', 'The fat cats'), ts_rank(to_tsvector('a b'), 'a'::tsquery), ts_headline('a b c', 'b'::tsquery)
SELECT xmlelement(name a, xmlattributes(1 AS b), 'c'), xpath('/a/text()', '<a>1</a>')
SELECT current_database(), current_schema, version() IS NOT NULL, pg_backend_pid() > 0, now() IS NOT NULL
SELECT current_setting('server_version_num'), current_setting('TimeZone'), current_setting('search_path')
SHOW server_version
SHOW search_path
SHOW ALL
! SELECT lo_get(424242)
SELECT pg_sleep(0.01)
SELECT txid_current() > 0, pg_is_in_recovery()

-- queries
SELECT * FROM cities ORDER BY name
SELECT c.*, n.body FROM cities c LEFT JOIN notes n ON n.id = 1 ORDER BY c.name
SELECT * FROM cities NATURAL JOIN (VALUES ('London', 'UK')) AS v (name, country)
SELECT * FROM cities JOIN (VALUES ('London', 1)) AS v (name, rank) USING (name)
SELECT a.name, b.name FROM cities a CROSS JOIN cities b WHERE a.name < b.name ORDER BY 1, 2
SELECT * FROM cities FULL JOIN notes ON false ORDER BY 1, 4
SELECT name FROM cities WHERE people > (SELECT avg(people) FROM cities)
SELECT name FROM cities c WHERE EXISTS (SELECT 1 FROM cities d WHERE d.people > c.people) ORDER BY 1
SELECT l.* FROM cities c, LATERAL (SELECT c.name || '!' AS x, c.people + 1 AS y) l ORDER BY 1
SELECT count(*), length(name) FROM cities GROUP BY length(name) HAVING count(*) > 0 ORDER BY 2
SELECT name, sum(people) FROM cities GROUP BY ROLLUP (name) ORDER BY 1 NULLS FIRST
SELECT name, rank() OVER (ORDER BY people DESC), lag(name) OVER w, sum(people) OVER (ROWS UNBOUNDED PRECEDING) FROM cities WINDOW w AS (ORDER BY people) ORDER BY 2
WITH x AS (SELECT * FROM cities) SELECT count(*) FROM x
WITH RECURSIVE t (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 10) SELECT sum(n) FROM t
SELECT name FROM cities UNION SELECT 'x' EXCEPT SELECT 'Boston' ORDER BY 1
SELECT DISTINCT ON (length(name)) name FROM cities ORDER BY length(name), name
SELECT name FROM cities ORDER BY people DESC NULLS LAST LIMIT 2 OFFSET 1
SELECT name FROM cities ORDER BY name FETCH FIRST 1 ROW ONLY
SELECT * FROM generate_series(1, 1000) n
SELECT repeat('x', 100000)
SELECT n, repeat('y', n) FROM generate_series(0, 300) n
SELECT * FROM json_each('{"a": 1, "b": "x"}')
SELECT * FROM jsonb_to_recordset('[{"a": 1, "b": "x"}]') AS t (a int, b text)
SELECT * FROM ROWS FROM (generate_series(1, 2), unnest(ARRAY['a', 'b'])) WITH ORDINALITY
SELECT * FROM cities TABLESAMPLE BERNOULLI (100) ORDER BY name
SELECT name FROM cities WHERE name = ANY ('{London,Boston}') ORDER BY 1
SELECT relname FROM pg_class WHERE relname = 'pg_class'
SELECT table_name FROM information_schema.tables WHERE table_name = 'cities'
EXPLAIN (COSTS OFF) SELECT * FROM cities WHERE name = 'x'
EXPLAIN (FORMAT json, COSTS OFF) SELECT 1

-- writes and definitions, undone by the test
INSERT INTO notes (id, body) VALUES (100, 'x'), (101, 'y')
INSERT INTO notes (id, body) VALUES (102, 'x') RETURNING *
INSERT INTO notes (id) VALUES (1) ON CONFLICT DO NOTHING
INSERT INTO notes (id, body) VALUES (1, 'z') ON CONFLICT (id) DO UPDATE SET body = excluded.body RETURNING body
UPDATE notes SET body = 'changed' WHERE id = 1 RETURNING id, body
UPDATE notes SET n = 5 FROM cities WHERE cities.name = 'London'
DELETE FROM notes WHERE id = 2
DELETE FROM notes USING cities WHERE notes.id = 1 RETURNING cities.name
MERGE INTO notes n USING (VALUES (1), (103)) v (id) ON n.id = v.id WHEN MATCHED THEN UPDATE SET body = 'm' WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)
WITH d AS (DELETE FROM notes RETURNING *) SELECT count(*) FROM d
CREATE TABLE fresh (id serial PRIMARY KEY, x text DEFAULT 'a' CHECK (x <> 'b'), y int GENERATED ALWAYS AS (1) STORED)
CREATE TABLE fresh AS SELECT * FROM cities
CREATE TEMP TABLE fresh (a int) ON COMMIT DROP
SELECT * INTO fresh FROM cities
CREATE VIEW fresh AS SELECT name FROM cities
CREATE MATERIALIZED VIEW fresh AS SELECT name FROM cities
CREATE INDEX ON cities (people)
CREATE SEQUENCE fresh START 5
CREATE TYPE fresh AS ENUM ('a')
CREATE TYPE fresh AS (a int)
CREATE DOMAIN fresh AS int CHECK (VALUE > 0)
! CREATE FUNCTION fresh(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'
! CREATE SCHEMA fresh CREATE TABLE t (a int)
ALTER TABLE cities ADD COLUMN x int DEFAULT 1
ALTER TABLE cities RENAME COLUMN people TO p
ALTER TABLE cities ALTER COLUMN people TYPE bigint
DROP TABLE notes
DROP TABLE IF EXISTS nothing_of_the_name
TRUNCATE notes
COMMENT ON TABLE cities IS 'x'
GRANT SELECT ON cities TO PUBLIC
ANALYZE cities
LOCK TABLE cities IN SHARE MODE
! DO $$ BEGIN RAISE NOTICE 'hello %', 1; END $$
! DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'P0002', HINT = 'a hint', DETAIL = 'a detail'; END $$
! DO $$ BEGIN RAISE WARNING 'careful'; RAISE INFO 'info'; RAISE LOG 'log'; END $$
! SELECT shout('x'), gather(name) FROM cities
! CALL publish()
SELECT setval('counter', 10), nextval('counter'), currval('counter')
PREPARE q (int) AS SELECT $1 + 1
DECLARE c CURSOR FOR SELECT name FROM cities ORDER BY name
NOTIFY news, 'payload'
LISTEN news
UNLISTEN *
SET application_name = 'other'
SET LOCAL statement_timeout = '5s'
SET TimeZone = 'Europe/Berlin'
SET DateStyle = 'German'
SET bytea_output = 'escape'
SET extra_float_digits = 0
RESET ALL
SAVEPOINT s
COPY cities TO STDOUT
COPY cities TO STDOUT WITH (FORMAT csv, HEADER)
COPY cities TO STDOUT WITH (FORMAT binary)
COPY (SELECT * FROM all_types ORDER BY id) TO STDOUT
REFRESH MATERIALIZED VIEW people_copy

-- errors, each with its own code
SELEC 1
SELECT 1 +
! SELECT nothing FROM cities
! SELECT * FROM nothing
! SELECT nothing()
SELECT 1 / 0
SELECT 'x'::int
SELECT '2026-13-01'::date
SELECT 99999999999::int
SELECT 1 + 'a'::text
SELECT (SELECT name FROM cities)
SELECT name, count(*) FROM cities
SELECT name FROM cities GROUP BY people
SELECT * FROM cities WHERE name = 1
INSERT INTO notes (id) VALUES (1)
INSERT INTO notes (id) VALUES (NULL)
INSERT INTO notes VALUES (1, 2, 3, 4, 5, 6, 7, 8, 9)
UPDATE cities SET name = NULL
! CREATE TABLE cities (a int)
CREATE TABLE pg_catalog.x (a int)
DROP TABLE cities CASCADE
DROP VIEW cities
! SELECT 'happy'::mood
SELECT '123'::phone_number
SELECT '{"a":'::json
SELECT '{1,2'::int[]
SELECT 'x' ~ '('
SELECT * FROM cities LIMIT -1
! SELECT pg_read_file('/etc/hostname', 0, 1)
! COPY cities FROM '/nothing'
! FETCH ALL FROM nothing
! EXECUTE nothing
DEALLOCATE nothing
ROLLBACK TO nothing
SET nothing = 1
SHOW nothing
SELECT $1
! SELECT "Name" FROM cities
SELECT 1; SELECT 2
! SELECT blurt(1)
! SELECT cities.nothing FROM cities
SELECT max(max(people)) FROM cities
SELECT * FROM cities FOR UPDATE NOWAIT
SELECT lead(1)
! WITH x AS (SELECT 1) SELECT * FROM y
SELECT 1 UNION SELECT 'a'
! SELECT 1 UNION SELECT 1, 2

SELECT c.*, (SELECT max(ssn) OVER w FROM v WINDOW w AS (ORDER BY x)) FROM customers c NATURAL JOIN other o WHERE ssn IN ('a', $1) GROUP BY 1, ROLLUP (a, b)
WITH RECURSIVE w (a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM w) CYCLE a SET x USING y SELECT * FROM w, LATERAL (VALUES (a), (2)) v (z) ORDER BY 1
INSERT INTO customers AS t (id) VALUES (DEFAULT) ON CONFLICT (id) WHERE id > 0 DO UPDATE SET (id, name) = (SELECT 1, 'x'), ssn = excluded.ssn RETURNING t.*, row_to_json(t)
MERGE INTO other USING customers c ON other.id = c.id WHEN MATCHED AND c.id > 1 THEN DO NOTHING WHEN NOT MATCHED THEN INSERT DEFAULT VALUES RETURNING *, merge_action()
SELECT (a).b.c[1:2], (t.*).x, ARRAY[[1], [2]], ROW(), CASE a WHEN 1 THEN 2 END, xmlforest(a, b AS c), JSON_OBJECT('a' : ssn), JSON_ARRAYAGG(x ORDER BY y) FROM t
SELECT * FROM ROWS FROM (f(1) AS (a int), g(2)) WITH ORDINALITY AS t (x), XMLTABLE('/a' PASSING x COLUMNS y int PATH 'z' DEFAULT 1), JSON_TABLE('{}', '$' COLUMNS (a int PATH '$.a')) j
UPDATE ONLY customers t SET a[1].b = 2 FROM other WHERE CURRENT OF c RETURNING ctid
DELETE FROM customers USING v WHERE EXISTS (TABLE v)
COPY (SELECT 1) TO STDOUT (FORMAT binary)
COPY customers FROM STDIN WHERE id > 1
EXPLAIN (ANALYZE) TABLE customers
CREATE VIEW x AS TABLE v
SELECT FROM customers
SELECT DISTINCT ON (1) * FROM customers JOIN other USING (id) AS j ORDER BY 1 FETCH FIRST 1 ROW WITH TIES
SELECT (), *
VALUES (1, 2), (3)
ALTER TABLE customers RENAME TO x
CREATE INDEX ON customers ((lower(ssn)))
CREATE TABLE x AS EXECUTE y
DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT ssn FROM customers
FETCH BACKWARD ALL FROM c
MOVE 5 IN c
PREPARE p (int, text) AS SELECT ssn FROM customers WHERE id = $1 AND name = $2
EXECUTE p (1, 'x')
EXPLAIN (ANALYZE, FORMAT json) EXECUTE p (1, 'x')
CREATE TEMP TABLE n AS EXECUTE p (1, 'x') WITH NO DATA
CREATE TEMP TABLE kept AS SELECT ssn, lower(name) FROM customers
SELECT kept, kept.*, (kept).ssn FROM kept JOIN scratch USING (id)
INSERT INTO pg_temp.kept (ssn) SELECT card FROM customers RETURNING *
UPDATE pg_temp.kept SET (ssn, lower) = (SELECT ssn, name FROM customers LIMIT 1)
SELECT 1 INTO TEMP fresh FROM customers
CREATE TEMP TABLE g (a text, b text GENERATED ALWAYS AS (lower(a)) STORED, CHECK (a > 'x'))
COPY customers (ssn, id) TO STDOUT WITH (FORMAT csv, HEADER, QUOTE '''', ESCAPE '!', DELIMITER ';', NULL 'nil', FORCE_QUOTE (ssn))
COPY (SELECT * FROM v) TO STDOUT CSV FORCE QUOTE * ENCODING 'UTF8'
COPY BINARY customers TO STDOUT
SELECT show(id), show(who => ssn) FROM customers
SELECT * FROM show(1) WITH ORDINALITY AS s (a, b), LATERAL show(b::int)
SELECT loop(loop(loop(1)))
WITH RECURSIVE a AS (SELECT 1 AS x UNION SELECT x FROM a, (WITH RECURSIVE b AS (SELECT x FROM a UNION SELECT x FROM b) SELECT * FROM b) c) SELECT * FROM a
SELECT (1).leak, ('x'::text).pg_read_file, (customers).card FROM customers
SELECT count(*) FILTER (WHERE ssn > 'a') OVER (PARTITION BY id ORDER BY name ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM customers
SELECT * FROM unnest(ARRAY[1], ARRAY[2]) WITH ORDINALITY u (a, b, c), json_to_recordset('[]') AS r (a int, b text)
SELECT GROUPING(id, ssn) FROM customers GROUP BY GROUPING SETS (CUBE (id, ssn), ROLLUP (name), ())
SELECT id FROM customers TABLESAMPLE BERNOULLI (10) REPEATABLE (1) FOR UPDATE OF customers SKIP LOCKED
DECLARE d CURSOR FOR WITH x AS (SELECT * FROM customers) SELECT x FROM x

package pgsql

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chaperone.dev/chaperone/pkg/policy"
)

func TestFacts(t *testing.T) {
	list := func(s ...string) []string { return s }
	tests := []struct {
		text string
		want policy.Statement
	}{
		{"SELECT 1", policy.Statement{Kind: "SELECT", ReadOnly: true}},
		{"select id, c.name from public.customers c where c.id = $1", policy.Statement{Kind: "SELECT", ReadOnly: true, HasWhere: true,
			Tables: list("public.customers"), Columns: list("id", "c.name", "c.id")}},
		{"TABLE t", policy.Statement{Kind: "SELECT", ReadOnly: true, Tables: list("t"), Columns: list("*")}},
		{"VALUES (1), (2)", policy.Statement{Kind: "SELECT", ReadOnly: true}},
		{`SELECT "Weird Name", t.* FROM "S"."T" t`, policy.Statement{Kind: "SELECT", ReadOnly: true, Tables: list("S.T"), Columns: list("Weird Name", "t.*")}},
		{"WITH a AS (SELECT x FROM t1), b AS (SELECT x FROM a) SELECT x FROM b, t2 WHERE x IN (SELECT y FROM t3)",
			policy.Statement{Kind: "SELECT", ReadOnly: true, HasWhere: true, Tables: list("t1", "t2", "t3"), Columns: list("x", "y")}},
		{"WITH customers AS (SELECT * FROM customers) SELECT * FROM customers", policy.Statement{Kind: "SELECT", ReadOnly: true, Tables: list("customers"), Columns: list("*")}},
		{"WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n) SELECT i FROM n", policy.Statement{Kind: "SELECT", ReadOnly: true, Columns: list("i")}},
		{"WITH t AS (SELECT 1) SELECT * FROM s.t", policy.Statement{Kind: "SELECT", ReadOnly: true, Tables: list("s.t"), Columns: list("*")}},
		{"SELECT (WITH t AS (SELECT 1) SELECT 1 FROM t) FROM t", policy.Statement{Kind: "SELECT", ReadOnly: true, Tables: list("t")}},
		{"SELECT a FROM t1 UNION SELECT b FROM t2 EXCEPT SELECT c FROM t3", policy.Statement{Kind: "SELECT", ReadOnly: true, Tables: list("t1", "t2", "t3"), Columns: list("a", "b", "c")}},
		{"SELECT count(*), LOWER(n), pg_catalog.upper(n), extract(year from d) FROM t", policy.Statement{Kind: "SELECT", ReadOnly: true,
			Tables: list("t"), Columns: list("n", "d"), Functions: list("count", "lower", "pg_catalog.upper", "extract")}},
		{`SELECT "Lower"(n) FROM t`, policy.Statement{Kind: "SELECT", Tables: list("t"), Columns: list("n"), Functions: list("lower")}},
		{"SELECT (information_schema._pg_expandarray(i.indkey)).n FROM pg_index i", policy.Statement{Kind: "SELECT", ReadOnly: true,
			Tables: list("pg_index"), Relations: list("pg_catalog.pg_index"), Columns: list("i.indkey"), Functions: list("information_schema._pg_expandarray")}},
		{"SELECT ('/etc/passwd'::text).pg_read_file", policy.Statement{Kind: "SELECT", Functions: list("pg_read_file")}},
		{"SELECT (t.s).nextval FROM t", policy.Statement{Kind: "SELECT", Tables: list("t"), Columns: list("t.s"), Functions: list("nextval")}},
		{"SELECT (t.s).x, (t).a FROM d.public.t", policy.Statement{Kind: "SELECT", ReadOnly: true, Tables: list("d.public.t"), Relations: list("public.t"), Columns: list("t.s", "t")}},
		{"SELECT mine(1)", policy.Statement{Kind: "SELECT", Functions: list("mine")}},
		{"SELECT public.lower('x')", policy.Statement{Kind: "SELECT", Functions: list("public.lower")}},
		{"SELECT * FROM mine(1)", policy.Statement{Kind: "SELECT", Columns: list("*"), Functions: list("mine")}},
		{"SELECT nextval('s')", policy.Statement{Kind: "SELECT", Functions: list("nextval")}},
		{"SELECT pg_read_file('/etc/passwd')", policy.Statement{Kind: "SELECT", Functions: list("pg_read_file")}},
		{"SELECT query_to_xml('delete from t', true, true, '')", policy.Statement{Kind: "SELECT", Functions: list("query_to_xml")}},
		{"SELECT table_to_xml('t', true, true, '')", policy.Statement{Kind: "SELECT", Functions: list("table_to_xml")}},
		{"SELECT dblink('x', 'y')", policy.Statement{Kind: "SELECT", Functions: list("dblink")}},
		{"SELECT pg_terminate_backend(1)", policy.Statement{Kind: "SELECT", Functions: list("pg_terminate_backend")}},
		{"SELECT set_config('search_path', '', false)", policy.Statement{Kind: "SELECT", ReadOnly: true, Functions: list("set_config")}},
		{"SELECT pg_catalog.set_config(name, 'view, foreign-table', false) FROM pg_catalog.pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
			policy.Statement{Kind: "SELECT", ReadOnly: true, Functions: list("pg_catalog.set_config"), HasWhere: true,
				Tables: list("pg_catalog.pg_settings"), Columns: list("name")}},
		{"SELECT set_config('role', 'postgres', false)", policy.Statement{Kind: "SELECT", Functions: list("set_config")}},
		{"SELECT * FROM t FOR UPDATE", policy.Statement{Kind: "SELECT", Tables: list("t"), Columns: list("*")}},
		{"SELECT * FROM (SELECT * FROM t FOR SHARE) s", policy.Statement{Kind: "SELECT", Tables: list("t"), Columns: list("*")}},
		{"SELECT * INTO n FROM t", policy.Statement{Kind: "SELECT INTO", DDL: true, Tables: list("n", "t"), Columns: list("*")}},
		{"WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", policy.Statement{Kinds: list("DELETE", "SELECT"), Kind: "DELETE", Tables: list("t"), Columns: list("*")}},
		{"WITH d AS (DELETE FROM t WHERE a = 1 RETURNING *) SELECT * FROM d", policy.Statement{Kinds: list("DELETE", "SELECT"), Kind: "DELETE", HasWhere: true, Tables: list("t"), Columns: list("a", "*")}},
		{"WITH d AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM d", policy.Statement{Kinds: list("INSERT", "DELETE"), Kind: "INSERT", Tables: list("t", "u"), Columns: list("*")}},
		{"SELECT * FROM t TABLESAMPLE bernoulli (10)", policy.Statement{Kind: "SELECT", ReadOnly: true, Tables: list("t"), Columns: list("*")}},
		{"SELECT * FROM t TABLESAMPLE mine (10)", policy.Statement{Kind: "SELECT", Tables: list("t"), Columns: list("*"), Functions: list("mine")}},
		{"INSERT INTO s.t (a, b) VALUES (1, 2) RETURNING a", policy.Statement{Kind: "INSERT", Tables: list("s.t"), Columns: list("a")}},
		{"INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2", policy.Statement{Kind: "INSERT", Kinds: list("INSERT", "UPDATE"), Tables: list("t")}},
		{"INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", policy.Statement{Kind: "INSERT", Tables: list("t")}},
		{"WITH a AS (DELETE FROM t), b AS (UPDATE u SET x = 1) INSERT INTO v VALUES (1)", policy.Statement{Kind: "INSERT", Kinds: list("INSERT", "DELETE", "UPDATE"),
			Tables: list("t", "u", "v")}},
		{"CREATE RULE r AS ON INSERT TO t DO ALSO DELETE FROM u", policy.Statement{Kind: "CREATE RULE", DDL: true, Tables: list("t", "u")}},
		{"UPDATE t SET a = b", policy.Statement{Kind: "UPDATE", Tables: list("t"), Columns: list("b")}},
		{"UPDATE t SET a = 1 WHERE b = 2", policy.Statement{Kind: "UPDATE", HasWhere: true, Tables: list("t"), Columns: list("b")}},
		{"DELETE FROM t USING u WHERE t.a = u.a", policy.Statement{Kind: "DELETE", HasWhere: true, Tables: list("t", "u"), Columns: list("t.a", "u.a")}},
		{"DELETE FROM t", policy.Statement{Kind: "DELETE", Tables: list("t")}},
		{"MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", policy.Statement{Kinds: list("MERGE", "DELETE"), Kind: "MERGE", Tables: list("t", "u"), Columns: list("t.a", "u.a")}},
		{"COPY t TO STDOUT", policy.Statement{Kind: "COPY", ReadOnly: true, Tables: list("t")}},
		{"COPY t (a, b) FROM STDIN", policy.Statement{Kind: "COPY", Tables: list("t")}},
		{"COPY (SELECT a FROM t) TO STDOUT (FORMAT csv)", policy.Statement{Kind: "COPY", ReadOnly: true, Tables: list("t"), Columns: list("a")}},
		{"COPY (SELECT a FROM t WHERE mine(a)) TO STDOUT", policy.Statement{Kind: "COPY", HasWhere: true, Tables: list("t"), Columns: list("a"), Functions: list("mine")}},
		{"COPY (DELETE FROM t RETURNING a) TO STDOUT", policy.Statement{Kinds: list("DELETE", "COPY"), Kind: "DELETE", Tables: list("t"), Columns: list("a")}},
		{"COPY t TO PROGRAM 'cat'", policy.Statement{Kind: "COPY", Tables: list("t")}},
		{"COPY t TO '/tmp/x'", policy.Statement{Kind: "COPY", Tables: list("t")}},
		{"EXPLAIN DELETE FROM t", policy.Statement{Kind: "EXPLAIN", ReadOnly: true, Tables: list("t")}},
		{"EXPLAIN (ANALYZE false) DELETE FROM t", policy.Statement{Kind: "EXPLAIN", ReadOnly: true, Tables: list("t")}},
		{"EXPLAIN ANALYZE DELETE FROM t WHERE a = 1", policy.Statement{Kinds: list("DELETE", "EXPLAIN"), Kind: "DELETE", HasWhere: true, Tables: list("t"), Columns: list("a")}},
		{"EXPLAIN (ANALYZE true, ANALYZE false) DELETE FROM t", policy.Statement{Kinds: list("DELETE", "EXPLAIN"), Kind: "DELETE", Tables: list("t")}},
		{"EXPLAIN ANALYZE SELECT a FROM t", policy.Statement{Kind: "EXPLAIN", ReadOnly: true, Tables: list("t"), Columns: list("a")}},
		{"EXPLAIN ANALYZE CREATE TABLE n AS SELECT a FROM t", policy.Statement{Kinds: list("CREATE TABLE AS", "EXPLAIN"), Kind: "CREATE TABLE AS", DDL: true, Tables: list("t", "n"), Columns: list("a")}},
		{"EXPLAIN ANALYZE EXECUTE p", policy.Statement{Kinds: list("EXECUTE", "EXPLAIN"), Kind: "EXECUTE"}},
		{"EXPLAIN SELECT mine(1)", policy.Statement{Kind: "EXPLAIN", Functions: list("mine")}},
		{"BEGIN", policy.Statement{Kind: "BEGIN", ReadOnly: true}},
		{"START TRANSACTION READ ONLY", policy.Statement{Kind: "START TRANSACTION", ReadOnly: true}},
		{"COMMIT", policy.Statement{Kind: "COMMIT", ReadOnly: true}},
		{"ROLLBACK", policy.Statement{Kind: "ROLLBACK", ReadOnly: true}},
		{"SAVEPOINT a", policy.Statement{Kind: "SAVEPOINT", ReadOnly: true}},
		{"RELEASE a", policy.Statement{Kind: "RELEASE", ReadOnly: true}},
		{"ROLLBACK TO a", policy.Statement{Kind: "ROLLBACK", ReadOnly: true}},
		{"PREPARE TRANSACTION 'x'", policy.Statement{Kind: "PREPARE TRANSACTION"}},
		{"COMMIT PREPARED 'x'", policy.Statement{Kind: "COMMIT PREPARED"}},
		{"SET statement_timeout = 5", policy.Statement{Kind: "SET", ReadOnly: true}},
		{"SET TIME ZONE 'UTC'", policy.Statement{Kind: "SET", ReadOnly: true}},
		{"SET LOCAL search_path = a, b", policy.Statement{Kind: "SET", ReadOnly: true}},
		{"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", policy.Statement{Kind: "SET", ReadOnly: true}},
		{"SET ROLE postgres", policy.Statement{Kind: "SET"}},
		{"SET SESSION AUTHORIZATION postgres", policy.Statement{Kind: "SET"}},
		{"SET session_replication_role = replica", policy.Statement{Kind: "SET"}},
		{"SET app.tenant = '7'", policy.Statement{Kind: "SET"}},
		{"SET client_encoding = 'UTF8'", policy.Statement{Kind: "SET", ReadOnly: true}},
		{"SET standard_conforming_strings = on", policy.Statement{Kind: "SET", ReadOnly: true}},
		{"RESET ALL", policy.Statement{Kind: "RESET", ReadOnly: true}},
		{"SHOW server_version", policy.Statement{Kind: "SHOW", ReadOnly: true}},
		{"DISCARD ALL", policy.Statement{Kind: "DISCARD"}},
		{"DEALLOCATE ALL", policy.Statement{Kind: "DEALLOCATE", ReadOnly: true}},
		{"DECLARE c CURSOR FOR SELECT a FROM t", policy.Statement{Kind: "DECLARE CURSOR", ReadOnly: true, Tables: list("t"), Columns: list("a")}},
		{"FETCH 5 c", policy.Statement{Kind: "FETCH", ReadOnly: true}},
		{"MOVE 5 c", policy.Statement{Kind: "MOVE", ReadOnly: true}},
		{"CLOSE c", policy.Statement{Kind: "CLOSE CURSOR", ReadOnly: true}},
		{"LISTEN c", policy.Statement{Kind: "LISTEN", ReadOnly: true}},
		{"NOTIFY c, 'x'", policy.Statement{Kind: "NOTIFY"}},
		{"PREPARE p AS SELECT a FROM t", policy.Statement{Kind: "PREPARE", ReadOnly: true, Tables: list("t"), Columns: list("a")}},
		{"PREPARE p AS DELETE FROM t", policy.Statement{Kinds: list("PREPARE", "DELETE"), Kind: "PREPARE", Tables: list("t")}},
		{"EXECUTE p(1)", policy.Statement{Kind: "EXECUTE"}},
		{"DO $$ BEGIN DELETE FROM t; END $$", policy.Statement{Kind: "DO"}},
		{"CALL p(1)", policy.Statement{Kind: "CALL", Functions: list("p")}},
		{"VACUUM t", policy.Statement{Kind: "VACUUM", Tables: list("t")}},
		{"ANALYZE t", policy.Statement{Kind: "ANALYZE", Tables: list("t")}},
		{"CHECKPOINT", policy.Statement{Kind: "CHECKPOINT"}},
		{"LOCK TABLE t", policy.Statement{Kind: "LOCK TABLE", Tables: list("t")}},
		{"TRUNCATE a, b", policy.Statement{Kind: "TRUNCATE TABLE", Tables: list("a", "b")}},
		{"LOAD 'x'", policy.Statement{Kind: "LOAD"}},
		{"CREATE TABLE s.t (a int REFERENCES u)", policy.Statement{Kind: "CREATE TABLE", DDL: true, Tables: list("s.t", "u")}},
		{"CREATE TABLE n AS SELECT a FROM t", policy.Statement{Kind: "CREATE TABLE AS", DDL: true, Tables: list("t", "n"), Columns: list("a")}},
		{"CREATE MATERIALIZED VIEW n AS SELECT a FROM t", policy.Statement{Kind: "CREATE MATERIALIZED VIEW", DDL: true, Tables: list("t", "n"), Columns: list("a")}},
		{"CREATE VIEW v AS SELECT a FROM t", policy.Statement{Kind: "CREATE VIEW", DDL: true, Tables: list("v", "t"), Columns: list("a")}},
		{"CREATE INDEX ON t (a)", policy.Statement{Kind: "CREATE INDEX", DDL: true, Tables: list("t")}},
		{"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", policy.Statement{Kind: "CREATE FUNCTION", DDL: true}},
		{"CREATE EXTENSION x", policy.Statement{Kind: "CREATE EXTENSION", DDL: true}},
		{"CREATE ROLE r SUPERUSER", policy.Statement{Kind: "CREATE ROLE", DDL: true}},
		{"CREATE TYPE y AS (a int)", policy.Statement{Kind: "CREATE TYPE", DDL: true}},
		{"CREATE TYPE y AS ENUM ('a')", policy.Statement{Kind: "CREATE TYPE", DDL: true}},
		{"CREATE AGGREGATE a (int) (sfunc = f, stype = int)", policy.Statement{Kind: "CREATE AGGREGATE", DDL: true}},
		{"CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION f()", policy.Statement{Kind: "CREATE TRIGGER", DDL: true, Tables: list("t")}},
		{"DROP TABLE IF EXISTS a, s.b", policy.Statement{Kind: "DROP TABLE", DDL: true, Tables: list("a", "s.b")}},
		{"DROP MATERIALIZED VIEW v", policy.Statement{Kind: "DROP MATERIALIZED VIEW", DDL: true, Tables: list("v")}},
		{"DROP TRIGGER x ON s.t", policy.Statement{Kind: "DROP TRIGGER", DDL: true, Tables: list("s.t")}},
		{"DROP FUNCTION f(int)", policy.Statement{Kind: "DROP FUNCTION", DDL: true}},
		{"DROP DATABASE d", policy.Statement{Kind: "DROP DATABASE", DDL: true}},
		{"ALTER TABLE t ADD b int", policy.Statement{Kind: "ALTER TABLE", DDL: true, Tables: list("t")}},
		{"ALTER TABLE t RENAME a TO b", policy.Statement{Kind: "ALTER TABLE", DDL: true, Tables: list("t")}},
		{"ALTER VIEW v RENAME TO w", policy.Statement{Kind: "ALTER VIEW", DDL: true, Tables: list("v")}},
		{"ALTER ROLE r SET search_path = x", policy.Statement{Kind: "ALTER ROLE", DDL: true}},
		{"ALTER SYSTEM SET fsync = off", policy.Statement{Kind: "ALTER SYSTEM", DDL: true}},
		{"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", policy.Statement{Kind: "ALTER DEFAULT PRIVILEGES", DDL: true}},
		{"ALTER TEXT SEARCH DICTIONARY d (a = b)", policy.Statement{Kind: "ALTER TEXT SEARCH DICTIONARY", DDL: true}},
		{"GRANT SELECT ON t TO r", policy.Statement{Kind: "GRANT", DDL: true, Tables: list("t")}},
		{"REVOKE a FROM b", policy.Statement{Kind: "REVOKE ROLE", DDL: true}},
		{"COMMENT ON COLUMN s.t.a IS 'x'", policy.Statement{Kind: "COMMENT", DDL: true, Tables: list("s.t")}},
		{"REFRESH MATERIALIZED VIEW v", policy.Statement{Kind: "REFRESH MATERIALIZED VIEW", DDL: true, Tables: list("v")}},
	}
	p := NewParser(Options{})
	for _, tt := range tests {
		tt.want.Text = tt.text
		if tt.want.Kinds == nil {
			tt.want.Kinds = list(tt.want.Kind)
		}
		if tt.want.Relations == nil {
			for _, name := range tt.want.Tables {
				if !strings.Contains(name, ".") {
					name = "public." + name
				}
				tt.want.Relations = append(tt.want.Relations, name)
			}
		}
		got := parseOne(t, p, tt.text).Facts(tt.text)
		if d := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s\n%s", tt.text, d)
		}
	}
}

// someNames are those of a database.
type someNames struct{}

func (someNames) ChangingFunction(name string, call Call) bool {
	return name == "round" || name == "touch" && call == CallRow || name == "poke" && call == CallValue
}

func (someNames) ChangingOperator(name string) bool { return name == "##" }

func (someNames) ChangingType(name string) bool { return name == "mood" }

func (someNames) Relations(name string) []string {
	return map[string][]string{"orders": {"public"}, "t": {"a", "b"}, "busy": {"public"}}[name]
}

func (someNames) ChangingView(r Relation) bool {
	return r.Name == "busy" && (r.Schema == "public" || r.Schema == "")
}

func TestFactsInADatabase(t *testing.T) {
	for _, tt := range []struct {
		text      string
		readOnly  bool
		relations string
	}{
		{"SELECT a FROM orders", true, "public.orders"},
		{"SELECT a FROM t", true, "a.t b.t"},
		{"SELECT a FROM b.t, new, t", true, "b.t new a.t"},
		{"SELECT a FROM d.a.t", true, "a.t"},
		{"WITH t AS (SELECT 1) SELECT * FROM t", true, ""},
		{"DROP TABLE orders, x.orders", false, "public.orders x.orders"},
		{"SELECT a FROM busy", false, "public.busy"},
		{"SELECT a FROM public.busy", false, "public.busy"},
		{"SELECT a FROM a.busy", true, "a.busy"},
		{"SELECT abs(a) FROM orders", true, "public.orders"},
		{"SELECT round(a, 2) FROM orders", false, "public.orders"},
		{"SELECT pg_catalog.round(a, 2) FROM orders", true, "public.orders"},
		{"SELECT round FROM orders", true, "public.orders"},
		{"SELECT o.touch FROM orders o", false, "public.orders"},
		{"SELECT (o).touch FROM orders o", true, "public.orders"},
		{"SELECT (1).poke", false, ""},
		{"SELECT o.poke FROM orders o", true, "public.orders"},
		{"SELECT 'x'::mood", false, ""},
		{"SELECT CAST(a AS public.mood[]), b::text FROM orders", false, "public.orders"},
		{"SELECT a::text, date '2020-01-01' FROM orders", true, "public.orders"},
		{"SELECT a ## 1 FROM orders", false, "public.orders"},
		{"SELECT 1 WHERE 1 OPERATOR(pg_catalog.##) 1", true, ""},
		{"SELECT 1 WHERE 1 ## ANY (SELECT 1)", false, ""},
		{"SELECT a FROM orders ORDER BY a USING ##", false, "public.orders"},
	} {
		f := parseOne(t, NewParser(Options{}), tt.text).FactsIn(tt.text, Surroundings{Names: someNames{}})
		if got := strings.Join(f.Relations, " "); got != tt.relations || f.ReadOnly != tt.readOnly || f.Text != tt.text {
			t.Errorf("%s: readOnly %v, relations %q; want %v, %q", tt.text, f.ReadOnly, got, tt.readOnly, tt.relations)
		}
	}
}

func TestFactsOfExecute(t *testing.T) {
	p := NewParser(Options{})
	prepared := map[string]*Statement{}
	for _, text := range []string{
		"PREPARE reads AS SELECT a, abs(b) FROM orders", "PREPARE writes AS UPDATE orders SET a = 1 WHERE b = 2",
		"PREPARE calls AS SELECT mine()", "PREPARE hidden AS SELECT round(1)",
	} {
		s := parseOne(t, p, text)
		prepared[s.Tree.GetPrepareStmt().Name] = s
	}
	in := Surroundings{Names: someNames{}, Prepared: func(name string) *Statement { return prepared[name] }}
	for _, tt := range []struct {
		text, kinds         string
		readOnly            bool
		relations, function string
	}{
		{"EXECUTE reads", "EXECUTE", true, "public.orders", "abs"},
		{"EXECUTE reads(nextval('s'))", "EXECUTE", false, "public.orders", "nextval abs"},
		{"EXECUTE writes", "UPDATE EXECUTE", false, "public.orders", ""},
		{"EXECUTE calls", "EXECUTE", false, "", "mine"},
		{"EXECUTE hidden", "EXECUTE", false, "", "round"},
		{"EXECUTE unknown", "EXECUTE", false, "", ""},
		{"EXPLAIN EXECUTE writes", "EXPLAIN", true, "public.orders", ""},
		{"EXPLAIN ANALYZE EXECUTE writes", "UPDATE EXECUTE EXPLAIN", false, "public.orders", ""},
		{"EXPLAIN ANALYZE EXECUTE reads", "EXECUTE EXPLAIN", true, "public.orders", "abs"},
		{"CREATE TABLE n AS EXECUTE reads", "CREATE TABLE AS", false, "n public.orders", "abs"},
	} {
		f := parseOne(t, p, tt.text).FactsIn(tt.text, in)
		if kinds := strings.Join(f.Kinds, " "); kinds != tt.kinds || f.Kind != f.Kinds[0] || f.ReadOnly != tt.readOnly ||
			strings.Join(f.Relations, " ") != tt.relations || strings.Join(f.Functions, " ") != tt.function {
			t.Errorf("%s: %q, readOnly %v, relations %q, functions %q", tt.text, f.Kinds, f.ReadOnly, f.Relations, f.Functions)
		}
	}
}

package pgsql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chaperone.dev/chaperone/pkg/policy"
)

func parseOne(t testing.TB, p *Parser, text string) *Statement {
	t.Helper()
	q, err := p.Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	if len(q.Statements) != 1 {
		t.Fatalf("Parse(%q): %d statements", text, len(q.Statements))
	}
	return q.Statements[0]
}

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
		{"SELECT set_config('role', 'postgres', false)", policy.Statement{Kind: "SELECT", Functions: list("set_config")}},
		{"SELECT * FROM t FOR UPDATE", policy.Statement{Kind: "SELECT", Tables: list("t"), Columns: list("*")}},
		{"SELECT * FROM (SELECT * FROM t FOR SHARE) s", policy.Statement{Kind: "SELECT", Tables: list("t"), Columns: list("*")}},
		{"SELECT * INTO n FROM t", policy.Statement{Kind: "SELECT INTO", DDL: true, Tables: list("n", "t"), Columns: list("*")}},
		{"WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", policy.Statement{Kind: "DELETE", Tables: list("t"), Columns: list("*")}},
		{"WITH d AS (DELETE FROM t WHERE a = 1 RETURNING *) SELECT * FROM d", policy.Statement{Kind: "DELETE", HasWhere: true, Tables: list("t"), Columns: list("a", "*")}},
		{"WITH d AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM d", policy.Statement{Kind: "INSERT", Tables: list("t", "u"), Columns: list("*")}},
		{"SELECT * FROM t TABLESAMPLE bernoulli (10)", policy.Statement{Kind: "SELECT", ReadOnly: true, Tables: list("t"), Columns: list("*")}},
		{"SELECT * FROM t TABLESAMPLE mine (10)", policy.Statement{Kind: "SELECT", Tables: list("t"), Columns: list("*"), Functions: list("mine")}},
		{"INSERT INTO s.t (a, b) VALUES (1, 2) RETURNING a", policy.Statement{Kind: "INSERT", Tables: list("s.t"), Columns: list("a")}},
		{"UPDATE t SET a = b", policy.Statement{Kind: "UPDATE", Tables: list("t"), Columns: list("b")}},
		{"UPDATE t SET a = 1 WHERE b = 2", policy.Statement{Kind: "UPDATE", HasWhere: true, Tables: list("t"), Columns: list("b")}},
		{"DELETE FROM t USING u WHERE t.a = u.a", policy.Statement{Kind: "DELETE", HasWhere: true, Tables: list("t", "u"), Columns: list("t.a", "u.a")}},
		{"DELETE FROM t", policy.Statement{Kind: "DELETE", Tables: list("t")}},
		{"MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", policy.Statement{Kind: "MERGE", Tables: list("t", "u"), Columns: list("t.a", "u.a")}},
		{"COPY t TO STDOUT", policy.Statement{Kind: "COPY", ReadOnly: true, Tables: list("t")}},
		{"COPY t (a, b) FROM STDIN", policy.Statement{Kind: "COPY", Tables: list("t")}},
		{"COPY (SELECT a FROM t) TO STDOUT (FORMAT csv)", policy.Statement{Kind: "COPY", ReadOnly: true, Tables: list("t"), Columns: list("a")}},
		{"COPY (SELECT a FROM t WHERE mine(a)) TO STDOUT", policy.Statement{Kind: "COPY", HasWhere: true, Tables: list("t"), Columns: list("a"), Functions: list("mine")}},
		{"COPY (DELETE FROM t RETURNING a) TO STDOUT", policy.Statement{Kind: "DELETE", Tables: list("t"), Columns: list("a")}},
		{"COPY t TO PROGRAM 'cat'", policy.Statement{Kind: "COPY", Tables: list("t")}},
		{"COPY t TO '/tmp/x'", policy.Statement{Kind: "COPY", Tables: list("t")}},
		{"EXPLAIN DELETE FROM t", policy.Statement{Kind: "EXPLAIN", ReadOnly: true, Tables: list("t")}},
		{"EXPLAIN (ANALYZE false) DELETE FROM t", policy.Statement{Kind: "EXPLAIN", ReadOnly: true, Tables: list("t")}},
		{"EXPLAIN ANALYZE DELETE FROM t WHERE a = 1", policy.Statement{Kind: "DELETE", HasWhere: true, Tables: list("t"), Columns: list("a")}},
		{"EXPLAIN (ANALYZE true, ANALYZE false) DELETE FROM t", policy.Statement{Kind: "DELETE", Tables: list("t")}},
		{"EXPLAIN ANALYZE SELECT a FROM t", policy.Statement{Kind: "EXPLAIN", ReadOnly: true, Tables: list("t"), Columns: list("a")}},
		{"EXPLAIN ANALYZE CREATE TABLE n AS SELECT a FROM t", policy.Statement{Kind: "CREATE TABLE AS", DDL: true, Tables: list("t", "n"), Columns: list("a")}},
		{"EXPLAIN ANALYZE EXECUTE p", policy.Statement{Kind: "EXECUTE"}},
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
		{"PREPARE p AS DELETE FROM t", policy.Statement{Kind: "PREPARE", Tables: list("t")}},
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
		got := parseOne(t, p, tt.text).Facts(tt.text)
		if d := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s\n%s", tt.text, d)
		}
	}
}

func TestSeveralStatements(t *testing.T) {
	q, err := NewParser(Options{}).Parse("/* a */ BEGIN; SELECT 1; ; DROP TABLE t -- x")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range q.Statements {
		f := s.Facts("")
		got = append(got, fmt.Sprint(f.Kind, f.Multi))
	}
	if want := []string{"BEGINtrue", "SELECTtrue", "DROP TABLEtrue"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if q, err := NewParser(Options{}).Parse(" -- nothing"); err != nil || len(q.Statements) != 0 {
		t.Errorf("a comment: %v, %v", q, err)
	}
}

func TestCopyDirection(t *testing.T) {
	for text, want := range map[string]CopyDirection{
		"COPY t FROM STDIN": CopyIn, "COPY t TO STDOUT": CopyOut, "COPY (SELECT 1) TO STDOUT": CopyOut,
		"COPY t FROM '/x'": CopyNone, "COPY t TO PROGRAM 'x'": CopyNone, "SELECT 1": CopyNone,
	} {
		if got := parseOne(t, NewParser(Options{}), text).Copy; got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestSyntaxError(t *testing.T) {
	_, err := NewParser(Options{}).Parse("SELECT 'é', FROM")
	var e *SyntaxError
	if !errors.As(err, &e) || e.Position != 13 || e.Message != `syntax error at or near "FROM"` {
		t.Errorf("got %#v", err)
	}
	// The words of a shaped text are those of the text, not of its shape.
	_, err = NewParser(Options{}).Parse("SELECT a FROM t WHERE b = 1234 5678")
	if !errors.As(err, &e) || !strings.Contains(e.Message, "5678") {
		t.Errorf("got %#v", err)
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{
		"SET standard_conforming_strings = off",
		"set Standard_Conforming_Strings to 0",
		"SELECT 1; SET LOCAL standard_conforming_strings TO FALSE",
		"SELECT set_config('standard_conforming_strings', 'off', false)",
		"SELECT set_config('standard_' || 'conforming_strings', 'off', false)",
		"SELECT pg_catalog.set_config($1, 'off', false)",
		"SELECT * FROM set_config('client_encoding', x, true)",
		"SET client_encoding = 'SJIS'",
		"SET NAMES 'GBK'",
		"SET backslash_quote = on",
		"UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
		"UPDATE pg_catalog.pg_settings SET setting = 'off'",
		"SELECT 1\x00; DROP TABLE t",
		"SELECT '\xff'",
		"SELECT '" + strings.Repeat("x", DefaultMaxText) + "'",
	} {
		_, err := NewParser(Options{}).Parse(text)
		var e *RefusedError
		if !errors.As(err, &e) || e.Message == "" {
			t.Errorf("%.80q: %v, want a refusal", text, err)
		}
	}
}

// A tree too deep for the C recursion under the parser must be an error, since
// it would take the process down with it.
func TestDeepTexts(t *testing.T) {
	for name, text := range deepTexts(100_000) {
		if len(text) > DefaultMaxText {
			text = text[:DefaultMaxText]
		}
		_, err := NewParser(Options{}).Parse(text)
		var refused *RefusedError
		var syntax *SyntaxError
		if !errors.As(err, &refused) && !errors.As(err, &syntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range deepTexts(900) {
		if len(text) > shallowText {
			text = text[:shallowText]
		}
		if _, err := NewParser(Options{}).Parse(text); err != nil {
			t.Logf("%s: %v", name, err) // not dying is what counts
		}
	}
	// Long and flat is fine.
	flat := []string{
		"SELECT 1 WHERE a IN ('x'" + strings.Repeat(", 'y'", 10_000) + ")",
		"INSERT INTO t VALUES (1, 'x')" + strings.Repeat(", (2, 'y')", 10_000),
		"SELECT 1 WHERE a = 'x'" + strings.Repeat(" OR a = 'y'", 1_000),
		strings.Repeat("SELECT 'x'; ", 3_000),
	}
	for _, text := range flat {
		if _, err := NewParser(Options{}).Parse(text); err != nil {
			t.Errorf("%.40s…: %v", text, err)
		}
	}
}

func deepTexts(n int) map[string]string {
	r := strings.Repeat
	return map[string]string{
		"parentheses": "SELECT " + r("(", n) + "1" + r(")", n),
		"plus":        "SELECT 1" + r("+1", n),
		"plus commas": "SELECT ''" + r("||','", n),
		"minus":       "SELECT " + r("- ", n) + "a",
		"not":         "SELECT " + r("NOT ", n) + "a",
		"cast":        "SELECT 1" + r("::int", n),
		"is null":     "SELECT 1" + r(" ISNULL", n),
		"union":       "SELECT 1" + r(" UNION SELECT 1", n),
		"union list":  "SELECT 1,1" + r(" UNION SELECT 1,1", n),
		"join":        "SELECT 1 FROM a" + r(" CROSS JOIN a", n),
		"join lists":  "SELECT 1 FROM a" + r(" JOIN a ON f(1,1)", n),
		"select":      "SELECT " + r("(SELECT ", n) + "1" + r(")", n),
		"row":         "SELECT " + r("ROW(1,", n) + "1" + r(")", n),
		"case":        "SELECT " + r("CASE WHEN f(a,b) THEN b ELSE ", n) + "1" + r(" END", n),
		"array":       "SELECT ARRAY" + r("[", n) + "1" + r("]", n),
		"operator":    "SELECT 1" + r(" OPERATOR(pg_catalog.+) 1", n),
		"collate":     "SELECT a" + r(` COLLATE "C"`, n),
		"at time":     "SELECT a" + r(` AT TIME ZONE 'x'`, n),
		"explain":     r("EXPLAIN ", n) + "SELECT 1",
	}
}

func TestShape(t *testing.T) {
	tests := []struct {
		text, want string // want "": no shape
	}{
		{"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;", "SELECT abalance FROM pgbench_accounts WHERE aid = 0"},
		{"UPDATE t1 SET a2 = a2 + -4123 WHERE x=77 ; \n", "UPDATE t1 SET a2 = a2 + -0 WHERE x=0 "},
		{"select f(1,22,3.5,1e5,.5,7.,0x1F,1_000,a.b1)", "select f(0,0,3.5,1e5,.5,7.,0x1F,1_000,a.b1)"},
		{"SELECT 1 -- 2", ""},
		{"SELECT 1 /* 2 */", ""},
		{"SELECT 1; DELETE FROM t", ""},
		{"SELECT a FROM t ORDER BY 1", ""},
		{"SELECT a FROM t OrDeR\nBY 1", ""},
		{"SELECT a, count(*) FROM t GROUP BY 1", ""},
		{"SELECT DISTINCT ON (1) a FROM t", ""},
		{"SELECT a FROM t WHERE b = 1 order", ""},
		{"SELECT border FROM torder", "SELECT border FROM torder"},
		{"SELECT $1", ""}, {"SELECT 'x'", ""}, {`SELECT "x"`, ""}, {"SELECT 1::int", ""}, {"SELECT é", ""},
		{"SELECTx 1", ""}, {"FETCH 5 FROM c", ""}, {"SET a = 10", ""}, {"SELECT", ""}, {"", ""},
		{"SELECT " + strings.Repeat("1,", maxShape) + "1", ""},
	}
	for _, tt := range tests {
		var dst [maxShape]byte
		n, ok := shape(dst[:], tt.text)
		if got := string(dst[:n]); ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("shape(%q) = %q, %v; want %q", tt.text, got, ok, tt.want)
		}
	}
}

func TestShapesShareAndFactsKeepTheirText(t *testing.T) {
	p := NewParser(Options{})
	one := parseOne(t, p, "SELECT a FROM t WHERE b = 1")
	two := parseOne(t, p, "SELECT a FROM t WHERE b = 22222;")
	if one != two {
		t.Error("two texts of one shape were parsed twice")
	}
	if text := "SELECT a FROM t WHERE b = 22222;"; two.Facts(text).Text != text {
		t.Error("the facts carry another text")
	}
	// float(0) is an error of the grammar, float(30) is none.
	parseOne(t, p, "SELECT cast(a as float(30)) FROM t")
}

func TestCacheIsBounded(t *testing.T) {
	p := NewParser(Options{CacheEntries: 10, CacheBytes: 100 << 10})
	for i := range 100 {
		parseOne(t, p, fmt.Sprintf("SELECT 'text %d'", i))
	}
	if n := len(p.cache.byText); n != 10 {
		t.Errorf("%d entries, want 10", n)
	}
	first := parseOne(t, p, "SELECT 'text 99'")
	for i := range 9 {
		parseOne(t, p, fmt.Sprintf("SELECT 'other %d'", i))
	}
	if parseOne(t, p, "SELECT 'text 99'") != first {
		t.Error("what was used last was forgotten first")
	}
	parseOne(t, p, "SELECT '"+strings.Repeat("x", 10_000)+"'")
	for i := range 10 {
		parseOne(t, p, fmt.Sprintf("SELECT '%d%s'", i, strings.Repeat("x", 90)))
	}
	if p.cache.bytes > 100<<10 {
		t.Errorf("%d bytes kept", p.cache.bytes)
	}
	sum := 0
	for text := range p.cache.byText {
		sum += weight(text)
	}
	if sum != p.cache.bytes {
		t.Errorf("the sum of the weights is %d, kept as %d", sum, p.cache.bytes)
	}
}

func TestConcurrentUse(t *testing.T) {
	p := NewParser(Options{CacheEntries: 4})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				text := fmt.Sprintf("SELECT 'x', a%d FROM t WHERE b = %d", i%8, g)
				if s := parseOne(t, p, text); s.Facts(text).Columns[0] != fmt.Sprintf("a%d", i%8) {
					t.Errorf("%s: facts of another text", text)
				}
			}
		})
	}
	wg.Wait()
}

func TestBuiltinsAreSorted(t *testing.T) {
	if !slices.IsSorted(builtins[:]) || !slices.IsSorted(setReturning[:]) {
		t.Fatal("binary search needs them sorted")
	}
	for _, name := range setReturning {
		if !Builtin(name) {
			t.Errorf("%s returns sets and is no builtin", name)
		}
	}
	for _, name := range []string{"nextval", "set_config", "query_to_xml", "table_to_xml", "database_to_xml", "ts_stat",
		"ts_rewrite", "pg_read_file", "lo_get", "pg_notify", "pg_sleep", "cursor_to_xml", "dblink", ""} {
		if Builtin(name) {
			t.Errorf("%s counts as harmless", name)
		}
	}
}

package pgsql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
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
		// pg_dump's statement is let through, and nothing that only resembles it.
		"SELECT set_config(name, 'view', false) FROM pg_settings",
		"SELECT set_config(name, 'off', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
		"SELECT set_config(name, 'view', true) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
		"SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'standard_conforming_strings'",
		"SELECT set_config(name, 'view', false) FROM pg_settings WHERE name <> 'restrict_nonsystem_relation_kind'",
		"SELECT set_config(name, 'view', false) FROM pg_settings, t WHERE name = 'restrict_nonsystem_relation_kind'",
		"SELECT set_config(name, 'view', false) FROM public.pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
		"SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind' OR true",
		"SELECT set_config(name, 'view', false), set_config('client_encoding', 'sjis', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
		"SELECT set_config(setting, 'view', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
		"WITH pg_settings AS (SELECT 'client_encoding' AS name) SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
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
		"SELECT " + strings.Repeat("f(a.b), ", 20_000) + "1",
		"WITH a AS (SELECT 1)" + strings.Repeat(", b AS (SELECT 2)", 10_000) + " SELECT 1 FROM a" + strings.Repeat(", a", 10_000),
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
		{"select f(1,22,3.5,1e5,.5,7.,0x1F,1_000,a.b1,1.5e3,1e+5,1.2.3)", "select f(0,0,0.0,1e5,.5,7.,0x1F,1_000,a.b1,1.5e3,1e+0,1.2.3)"},
		{"SELECT a FROM t WHERE b = 'it''s' AND c <> 'x' OR d LIKE 'y%'", "SELECT a FROM t WHERE b = '' AND c <> '' OR d LIKE ''"},
		{"SELECT a FROM t WHERE d BETWEEN '2020-01-01' AND '2020-02-01'::date", "SELECT a FROM t WHERE d BETWEEN '' AND ''::date"},
		{"SELECT a FROM t WHERE b IN ('x', lower('Y'), 'z') AND c = ANY ('{1}')", "SELECT a FROM t WHERE b IN ('', lower('Y'), '') AND c = ANY ('{1}')"},
		{"INSERT INTO t (a) VALUES ('x', f('y'), 5), ('z', NULL, 1.5)", "INSERT INTO t (a) VALUES ('', f('y'), 0), ('', NULL, 0.0)"},
		{"UPDATE t SET a = 'x' WHERE doc->>'k' = 'v' AND doc @> '{}'", "UPDATE t SET a = '' WHERE doc->>'k' = '' AND doc @> '{}'"},
		{`SELECT "a""b"."c" FROM "t" WHERE x=$1 AND y=12`, `SELECT "a""b"."c" FROM "t" WHERE x=$1 AND y=0`},
		{"SELECT 'x', f('y'), date '2020-01-01' FROM t WHERE 'z' = a", "SELECT 'x', f('y'), date '2020-01-01' FROM t WHERE 'z' = a"},
		{"SELECT f(a => 'x'), position('x' IN 'y')", "SELECT f(a => 'x'), position('x' IN 'y')"},
		{"WITH x AS (SELECT 5) SELECT * FROM x", "WITH x AS (SELECT 0) SELECT * FROM x"},
		{"SELECT a FROM t WHERE b = 7 ORDER BY 1", "SELECT a FROM t WHERE b = 0 ORDER BY 1"},
		{"SELECT a FROM t OrDeR\nBY 1 LIMIT 5", "SELECT a FROM t OrDeR\nBY 1 LIMIT 5"},
		{"SELECT a, count(*) FROM t WHERE b = 'x' GROUP BY 1", "SELECT a, count(*) FROM t WHERE b = '' GROUP BY 1"},
		{"SELECT DISTINCT ON (1) a FROM t", "SELECT DISTINCT ON (1) a FROM t"},
		{"SELECT border FROM torder LIMIT 7", "SELECT border FROM torder LIMIT 0"},
		{"SELECT 1::int, 2 :: numeric(10,2)", "SELECT 0::int, 0 :: numeric(0,0)"},
		{"SELECT a FROM t WHERE b = 'grün'", "SELECT a FROM t WHERE b = ''"},
		{"SELECT 1 -- 2", ""},
		{"SELECT 1 /* 2 */", ""},
		{"SELECT 1 +/* 2 */ 3", ""},
		{"SELECT 1; DELETE FROM t", ""},
		{"SELECT set_config('role', 'x', false)", ""},
		{`SELECT pg_catalog."set_config"('role', 'x', false)`, ""},
		{"SELECT f(name) FROM PG_Settings WHERE name = 'x'", ""},
		{"SELECT E'x'", ""}, {"SELECT a = E'x\\''", ""}, {"SELECT a = U&'x'", ""}, {`SELECT U&"x"`, ""}, {"SELECT a = B'1'", ""},
		{"SELECT $$x$$", ""}, {"SELECT $a$x$a$", ""}, {"SELECT a = 'x", ""}, {`SELECT "x`, ""}, {"SELECT a = 'b'\n'c'", ""},
		{"SELECT a = 'x\x00'", ""}, {"SELECT a = '\xff'", ""},
		{"SELECT a[1]", ""}, {"SELECT f(a := 1)", ""}, {"SELECT é", ""}, {"SELECT 1)", ""},
		{"SELECTx 1", ""}, {"SELECT$1 FROM t", ""}, {"FETCH 5 FROM c", ""}, {"SET a = 10", ""}, {"SELECT", ""}, {"", ""},
		{"SELECT " + strings.Repeat("(", maxShapeDepth+1) + "1" + strings.Repeat(")", maxShapeDepth+1), ""},
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
	if parseOne(t, p, "SELECT a FROM t WHERE b = 'x'") == one || parseOne(t, p, "SELECT a FROM t WHERE b = 1.5") == one {
		t.Error("constants of different types share a parse")
	}
	if parseOne(t, p, "SELECT a FROM t WHERE b = 'x'") != parseOne(t, p, "SELECT a FROM t WHERE b = 'yy'") {
		t.Error("two strings were parsed twice")
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

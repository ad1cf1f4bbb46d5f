package mask

import (
	"os"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/pgsql"
)

// maxTraceTime is far beyond what any statement takes.
const maxTraceTime = time.Minute

// FuzzTracer traces any SQL in a catalog that has something of everything: no
// panic, no end that doesn't come, and a plan or a refusal. One statement of
// testdata/tracer.sql stands in each line.
func FuzzTracer(f *testing.F) {
	seeds, err := os.ReadFile("testdata/tracer.sql")
	if err != nil {
		f.Fatal(err)
	}
	for sql := range strings.Lines(string(seeds)) {
		f.Add(sql)
	}
	rules, cat, parser := ssnRules(f), handMade(), pgsql.NewParser(pgsql.Options{})
	cat.sqlFunctions = map[string]*sqlFunction{
		"show": {schema: "public", name: "show", arguments: 1, names: []string{"who"}, body: "SELECT ssn FROM customers WHERE id = who"},
		"loop": {schema: "public", name: "loop", arguments: 1, body: "SELECT loop(loop($1)), ssn FROM customers"},
	}
	query := func(sql string) *pgsql.Statement {
		q, err := parser.Parse(sql)
		if err != nil {
			f.Fatal(err)
		}
		return q.Statements[0]
	}
	prepared := query("PREPARE p AS SELECT ssn, $2 FROM customers WHERE id = $1")
	local := &Local{Prepared: func(name string) *pgsql.Statement {
		if name != "p" {
			return nil
		}
		return prepared
	}}
	made, err := rules.PlanIn(query("CREATE TEMP TABLE kept AS SELECT ssn, lower(name) FROM customers"), cat, []string{"public"}, local)
	if err != nil {
		f.Fatal(err)
	}
	var none *Temporaries
	local.Tables = none.With(made)
	f.Fuzz(func(t *testing.T, sql string) {
		q, err := parser.Parse(sql)
		if err != nil {
			return
		}
		for _, s := range q.Statements {
			begin := time.Now()
			for _, in := range []*Local{nil, local} {
				p, err := rules.PlanIn(s, cat, []string{"public"}, in)
				if (p == nil) == (err == nil) {
					t.Errorf("%q: a plan and an error, or neither", sql)
				}
				if p != nil {
					local.Tables.With(p)
				}
			}
			if time.Since(begin) > maxTraceTime {
				t.Errorf("%q takes %v", sql, time.Since(begin))
			}
		}
	})
}

// Statements that are made to cost more than they are long are refused.
func TestTracingIsBounded(t *testing.T) {
	rules, cat, parser := ssnRules(t), handMade(), pgsql.NewParser(pgsql.Options{})
	wide := &relation{oid: 40000, schema: "public", name: "wide", kind: 'r'}
	for i := range 1600 {
		wide.columns = append(wide.columns, catalogColumn{name: "c" + strings.Repeat("x", i%7), num: uint16(i + 1)})
	}
	cat.add(wide)
	nested := "SELECT ssn FROM customers"
	for range 24 {
		nested = "WITH RECURSIVE r (x) AS (SELECT name FROM customers UNION ALL SELECT s.y FROM (" + nested + ") s (y)) SELECT x FROM r"
	}
	for name, sql := range map[string]string{
		"stars":      "SELECT " + strings.Repeat("w.*, ", 2_000) + "1 FROM wide w",
		"tables":     "SELECT 1 FROM wide a" + strings.Repeat(", wide", 200),
		"joins":      "SELECT 1 FROM customers a" + strings.Repeat(" CROSS JOIN customers", 1_500),
		"references": "SELECT 1 FROM wide a, wide b, wide c, wide d, wide e, wide f, wide g, wide h, wide i WHERE concat(" + strings.Repeat("c, ", 5_000) + "1) = ''",
		"recursion":  nested,
	} {
		q, err := parser.Parse(sql)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := rules.Plan(q.Statements[0], cat, []string{"public"}); err == nil {
			t.Errorf("%s: traced", name)
		}
	}
}

package mask

import (
	"context"
	"errors"
	"slices"
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

// visit is a session of a test that runs what the plans let through.
type visit struct {
	*database
	tables   *Temporaries
	prepared map[string]*pgsql.Statement
}

func (v *visit) planned(sql string) (*Plan, error) {
	q, err := v.sql.Parse(sql)
	if err != nil {
		return nil, err
	}
	local := &Local{Tables: v.tables, Prepared: func(name string) *pgsql.Statement { return v.prepared[name] }}
	p, err := v.rules.PlanIn(q.Statements[0], v.cat, []string{"public"}, local)
	if err != nil {
		return nil, err
	}
	if s := q.Statements[0].Tree.GetPrepareStmt(); s != nil {
		v.prepared[s.Name] = q.Statements[0]
	}
	v.tables = v.tables.With(p)
	return p, nil
}

func (v *visit) first(t *testing.T, sql string) []string {
	t.Helper()
	p, err := v.planned(sql)
	if err != nil {
		t.Errorf("%s: %v", sql, err)
		return nil
	}
	r := v.conn.PgConn().ExecParams(context.Background(), sql, nil, nil, nil, nil)
	var fields []Field
	for _, f := range r.FieldDescriptions() {
		fields = append(fields, Field{Name: f.Name, Table: f.TableOID, Column: f.TableAttributeNumber, Type: f.DataTypeOID})
	}
	var row []string
	if len(fields) > 0 {
		w, err := p.Rewriter(fields)
		if err != nil {
			r.Close()
			t.Errorf("%s: %v", sql, err)
			return nil
		}
		for r.NextRow() {
			out, err := w.Row(dataRow(r.Values()))
			if err != nil {
				t.Errorf("%s: %v", sql, err)
			}
			if s := leaks(out); s != "" {
				t.Errorf("%s: %q comes through: %q", sql, s, out)
			}
			if row == nil {
				row = readRow(t, out)
			}
		}
	}
	if _, err := r.Close(); err != nil {
		t.Fatalf("%s: the server says: %v", sql, err)
	}
	return row
}

func TestTemporaryTables(t *testing.T) {
	d := newDatabase(t)
	const r = "[redacted]"
	steps := []struct {
		sql    string
		want   []string
		reload bool // the catalog, as the session does after DDL that was committed
		refuse bool
	}{
		{sql: "BEGIN"},
		{sql: "CREATE TEMP TABLE a AS SELECT id, ssn, card AS c, upper(name) FROM customers WHERE id = 1", refuse: true}, // upper is a user's here
		{sql: "CREATE TEMP TABLE a AS SELECT id, ssn, card AS c, lower(name) AS l, lower(ssn) FROM customers WHERE id = 1"},
		{sql: "SELECT * FROM a", want: []string{"1", r, "************3333", "ada", r}},
		{sql: "SELECT id, c FROM pg_temp.a WHERE c = '4929111122223333'", want: []string{"1", "************3333"}},
		{sql: "SELECT id FROM a WHERE c > '4'", refuse: true},
		{sql: "SELECT a::text, row_to_json(a), (SELECT string_agg(c, '') FROM a) FROM a", want: []string{r, `"[redacted]"`, r}},
		{sql: "SELECT l, lower FROM a JOIN customers USING (id)", want: []string{"ada", r}},
		{sql: "COMMIT"},
		{sql: "SELECT ssn, l FROM a", want: []string{r, "ada"}, reload: true},
		{sql: "SELECT count(*) FROM a", want: []string{"1"}},
		{sql: "CREATE TEMP TABLE b (id int, x text, y text, z text GENERATED ALWAYS AS (lower(x)) STORED)"},
		{sql: "SELECT x, y FROM b", reload: true},
		{sql: "INSERT INTO b (id, x, y) SELECT id, ssn, l FROM a", refuse: true},
		{sql: "INSERT INTO pg_temp.b (id, x, y) SELECT id, ssn, l FROM a"},
		{sql: "SELECT id, x, y, z FROM b", want: []string{"1", r, "ada", r}},
		{sql: "UPDATE pg_temp.b SET y = a.c FROM a", want: nil},
		{sql: "SELECT y FROM b", want: []string{r}, reload: true},
		{sql: "INSERT INTO pg_temp.b (x) SELECT ssn FROM customers ON CONFLICT DO NOTHING", refuse: true},
		{sql: "CREATE TABLE p (x text, y text)"},
		{sql: "CREATE TEMP TABLE q () INHERITS (p)"},
		{sql: "INSERT INTO pg_temp.q (x) SELECT ssn FROM customers", refuse: true, reload: true},
		{sql: "CREATE TEMP TABLE e AS SELECT 'x'::text AS x, 'y'::text AS y"},
		{sql: "INSERT INTO pg_temp.e SELECT ssn, 'y' FROM customers"},
		{sql: "SELECT x, y FROM e", want: []string{r, r}},
		{sql: "SELECT ssn INTO TEMP f FROM customers WHERE id = 1"},
		{sql: "SELECT ssn || '' FROM f", want: []string{r}},
		{sql: "COPY f TO '/tmp/f'", refuse: true},
		{sql: "ALTER TABLE f RENAME ssn TO x", refuse: true},
		{sql: "CREATE VIEW w AS SELECT ssn FROM f", refuse: true},
		{sql: "CREATE TABLE public.g AS SELECT ssn FROM f", refuse: true},
		{sql: "INSERT INTO other (note) SELECT ssn FROM f", refuse: true},
		{sql: "DROP TABLE f"},
		{sql: "CREATE TEMP TABLE f AS SELECT 1 AS one", refuse: true},
		{sql: "CREATE TEMP TABLE h AS SELECT 1 AS one"},
		{sql: "ALTER TABLE h RENAME one TO two"},
		{sql: "SELECT two FROM h", want: []string{"1"}, reload: true},
		{sql: "INSERT INTO pg_temp.h (two) SELECT length(ssn) FROM customers", refuse: true}, // it was altered
		{sql: "CREATE TEMP TABLE k (x text)"},
		{sql: "CREATE TEMP VIEW kv AS SELECT x FROM k", reload: true},
		{sql: "INSERT INTO pg_temp.k (x) SELECT ssn FROM customers", reload: true},
		{sql: "SELECT x FROM kv", refuse: true},
		{sql: "PREPARE s AS SELECT ssn, id FROM customers WHERE id = $1"},
		{sql: "EXECUTE s(1)", want: []string{r, "1"}},
		{sql: "EXPLAIN (COSTS off) EXECUTE s(1)", want: nil},
		{sql: "CREATE TEMP TABLE i AS EXECUTE s(1)"},
		{sql: "SELECT ssn, id FROM i", want: []string{r, "1"}},
		{sql: "CREATE TABLE j AS EXECUTE s(1)", refuse: true},
		{sql: "EXECUTE nothing", refuse: true},
		{sql: "EXECUTE s(leak(1)::int)", refuse: true},
	}
	v := &visit{database: d, prepared: map[string]*pgsql.Statement{}}
	for _, s := range steps {
		if s.reload {
			var err error
			if v.cat, err = LoadCatalog(context.Background(), d.conn); err != nil {
				t.Fatal(err)
			}
		}
		if s.refuse {
			var u *Untraceable
			if _, err := v.planned(s.sql); !errors.As(err, &u) {
				t.Errorf("%s: %v, want a refusal", s.sql, err)
			}
			continue
		}
		got := v.first(t, s.sql)
		if s.want != nil && !slices.Equal(got, s.want) {
			t.Errorf("%s\n got %q\nwant %q", s.sql, got, s.want)
		}
	}
	// Under other rules what was masked is redacted, whatever it was before.
	v.tables = v.tables.Redacted()
	if got := v.first(t, "SELECT c FROM a"); !slices.Equal(got, []string{r}) {
		t.Errorf("under other rules: %q", got)
	}
}

// A statement that fails leaves what the name stood for before: then nothing masked
// may go there.
func TestNamesOfTemporaryTablesThatMayBeOthers(t *testing.T) {
	rules, cat, parser := ssnRules(t), handMade(), pgsql.NewParser(pgsql.Options{})
	for _, tt := range []struct {
		first string
		path  []string
		ok    bool
	}{
		{"SELECT 1", []string{"public"}, true},
		{"CREATE TABLE u (x text)", []string{"public"}, true},
		{"CREATE TEMP TABLE t () INHERITS (other)", []string{"public"}, false},
		{"CREATE TEMP TABLE t (LIKE other INCLUDING ALL)", []string{"public"}, false},
		{"CREATE TEMP TABLE IF NOT EXISTS t (y text)", []string{"public"}, false},
		{"CREATE TEMP TABLE t (x text, y text)", []string{"public"}, false},
		{"CREATE TEMP VIEW t AS SELECT note AS x FROM other", []string{"public"}, false},
		{"CREATE VIEW t AS SELECT note AS x FROM other", []string{"pg_temp", "public"}, false},
		{"CREATE TABLE t () INHERITS (other)", []string{"pg_temp", "public"}, false},
		{"CREATE TABLE t () INHERITS (customers)", nil, false},
		{"CREATE TABLE t AS SELECT note AS x FROM public.other", nil, false},
		{"ALTER TABLE scratch RENAME TO t", []string{"public"}, false},
	} {
		local := &Local{}
		var err error
		for _, sql := range []string{tt.first, "CREATE TEMP TABLE t (x text)", "INSERT INTO pg_temp.t (x) SELECT ssn FROM public.customers"} {
			q, e := parser.Parse(sql)
			if e != nil {
				t.Fatal(e)
			}
			var p *Plan
			if p, err = rules.PlanIn(q.Statements[0], cat, tt.path, local); err == nil {
				local.Tables = local.Tables.With(p)
			} else if sql != "INSERT INTO pg_temp.t (x) SELECT ssn FROM public.customers" {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		if (err == nil) != tt.ok {
			t.Errorf("after %s in %v: %v", tt.first, tt.path, err)
		}
	}
}

func TestTemporaryTablesAreBounded(t *testing.T) {
	rules, cat, parser := ssnRules(t), handMade(), pgsql.NewParser(pgsql.Options{})
	local := &Local{}
	var u *Untraceable
	for i := range 2 * maxTemporaries {
		q, err := parser.Parse("CREATE TEMP TABLE t" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + " AS SELECT ssn FROM customers")
		if err != nil {
			t.Fatal(err)
		}
		p, err := rules.PlanIn(q.Statements[0], cat, []string{"public"}, local)
		if errors.As(err, &u) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		local.Tables = local.Tables.With(p)
	}
	t.Error("a session may have any number")
}

func TestCursorsAreCoveredByTheirPlan(t *testing.T) {
	rules, err := Compile(maskDoc(policy.MaskSpec{Targets: []string{"*"}, Columns: []policy.ColumnMask{{Match: "*.*.ssn", With: policy.Transform{Redact: true}}}}), "db", policy.Principal{})
	if err != nil {
		t.Fatal(err)
	}
	cat, parser := handMade(), pgsql.NewParser(pgsql.Options{})
	q, err := parser.Parse("DECLARE c CURSOR FOR SELECT id, ssn FROM customers; FETCH ALL FROM c; MOVE 1 FROM c; CLOSE c")
	if err != nil {
		t.Fatal(err)
	}
	var plans []*Plan
	for _, s := range q.Statements {
		p, err := rules.Plan(s, cat, []string{"public"})
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, p)
	}
	fields := []Field{{Name: "id"}, {Name: "ssn", Type: 25}}
	if !plans[1].Later() || plans[0].Later() || plans[3].Later() {
		t.Error("which statements fetch isn't told")
	}
	if _, err := plans[1].Rewriter(fields); err == nil {
		t.Error("FETCH is covered by nothing")
	}
	w, err := plans[0].Rewriter(fields)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := w.Row(dataRow([][]byte{[]byte("1"), []byte("QZX")})); err != nil || readRow(t, out)[1] != "[redacted]" {
		t.Errorf("%q, %v", out, err)
	}
}

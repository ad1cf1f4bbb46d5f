package e2e

import (
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/stage"
)

const factsPolicy = `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: orders}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules:
    - {name: read, when: "statement.readOnly", then: allow}
    - {name: no-salaries, when: "'hr.salaries' in statement.relations", then: deny, message: "salaries are nobody's business"}
    - {name: no-deletes, when: "'DELETE' in statement.kinds", then: deny, message: "nothing is deleted here"}
    - name: write-orders
      when: "statement.kind in ['INSERT', 'UPDATE'] && statement.relations.all(t, t == 'public.orders')"
      then: allow
    - {name: prepare, when: "statement.kind == 'PREPARE'", then: allow}
    - {name: functions, when: "statement.kind == 'CREATE FUNCTION'", then: allow}
`

// Statements are known for what they do in their database, not for how they look.
func TestStatementsAreKnownForWhatTheyDo(t *testing.T) {
	w := setUp(t, stage.Options{Documents: map[string]string{"policy.yaml": factsPolicy, "mask.yaml": ""}})
	err := w.Postgres.Exec(t.Context(), stage.Database,
		"CREATE SCHEMA hr", "CREATE TABLE hr.salaries (who text, salary int)", "INSERT INTO hr.salaries VALUES ('Ada', 4711)",
		"GRANT USAGE, CREATE ON SCHEMA hr TO orders_reader", "GRANT SELECT ON hr.salaries TO orders_reader",
		"CREATE TYPE mood AS ENUM ('good', 'bad')",
		"CREATE FUNCTION public.lower(mood) RETURNS text LANGUAGE sql AS $$ UPDATE orders SET note = 'by a function' RETURNING note $$",
		"CREATE FUNCTION public.stamp(orders) RETURNS text LANGUAGE sql AS $$ UPDATE orders SET note = 'by a field' RETURNING note $$",
		"CREATE FUNCTION public.calm(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
		"CREATE VIEW busy AS SELECT nextval('orders_id_seq') AS n", "CREATE VIEW idle AS SELECT id FROM orders WHERE random() < 2",
		"CREATE VIEW busier AS SELECT n FROM busy",
		"GRANT SELECT ON busy, busier, idle TO orders_reader",
	)
	if err != nil {
		t.Fatal(err)
	}
	const denied = "no rule allows"
	for _, test := range []struct {
		sql, want string
		code      int
	}{
		{"SELECT upper('x'), count(*) FROM orders", "X|3", 0},
		// Users' code behind names of PostgreSQL's own, columns and views.
		{"SELECT lower('good'::mood)", denied, 1},
		{"SELECT pg_catalog.lower('X')", "x", 0},
		{"SELECT o.stamp FROM orders o", denied, 1},
		{"SELECT ('orders_id_seq'::regclass).nextval", denied, 1},
		{"SELECT * FROM busy", denied, 1},
		{"SELECT * FROM busier", denied, 1},
		{"SELECT count(*) FROM idle", "3", 0},
		// Tables, however they are named.
		{"SELECT salary FROM hr.salaries", "nobody's business", 1},
		{"SET search_path = hr; SELECT salary FROM salaries", "nobody's business", 1},
		{"SELECT salary FROM shop.hr.salaries", "nobody's business", 1},
		// All that a statement does.
		{"WITH gone AS (DELETE FROM orders RETURNING id) INSERT INTO orders (note) SELECT 'x' FROM gone", "nothing is deleted", 1},
		{"EXPLAIN ANALYZE DELETE FROM orders", "nothing is deleted", 1},
		{"COPY (DELETE FROM orders RETURNING id) TO STDOUT", "nothing is deleted", 1},
		{"COPY orders TO PROGRAM 'sh'", denied, 1},
		{"SELECT * INTO n FROM orders", denied, 1},
		// One statement that may not run, and none of its string does.
		{"INSERT INTO orders (note) VALUES ('1st'); UPDATE orders SET note = '2nd'; DELETE FROM orders", "nothing is deleted", 1},
		{"SELECT string_agg(note, ',' ORDER BY id) FROM orders", "first,pay with", 0},
		{"SELECT count(*) FROM orders", "3", 0},
		{"INSERT INTO orders (note) VALUES ('1st'); UPDATE orders SET note = '2nd' WHERE note = '1st'; SELECT note FROM orders WHERE note = '2nd'", "2nd", 0},
		{"SELECT 1; SELEC 2", "syntax error at or near \"SELEC\"\nLINE 1: SELECT 1; SELEC 2\n                  ^", 1},
	} {
		got := w.psql(test.sql)
		if got.code != test.code || !strings.Contains(got.out, test.want) {
			t.Errorf("%s\ncode %d, want %d and %q:\n%s", test.sql, got.code, test.code, test.want, got.out)
		}
	}
	t.Run("execute", func(t *testing.T) {
		w := w.in(t)
		w.planner(stage.Psql("-At", "-c", "PREPARE p (int) AS SELECT count(*) + $1 FROM orders", "-c", "EXECUTE p(38)")...).want(t, 0, "42")
		w.planner(stage.Psql("-At", "-c", "PREPARE p AS DELETE FROM customers", "-c", "EXECUTE p")...).want(t, 1, "nothing is deleted")
		w.planner(stage.Psql("-At", "-c", "EXECUTE p")...).want(t, 1, denied)
		w.planner(stage.Psql("-At", "-c", "PREPARE p AS SELECT 1", "-c", "DEALLOCATE p; EXECUTE p")...).want(t, 1, denied)
	})
	t.Run("functions that are made meanwhile", func(t *testing.T) {
		w := w.in(t)
		w.psql("SELECT abs(-7)").want(t, 0, "7")
		w.psql("CREATE FUNCTION hr.abs(text) RETURNS text LANGUAGE sql AS $$ UPDATE orders SET note = 'made' RETURNING note $$").want(t, 0)
		w.psql("SELECT hr.abs('x')").want(t, 1, denied)
		w.psql("SET search_path = hr, public; SELECT abs('x'::text)").want(t, 1, denied)
	})
}

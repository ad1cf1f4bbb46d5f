package session

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/pgsql"
)

func TestNamesOfADatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	versions, err := lab.PostgresVersions()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			pg, err := lab.StartPostgres(ctx, lab.PostgresOptions{Version: version})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := pg.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			conn, err := pgx.Connect(ctx, pg.AdminDSN("postgres"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			checkNames(t, &database{t, conn})
		})
	}
}

type database struct {
	t    *testing.T
	conn *pgx.Conn
}

func (d *database) run(statements ...string) {
	d.t.Helper()
	for _, text := range statements {
		if _, err := d.conn.Exec(d.t.Context(), text); err != nil {
			d.t.Fatalf("%s: %v", text, err)
		}
	}
}

func (d *database) read(relations bool) (names *databaseNames, fingerprint string) {
	d.t.Helper()
	err := pgx.BeginFunc(d.t.Context(), d.conn, func(tx pgx.Tx) (err error) {
		if err = tx.QueryRow(d.t.Context(), fingerprintSQL, relations).Scan(&fingerprint); err == nil {
			names, err = readNames(d.t.Context(), tx, relations)
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return names, fingerprint
}

func checkNames(t *testing.T, d *database) {
	d.run(
		"CREATE SCHEMA app", "CREATE TABLE app.orders (id serial, s text)", "CREATE TABLE orders (id int)", "CREATE TEMP TABLE orders (x int)",
		"CREATE TABLE columns (a int)",
		// Named like PostgreSQL's own; volatile, as those are that don't say.
		"CREATE FUNCTION app.round(float8, int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE FUNCTION app.upper(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
		"CREATE FUNCTION mine(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE FUNCTION keep(text, text) RETURNS text LANGUAGE sql AS 'SELECT $1'", "CREATE AGGREGATE app.max(text) (sfunc = keep, stype = text)",
		"CREATE AGGREGATE app.min(text) (sfunc = textcat, stype = text)",
		// To be called as fields.
		"CREATE FUNCTION touch(app.orders) RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE FUNCTION poke(text, int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
		// Operators.
		"CREATE OPERATOR ## (leftarg = int, rightarg = int, function = mine)", "CREATE OPERATOR ### (leftarg = int, rightarg = int, function = int4pl)",
		// Types.
		"CREATE TYPE mood AS ENUM ('good')", "CREATE FUNCTION speak(mood) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$", "CREATE CAST (mood AS text) WITH FUNCTION speak(mood)",
		"CREATE DOMAIN drawn AS int CHECK (nextval('app.orders_id_seq') > VALUE)", "CREATE DOMAIN small AS int CHECK (abs(VALUE) < 10)",
		// Views.
		"CREATE VIEW clean AS SELECT id, random(), upper(s) FROM app.orders",
		"CREATE VIEW app.numbers AS SELECT 1 WHERE EXISTS (SELECT nextval('app.orders_id_seq'))",
		"CREATE VIEW outer_ AS SELECT * FROM (SELECT * FROM app.numbers) s",
		"CREATE VIEW sleepy AS SELECT * FROM public.orders WHERE pg_sleep(id) IS NULL",
		"CREATE VIEW hashed AS SELECT 1 ## 2 AS x", "CREATE VIEW plain AS SELECT 1 ### 2 AS x",
		"CREATE VIEW own AS SELECT touch(o) FROM app.orders o", "CREATE VIEW cast_ AS SELECT a::text FROM columns",
		"CREATE VIEW activity AS SELECT * FROM pg_stat_activity",
		"CREATE MATERIALIZED VIEW kept AS SELECT nextval('app.orders_id_seq')",
	)
	names, before := d.read(true)
	for call, want := range map[pgsql.Call][]string{
		pgsql.CallPlain: {"max", "round"}, pgsql.CallRow: {"touch"}, pgsql.CallValue: {"max", "poke", "speak", "touch"},
	} {
		if got := sortedKeys(names.functions[call]); !slices.Equal(got, want) {
			t.Errorf("functions to be called in way %d: %q, want %q", call, got, want)
		}
	}
	if got := sortedKeys(names.operators); !slices.Equal(got, []string{"##"}) {
		t.Errorf("operators: %q", got)
	}
	if got := sortedKeys(names.types); !slices.Equal(got, []string{"drawn", "mood", "text"}) {
		t.Errorf("types: %q", got)
	}
	var views []string
	for r := range names.views {
		views = append(views, r.String())
	}
	slices.Sort(views)
	if want := []string{"app.numbers", "hashed", "numbers", "outer_", "own", "public.hashed", "public.outer_", "public.own", "public.sleepy", "sleepy"}; !slices.Equal(views, want) {
		t.Errorf("views: %q, want %q", views, want)
	}
	for name, want := range map[string][]string{
		"orders": {"app", "public"}, "columns": {"public"}, "tables": {"information_schema"}, "pg_class": {"pg_catalog"}, "nothing": nil,
	} {
		if got := names.Relations(name); !slices.Equal(got, want) {
			t.Errorf("%s is in %q, want %q", name, got, want)
		}
	}
	for _, text := range []string{
		"CREATE OR REPLACE FUNCTION app.upper(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'",
		"CREATE OR REPLACE VIEW clean AS SELECT id, random(), touch(o)::text AS upper FROM app.orders o",
		"ALTER DOMAIN small ADD CHECK (VALUE > 0)", "ALTER SCHEMA app RENAME TO apps", "ALTER TABLE orders SET SCHEMA apps",
	} {
		if text == "ALTER TABLE orders SET SCHEMA apps" {
			d.run("DROP TABLE pg_temp.orders", "ALTER TABLE apps.orders RENAME TO others")
			_, before = d.read(true)
		}
		if _, same := d.read(true); same != before {
			t.Errorf("the fingerprint changed by itself")
		}
		d.run(text)
		_, after := d.read(true)
		if after == before {
			t.Errorf("%s leaves the fingerprint as it is", text)
		}
		before = after
	}
	if names, _ = d.read(false); names.relations != nil || !names.ChangingFunction("upper", pgsql.CallPlain) {
		t.Errorf("names that were read again: %+v", names.functions)
	}
	d.run("VACUUM ANALYZE")
	if _, after := d.read(true); after != before {
		t.Error("VACUUM ANALYZE changes the fingerprint")
	}
}

func sortedKeys(m map[string]bool) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

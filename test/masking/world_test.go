package masking

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"chaperone.dev/chaperone/internal/stage"
)

// The two databases of the corpus.
const (
	databaseA = "secrets_a"
	databaseB = "secrets_b"
)

//go:embed seed.sql
var seed string

//go:embed fingerprint.sql
var fingerprint string

// documents let a planner do all that PostgreSQL lets it: what is refused here
// is refused for the masks' sake. No detectors: they would hide what lineage
// has missed.
var documents = map[string]string{
	"node.yaml": stage.Documents()["node.yaml"] + "  keys: {masking-key: {file: \"{{dir}}/masking.key\"}}\n",
	"target.yaml": strings.Replace(stage.Documents()["target.yaml"], "ttl: 15m", "ttl: 1h", 1) + "---\n" +
		strings.NewReplacer("ttl: 15m", "ttl: 1h", "name: orders-db", "name: plain-db", stage.Host, plainHost).Replace(stage.Documents()["target.yaml"]),
	"policy.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: everything}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db, plain-db]
  rules:
    - {name: everything, when: "true", then: allow}
`,
	"mask.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Mask
metadata: {name: people}
spec:
  targets: [orders-db]
  columns:
    - {match: "public.people.card", with: {keepLast: 4}}
    - {match: "public.people.email", with: {hmac: masking-key}}
    - {match: "public.people.born", with: "null"}
    - {match: "public.people.ssn", with: redact}
    - {match: "public.people.pin", with: redact}
    - {match: "public.people.account", with: redact}
    - {match: "public.people.salary", with: redact}
    - {match: "public.people.token", with: redact}
    - {match: "public.people.profile", with: redact}
    - {match: "public.people.aliases", with: redact}
    - {match: "public.people.photo", with: redact}
    - {match: "public.people.code", with: redact}
    - {match: "public.people.phone", with: redact}
    - {match: "public.people.doc", with: redact}
    - {match: "public.people.away", with: redact}
    - {match: "public.people.words", with: redact}
    - {match: "vault.*.*", with: redact}
    - {match: "public.staff*.badge", with: redact}
    - {match: "public.ledger*.amount", with: redact}
  untraceable: deny
`,
}

// world is a stage with two databases of secrets and a planner.
type world struct {
	*stage.Stage
	planner *planner
	log     *stage.Log
	eyes    map[string]*pgconn.PgConn // a superuser's, by database
	secrets map[string]*secrets       // by database
	clean   map[string]string         // each database's fingerprint as it was made
	direct  *route
	masked  *route // through Chaperone, where columns are masked
	plain   *route // through Chaperone, where none are
}

// setUp starts all of it, once for the tests of a package's part.
func setUp(t *testing.T) *world {
	t.Helper()
	w := &world{
		log:     &stage.Log{},
		eyes:    map[string]*pgconn.PgConn{},
		secrets: map[string]*secrets{databaseA: newSecrets(1), databaseB: newSecrets(2)},
		clean:   map[string]string{},
	}
	var err error
	w.Stage, err = stage.New(t.Context(), stage.Options{
		Binary: chaperone, Documents: documents, Log: w.log, Plain: true,
		Addresses: []string{plainAddress}, Names: []string{plainHost},
		Postgres: map[string]string{"autovacuum": "off", "max_connections": "50"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, conn := range w.eyes {
			conn.Close(ctx)
		}
		if err := w.Close(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() && testing.Verbose() {
			t.Logf("daemon and server said:\n%s", w.log)
		}
	})
	if err := os.WriteFile(w.Path("masking.key"), []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.prepare(t)
	if _, err := w.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.planner = startPlanner(t, w.Stage)
	w.direct = &route{address: stage.Address, user: "direct", password: "direct"}
	w.masked = &route{address: stage.Host, user: "planner", dial: w.planner.dial}
	w.plain = &route{address: plainHost, user: "planner", dial: w.planner.dial}
	t.Cleanup(func() {
		for _, r := range []*route{w.direct, w.masked, w.plain} {
			r.pool.close()
		}
	})
	return w
}

// prepare makes the databases. Planners own what is in them, and may read
// statistics and files: nothing but the masks is in their way.
func (w *world) prepare(t *testing.T) {
	t.Helper()
	for _, database := range []string{"postgres", databaseA, databaseB} {
		statements := []string{
			"GRANT ALL ON DATABASE " + database + " TO orders_reader",
			"GRANT EXECUTE ON FUNCTION pg_read_file(text), pg_read_file(text, bigint, bigint), pg_read_binary_file(text), pg_ls_dir(text), lo_export(oid, text) TO orders_reader",
		}
		if database == "postgres" {
			statements = []string{
				"CREATE ROLE direct LOGIN PASSWORD 'direct' IN ROLE orders_reader",
				"GRANT pg_monitor, pg_read_server_files, pg_write_server_files, pg_execute_server_program TO orders_reader",
				"CREATE DATABASE " + databaseA, "CREATE DATABASE " + databaseB,
			}
		}
		if err := w.Postgres.Exec(t.Context(), database, statements...); err != nil {
			t.Fatal(err)
		}
	}
	for _, database := range []string{databaseA, databaseB} {
		var err error
		if w.eyes[database], err = pgconn.Connect(t.Context(), w.Postgres.AdminDSN(database)); err != nil {
			t.Fatal(err)
		}
		if err := w.rebuild(t.Context(), database); err != nil {
			t.Fatal(err)
		}
		if w.clean[database], err = w.sql(t.Context(), database, fingerprint); err != nil {
			t.Fatal(err)
		}
	}
}

// sql runs SQL at the server, past Chaperone, and returns its last value.
func (w *world) sql(ctx context.Context, database, sql string) (string, error) {
	results, err := w.eyes[database].Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("as superuser: %w", err)
	}
	if last := results[len(results)-1]; len(last.Rows) == 1 {
		return string(last.Rows[0][0]), nil
	}
	return "", nil
}

// rebuild makes all that is in a database anew.
func (w *world) rebuild(ctx context.Context, database string) error {
	_, err := w.sql(ctx, database, "SET client_min_messages = error; DROP SCHEMA IF EXISTS public, vault, other CASCADE;"+
		"CREATE SCHEMA public; ALTER SCHEMA public OWNER TO orders_reader; SET ROLE orders_reader;"+
		w.secrets[database].fill(seed)+"RESET ROLE; SELECT lo_unlink(oid) FROM pg_largeobject_metadata; ANALYZE;")
	return err
}

// refill makes the rows of a database anew.
func (w *world) refill(ctx context.Context, database string) error {
	rows := strings.Join(regexp.MustCompile(`(?m)^INSERT INTO [^;]+;`).FindAllString(seed, -1), "\n")
	_, err := w.sql(ctx, database, "TRUNCATE people, vault.diary, staff, staff_boss, ledger, cities, notes;"+w.secrets[database].fill(rows)+
		"REFRESH MATERIALIZED VIEW people_copy; SELECT lo_unlink(oid) FROM pg_largeobject_metadata;"+
		"SELECT setval('counter', 1, false); ANALYZE;")
	return err
}

// restore undoes what an attempt has changed.
func (w *world) restore(ctx context.Context, database string) error {
	now, err := w.sql(ctx, database, fingerprint)
	if now == w.clean[database] {
		return nil
	}
	objects, _, _ := strings.Cut(now, " ")
	if err == nil && strings.HasPrefix(w.clean[database], objects) {
		return w.refill(ctx, database)
	}
	if err := w.rebuild(ctx, database); err != nil {
		return err
	}
	// Chaperone reads a catalog again on a change that goes through it; others'
	// changes it learns of later.
	conn, err := w.masked.connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.close()
	for _, sql := range []string{"CREATE SCHEMA other", "DROP SCHEMA other"} {
		if _, err := conn.send(nil, &pgproto3.Query{String: sql}); err != nil {
			return err
		}
	}
	return nil
}

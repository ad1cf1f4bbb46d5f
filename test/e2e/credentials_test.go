package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// allowAll is a policy that lets planners do everything, within bounds.
func allowAll(session string) string {
	return `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: all}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules: [{name: all, when: "true", then: allow}]
  session: {` + session + `}
`
}

// credentialWorld is a world whose target has another kind of credential. The role
// "app" is there, and may be entered by certificate, or by a password over TLS.
func credentialWorld(t *testing.T, method, credential string) *world {
	t.Helper()
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string]string{"mask.yaml": "", "policy.yaml": allowAll("record: durable")}
	if credential != "" {
		target, _, _ := strings.Cut(stage.Documents()["target.yaml"], "    postgresRole:")
		documents["target.yaml"] = target + "    " + credential + "\n"
	}
	w := setStage(t, stage.Options{Documents: documents, ClientCA: ca.PEM(), HBA: []string{"hostssl all app all " + method}})
	for name, content := range map[string]string{
		"client-ca.pem": string(ca.PEM()), "client-ca.key": string(key), "app.password": storedPassword + "\n",
	} {
		if err := os.WriteFile(w.Path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	statements := []string{
		"GRANT pg_read_all_stats TO chaperone_admin", "CREATE ROLE app LOGIN PASSWORD '" + storedPassword + "' IN ROLE orders_reader",
		"GRANT CREATE ON SCHEMA public TO app, orders_reader",
		// It hears of no cancelling.
		`CREATE FUNCTION stubborn() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
			LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$`,
	}
	if err := w.Postgres.Exec(t.Context(), stage.Database, statements...); err != nil {
		t.Fatal(err)
	}
	w.up()
	return w
}

const (
	storedPassword = "stored-secret-0xC0FFEE"
	byCert         = `postgresCert: {user: app, caFile: "{{dir}}/client-ca.pem", keyFile: "{{dir}}/client-ca.key", ttl: 1m}`
	bySecret       = `postgresSecret: {user: app, passwordFrom: {file: "{{dir}}/app.password"}}`
	withAdmin      = `, adminFrom: {file: "{{dir}}/orders-admin.dsn"}}`
)

func TestJobsAreLetInByACertificateOfTheirOwn(t *testing.T) {
	w := credentialWorld(t, "cert", byCert)
	const own = `SELECT current_user, client_dn, client_serial FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE pid = pg_backend_pid()`
	// Two sessions of one job have one certificate.
	two := w.planner("sh", "-c", strings.Join(quote(stage.Psql("-Atc", own)), " ")+" && "+strings.Join(quote(stage.Psql("-Atc", own)), " "))
	two.want(t, 0, "app|/OU=nightly-test/CN=app|")
	if first, second, _ := strings.Cut(strings.TrimSpace(two.out), "\n"); first != second {
		t.Errorf("two sessions of one job were let in by different certificates:\n%s", two.out)
	}
	issued := w.event(event.TypeCredentialIssued, nil)
	if issued["issuer"] != "postgresCert" || issued["name"] != "app" {
		t.Errorf("the event says %v", issued)
	}
	w.event(event.TypeCredentialRevoked, func(data map[string]any) bool {
		return data["grant"] == issued["grant"] && data["why"] == "job_ended" && data["verified"] == true
	})
	other := w.psql(own)
	other.want(t, 0, "app|")
	if strings.Contains(two.out, other.out) {
		t.Error("another job was let in by the same certificate")
	}
	// Nothing of the authority reaches the job, and none of its keys the disk.
	w.psql("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").want(t, 0, "t|TLSv1.3")
	for _, file := range w.filesBelow("state") {
		if content, err := os.ReadFile(file); err == nil && strings.Contains(string(content), "CN=app") {
			t.Errorf("%s holds a certificate", file)
		}
	}
	// A server that asks for something else is told apart from one that is down.
	if err := w.Postgres.Exec(t.Context(), "postgres", "ALTER ROLE app NOLOGIN"); err != nil {
		t.Fatal(err)
	}
	w.psql("SELECT 1").want(t, 2, "the target refused the account")
	w.refusal(event.ReasonUpstreamAuth)
}

// filesBelow are the files of a folder of the stage.
func (w *world) filesBelow(folder string) (files []string) {
	w.t.Helper()
	err := filepath.WalkDir(w.Path(folder), func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

func TestAStoredSecretIsUsedAndNeverShown(t *testing.T) {
	for _, method := range []string{"scram-sha-256", "password"} {
		t.Run(method, func(t *testing.T) {
			w := credentialWorld(t, method, bySecret)
			r := w.psql("SELECT current_user, usename FROM pg_stat_activity WHERE pid = pg_backend_pid()")
			r.want(t, 0, "app|app")
			if err := w.Postgres.Exec(t.Context(), "postgres", "ALTER ROLE app PASSWORD 'changed-meanwhile'"); err != nil {
				t.Fatal(err)
			}
			w.psql("SELECT 1").want(t, 2, "the target refused the account")
			// The new one is used without a restart.
			if err := os.WriteFile(w.Path("app.password"), []byte("changed-meanwhile"), 0o600); err != nil {
				t.Fatal(err)
			}
			w.psql("SELECT 'in again'").want(t, 0, "in again")
			if err := os.Chmod(w.Path("app.password"), 0o644); err != nil {
				t.Fatal(err)
			}
			w.psql("SELECT 1").want(t, 2, "no credential for target")
			if !strings.Contains(w.log.String(), "has mode 0644, which lets others at it") {
				t.Error("the node's log doesn't say what is wrong with the password's file")
			}
			w.event(event.TypeCredentialIssued, func(data map[string]any) bool { return data["issuer"] == "postgresSecret" && data["name"] == "app" })
			shown := w.log.String() + r.out
			for _, e := range w.events() {
				shown += string(e.Data)
			}
			for _, file := range w.filesBelow("state") {
				if content, err := os.ReadFile(file); err == nil {
					shown += string(content)
				}
			}
			for _, secret := range []string{storedPassword, "changed-meanwhile"} {
				if strings.Contains(shown, secret) {
					t.Errorf("%s is in an event, a log or a file of the daemon", secret)
				}
			}
		})
	}
}

// Whatever a session is at, a lock leaves no server process of it behind.
func TestALockEndsSessionsAtTheServer(t *testing.T) {
	tests := []struct {
		name, method, credential, user string
		stubborn                       bool // a statement that can't be cancelled ends as well
	}{
		{"role", "reject", "", `chaperone\_nightly%`, true},
		{"certificate and administrator", "cert", strings.TrimSuffix(byCert, "}") + withAdmin, "app", true},
		{"secret and administrator", "scram-sha-256", strings.TrimSuffix(bySecret, "}") + withAdmin, "app", true},
		{"secret alone", "scram-sha-256", bySecret, "app", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := credentialWorld(t, test.method, test.credential)
			sessions := func(state string) string {
				n, err := w.Superuser(t.Context(), fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE '%s' AND (%s)", test.user, state))
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			for what, sql := range map[string]string{
				"sleeping": "SELECT pg_sleep(600)", "copying": "COPY orders (customer, amount) FROM STDIN",
				"idle in a transaction": "BEGIN; DELETE FROM orders WHERE id = 1", "stubborn": "SELECT stubborn()",
			} {
				if what == "stubborn" && !test.stubborn {
					continue
				}
				t.Run(what, func(t *testing.T) {
					w := w.in(t)
					cmd := w.Planner(t.Context(), "nightly-busy", stage.Psql("-Atq")...)
					in, err := cmd.StdinPipe()
					if err != nil {
						t.Fatal(err)
					}
					var words stage.Log
					cmd.Stdout, cmd.Stderr = &words, &words
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
					fmt.Fprintln(in, sql+";")
					w.until("a session that is "+what, func() bool {
						return sessions("state = 'active' AND (wait_event IN ('PgSleep', 'ClientRead')) OR state = 'idle in transaction'") == "1"
					})
					l, _ := w.lock("--workload", "nightly-busy")
					w.until("a server without its session", func() bool { return sessions("true") == "0" })
					fmt.Fprintln(in, "1\t1")
					in.Close()
					if err := cmd.Wait(); err == nil || !strings.Contains(words.String(), l.told[0]) {
						t.Errorf("the client ended with %v and was told:\n%s", err, words.String())
					}
					w.event(event.TypeCredentialRevoked, func(data map[string]any) bool { return data["why"] == "locked" && data["verified"] == true })
					w.unlock(l.id)
					if n, err := w.Superuser(t.Context(), "SELECT count(*) FROM orders WHERE id = 1"); err != nil || n != "1" {
						t.Errorf("what the transaction did is still there: %s, %v", n, err)
					}
				})
			}
		})
	}
}

// sessionBounds is a world of two policies, of which the one named "tight" has the
// tighter bound.
func sessionBounds(t *testing.T, loose, tight string) *world {
	t.Helper()
	w := setUp(t, stage.Options{Documents: map[string]string{
		"mask.yaml": "", "policy.yaml": allowAll(loose),
		"tight.yaml": strings.Replace(allowAll(tight), "name: all}\nspec", "name: tight}\nspec", 1),
	}})
	return w
}

const verbose = "VERBOSITY=verbose"

func TestASessionSeesSoManyRowsAndBytes(t *testing.T) {
	w := sessionBounds(t, "maxRows: 5000, maxBytes: 1MiB", "maxRows: 1000, maxBytes: 64KiB")
	const many = "SELECT repeat('x', 1000) FROM generate_series(1, 100)"
	bytes := []string{"54000: policy lets a session see 64KiB of results, and this one has seen them", `Decided by policy "tight", session limit maxBytes.`}
	rows := []string{"54000: policy lets a session see 1000 rows, and this one has seen them", `Decided by policy "tight", session limit maxRows.`}
	w.psql(many, "-v", verbose).want(t, 1, bytes...)
	w.psql("COPY ("+many+") TO STDOUT", "-v", verbose).want(t, 1, bytes...)
	w.psql("SELECT 1 FROM generate_series(1, 2000)", "-v", verbose).want(t, 1, rows...)
	// It is the whole session that is bounded, and only what it sees.
	const half = "SELECT repeat('x', 1000) FROM generate_series(1, 40)"
	w.psql(half, "-c", half).want(t, 1, "xxxx", "64KiB")
	w.psql("CREATE TEMP TABLE much AS SELECT repeat('x', 1000) FROM generate_series(1, 2000)").want(t, 0)
	w.event(event.TypeSessionEnded, func(data map[string]any) bool { return data["commands"] == float64(2) })
}

func TestASessionLastsForSoLong(t *testing.T) {
	w := sessionBounds(t, "maxDuration: 1h", "maxDuration: 3s")
	for _, sql := range []string{"SELECT pg_sleep(600)", "COPY orders (customer, amount) FROM STDIN", stage.SlowQuery} {
		cmd := w.Planner(t.Context(), "nightly-test", stage.Psql("-Atqc", sql)...)
		in, err := cmd.StdinPipe() // open: a COPY has more to come
		if err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		var words stage.Log
		cmd.Stderr = &words
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for _, sessions := range []string{"1", "0"} {
			w.until("a server with so many sessions: "+sessions, func() bool {
				n, err := w.Superuser(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'chaperone\_nightly%' AND state = 'active'`)
				return err == nil && n == sessions
			})
		}
		in.Close()
		err = cmd.Wait()
		timer.Stop()
		for _, text := range []string{"FATAL:  policy ends sessions like this one after 3s", `Decided by policy "tight", session limit maxDuration.`} {
			if err == nil || !strings.Contains(words.String(), text) {
				t.Errorf("%s: it ended with %v, and no %q is in:\n%s", sql, err, text, words.String())
			}
		}
	}
	w.event(event.TypeSessionEnded, func(data map[string]any) bool { return data["reason"] == event.ReasonLimit })
}

func TestAStatementRunsForSoLong(t *testing.T) {
	w := sessionBounds(t, "maxCommandDuration: 1h", "maxCommandDuration: 2s")
	told := []string{"57014: canceling statement: policy lets one run for 2s", `Decided by policy "tight", session limit maxCommandDuration.`}
	r := w.psql("SELECT 'and it goes on'", "-v", verbose, "-v", "ON_ERROR_STOP=0", "-c", "SELECT pg_sleep(600)")
	r.want(t, 0, append(told, "and it goes on")...)
	w.event(event.TypeCommand, func(data map[string]any) bool { return data["sqlstate"] == "57014" })

	// The time is that of each statement, also of those that wait for others.
	cmd := w.client("pipeline")
	w.do(cmd).want(t, 0, "slept 4 times", "cancelled 57014", "and on")

	// A COPY that waits for its client doesn't hear that it is cancelled.
	copying := w.Planner(t.Context(), "nightly-test", stage.Psql("-Atq", "-v", verbose, "-c", "COPY orders (customer, amount) FROM STDIN")...)
	in, err := copying.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Minute, func() { copying.Process.Kill() })
	var words stage.Log
	copying.Stdout, copying.Stderr = &words, &words
	if err := copying.Start(); err != nil {
		t.Fatal(err)
	}
	w.event(event.TypeSessionEnded, func(data map[string]any) bool {
		return data["reason"] == event.ReasonLimit && strings.Contains(fmt.Sprint(data["message"]), "it could not be cancelled")
	})
	in.Close()
	if err := copying.Wait(); err == nil || !strings.Contains(words.String(), "57P01: canceling statement: policy lets one run for 2s") {
		t.Errorf("the client ended with %v and was told:\n%s", err, words.String())
	}
	w.alive()
}

func TestAJobHasSoManySessions(t *testing.T) {
	w := sessionBounds(t, "maxSessions: 5", "maxSessions: 2")
	one := strings.Join(quote(stage.Psql("-v", verbose, "-Atc", "SELECT 'one more'")), " ")
	busy := strings.Join(quote(stage.Psql("-Atc", "SELECT pg_sleep(600)")), " ")
	// One after the other, as quick as it can.
	w.planner("sh", "-c", strings.Repeat(one+" && ", 5)+"true").want(t, 0, "one more")
	first := w.Planner(t.Context(), "nightly-first", "sh", "-c", busy+" & a=$!; "+busy+" & b=$!; read line; "+one+"; kill $a $b; wait; "+one)
	in, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var words stage.Log
	first.Stdout, first.Stderr = &words, &words
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Minute, func() { first.Process.Kill() })
	w.until("a job with two sessions", func() bool {
		n, err := w.Superuser(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
		return err == nil && n == "2"
	})
	w.psql("SELECT 'another job'").want(t, 0, "another job")
	fmt.Fprintln(in)
	w.refusal(event.ReasonLimit)
	if err := first.Wait(); err != nil {
		t.Errorf("the job ended with %v:\n%s", err, words.String())
	}
	for _, text := range []string{
		"53300: policy lets a job have 2 sessions at target \"orders-db\" at once, and this one has them",
		`Decided by policy "tight", session limit maxSessions.`, "one more",
	} {
		// psql shows what refuses a connection without its SQLSTATE.
		if !strings.Contains(words.String(), strings.TrimPrefix(text, "53300: ")) {
			t.Errorf("no %q in:\n%s", text, words.String())
		}
	}
}

// pipelineClient sends statements without waiting for the answers: each runs for less
// than it may, but for one.
func pipelineClient(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, stage.ConnString)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	batch := &pgx.Batch{}
	for range 4 {
		batch.Queue("SELECT pg_sleep(0.8)")
	}
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	fmt.Println("slept", batch.Len(), "times")
	batch = &pgx.Batch{}
	batch.Queue("SELECT pg_sleep(0.1)")
	batch.Queue("SELECT pg_sleep(600)")
	batch.Queue("SELECT 1")
	var refused *pgconn.PgError
	if err := conn.SendBatch(ctx, batch).Close(); !errors.As(err, &refused) {
		return fmt.Errorf("a batch that takes ten minutes: %v", err)
	}
	fmt.Println("cancelled", refused.Code)
	_, err = conn.Exec(ctx, "SELECT 1")
	fmt.Println("and on", err)
	return err
}

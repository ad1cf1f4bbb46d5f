// Package clients runs the clients that people use against a server twice, direct and
// as a planner job, and makes sure that they notice no difference: same output, same
// errors, same exit code. Each has a folder with the script that it runs. What is
// refused is refused in both cases, by the server's privileges or by policy, with the
// same SQLSTATE.
package clients

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
)

// chaperone is the chaperone binary that the tests are about.
var chaperone string

func TestMain(m *testing.M) {
	if err := stage.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "these tests need root and a kernel with namespaces, cgroup v2 and eBPF:", err)
		os.Exit(1)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chaperone-clients-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	chaperone = filepath.Join(dir, "chaperone")
	if err := stage.Build(context.Background(), chaperone, stage.Program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// The policy of these tests: anything but what changes customers or the schema, and
// for the job that restores that too. The one that dumps may do what docs/clients.md
// says that it must.
const documents = `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: clients}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules:
    - {name: work, when: "!statement.ddl && workload.name != 'nightly-pg_dump'", then: allow}
    - name: dump
      when: >-
        statement.readOnly || statement.kind in ['LOCK TABLE', 'EXECUTE']
        || statement.kind == 'SELECT' && statement.functions.all(f, f in ['lo_open', 'loread', 'lo_close', 'pg_catalog.pg_export_snapshot'])
      then: allow
    - name: customers-are-not-changed
      when: "statement.kind in ['INSERT', 'UPDATE', 'DELETE'] && statement.tables.exists(t, t.endsWith('customers'))"
      then: deny
      message: customers are not changed
    - {name: restore, when: "statement.ddl && workload.name == 'nightly-pg_restore'", then: allow}
`

//go:embed seed.sql
var seed string

// What a direct connection logs in with.
const directPassword = "direct"

// scratch is a database for what is restored.
const scratch = "scratch"

// world is a stage with a running daemon.
type world struct {
	*stage.Stage
	t      *testing.T
	daemon *stage.Daemon
	log    *stage.Log
	libs   string // of the server's own version, where that isn't Debian's
}

func setUp(t *testing.T, options stage.Options) *world {
	t.Helper()
	w := &world{t: t, log: &stage.Log{}}
	options.Binary, options.Log = chaperone, w.log
	var err error
	if w.Stage, err = stage.New(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Close(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("daemon and server said:\n%s", w.log)
		}
	})
	if options.Version != 0 {
		w.libs = w.Postgres.LibDir()
	}
	w.superuser(seed)
	w.superuser(`CREATE ROLE planner LOGIN PASSWORD '` + directPassword + `'; GRANT orders_reader TO planner;
		GRANT SELECT ON orders_id_seq TO orders_reader;
		SELECT lo_from_bytea(4711, decode(repeat('c0ffee', 10000), 'hex')); GRANT SELECT ON LARGE OBJECT 4711 TO orders_reader`)
	if w.daemon, err = w.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) superuser(sql string) {
	w.t.Helper()
	if _, err := w.Superuser(w.t.Context(), sql); err != nil {
		w.t.Fatal(err)
	}
}

// result is what a command came to.
type result struct {
	out, errors string
	code        int
}

func (r result) String() string {
	return fmt.Sprintf("%s--- exit code %d, and in its standard error:\n%s", r.out, r.code, r.errors)
}

// run runs a command to its end, which comes within a minute, in a folder of its own.
func (w *world) run(t *testing.T, cmd *exec.Cmd, env ...string) result {
	t.Helper()
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	cmd.Dir = t.TempDir()
	cmd.Env = append(cmd.Env,
		"PGHOST="+stage.Host, "PGDATABASE="+stage.Database, "PGUSER=planner", "PGSSLMODE=verify-full", "PGTZ=UTC",
		"LC_ALL=C.UTF-8", "HOME="+cmd.Dir, "SCRATCH="+scratch)
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // its exit code is compared
	return result{out.String(), errors.String(), cmd.ProcessState.ExitCode()}
}

// direct runs a command past Chaperone, with a password.
func (w *world) direct(t *testing.T, command, env []string) result {
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = os.Environ()
	return w.run(t, cmd, append(env, "PGPASSWORD="+directPassword, "PGSSLROOTCERT="+w.Path("target-ca.pem"))...)
}

// planner runs it as a job, which needs neither.
func (w *world) planner(t *testing.T, job string, command, env []string) result {
	return w.run(t, w.Planner(t.Context(), job, command...), env...)
}

// clean undoes what a client leaves, and makes the scratch database anew for one that
// restores.
func (w *world) clean(restores bool) {
	w.t.Helper()
	w.superuser("TRUNCATE written")
	if !restores {
		return
	}
	w.superuser("DROP DATABASE IF EXISTS " + scratch + " WITH (FORCE)")
	w.superuser("CREATE DATABASE " + scratch)
	if err := w.Postgres.Exec(w.t.Context(), scratch, "GRANT CREATE ON SCHEMA public TO orders_reader"); err != nil {
		w.t.Fatal(err)
	}
}

// difference is the first line in which two texts differ.
func difference(direct, through string) string {
	a, b := strings.Split(direct, "\n"), strings.Split(through, "\n")
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d:\n direct  %q\n through %q", i+1, x, y)
		}
	}
	return ""
}

func versions(t *testing.T) []int {
	t.Helper()
	found, err := lab.PostgresVersions()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

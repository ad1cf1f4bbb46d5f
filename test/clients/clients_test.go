package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/stage"
)

// client is a program with its script.
type client struct {
	name    string
	command []string
	env     []string
	// varies is what is different each time in what it prints.
	varies *regexp.Regexp
	// only tells the servers that it is run with; nil: each. 0 is Debian's.
	only func(version int) bool
	// restores: it needs the scratch database.
	restores bool
	code     int // that it exits with
	// refused is how many commands of it policy must have refused.
	refused int
}

// clients are all of them. What must be compiled is, into dir.
func clients(t *testing.T, dir string) []client {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(here, name) }
	compile := func(command ...string) {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
	includes, err := exec.CommandContext(t.Context(), "pg_config", "--includedir").Output()
	if err != nil {
		t.Fatal(err)
	}
	libpq, pgx, jdbc := filepath.Join(dir, "libpq"), filepath.Join(dir, "pgx"), filepath.Join(dir, "jdbc")
	compile("gcc", "-std=gnu11", "-Wall", "-Werror", "-o", libpq, "-I", strings.TrimSpace(string(includes)), file("libpq/client.c"), "-lpq")
	compile("go", "build", "-o", pgx, "./pgx")
	const driver = "/usr/share/java/postgresql.jar"
	compile("javac", "-cp", driver, "-d", jdbc, file("jdbc/Client.java"))
	const python = "/usr/bin/python3" // which has Debian's packages
	psql := []string{"psql", "-X", "-f", file("psql/client.sql")}
	own := func(version int) bool { return version == 0 } // pg_dump dumps no server that is newer than itself
	interrupted := []string{"psql", "-X", "-f", file("psql/cancel.sql")}
	newest := func(version int) bool { return version >= 18 }
	numbers := regexp.MustCompile(`lo_(im|un)(port|link) \d+|object \d+|PID \d+`)
	longKeys := []string{"PGMINPROTOCOLVERSION=3.2", "PGMAXPROTOCOLVERSION=3.2"}
	return []client{
		{name: "psql", command: psql, varies: numbers, only: own, refused: 4},
		{name: "psql that is interrupted", command: interrupted, code: 3, only: own},
		{name: "psql of the newest libpq that is interrupted", command: interrupted, env: longKeys, code: 3, only: newest},
		{name: "psql with the newest libpq", command: psql, varies: numbers, env: longKeys, only: newest, refused: 4},
		{name: "libpq", command: []string{libpq}, only: own, refused: 5},
		{name: "the newest libpq", command: []string{libpq}, env: longKeys, only: newest, refused: 5},
		{name: "pgx", command: []string{pgx}, env: []string{"PROTOCOL=3.0"}, only: own, refused: 9},
		{name: "pgx by protocol 3.2", command: []string{pgx}, env: []string{"PROTOCOL=3.2"}, only: newest, refused: 9},
		{name: "JDBC", command: []string{"java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", driver + ":" + jdbc, "Client"}, refused: 3},
		{name: "psycopg", command: []string{python, file("psycopg/client.py")}, refused: 3},
		{name: "psycopg2", command: []string{python, file("psycopg2/client.py")}, only: own, refused: 2},
		{name: "node-postgres", command: []string{"node", "--no-deprecation", file("node/client.js")},
			env: []string{"NODE_PATH=" + file("../../bin/npm/installed/node_modules")}, refused: 3},
		{name: "pg_dump", command: []string{"sh", file("pgdump/dump.sh")}, only: own},
		{name: "pg_restore", command: []string{"sh", file("pgdump/restore.sh")}, only: own, restores: true},
		{name: "pgbench", command: []string{"sh", file("pgbench/client.sh")}, env: []string{"DIR=" + file("pgbench")}, refused: 1},
	}
}

func TestClients(t *testing.T) {
	all := clients(t, t.TempDir())
	installed := versions(t)
	if len(installed) < 2 {
		t.Fatalf("there are the versions %v; run tools/setup.sh clients for a newer one than Debian's", installed)
	}
	for _, version := range []int{0, installed[len(installed)-1]} {
		name := "Debian's server"
		if version != 0 {
			name = fmt.Sprintf("PostgreSQL %d", version)
		}
		t.Run(name, func(t *testing.T) {
			w := setUp(t, stage.Options{
				Version: version, Documents: map[string]string{"policy.yaml": documents, "mask.yaml": ""},
			})
			for _, c := range all {
				if c.only == nil || c.only(version) {
					t.Run(c.name, func(t *testing.T) { w.compare(t, c) })
				}
			}
		})
	}
}

// compare runs a client twice, and finds out whether policy decided on it.
func (w *world) compare(t *testing.T, c client) {
	env := c.env
	if strings.Contains(c.name, "newest") {
		env = append(env, "LD_LIBRARY_PATH="+w.libs)
	}
	job := "nightly-" + strings.ReplaceAll(c.name, " ", "-")
	w.clean(c.restores)
	direct := w.direct(t, c.command, env)
	w.clean(c.restores)
	through := w.planner(t, job, c.command, env)
	if direct.code != c.code {
		t.Fatalf("direct, it failed:\n%s", direct)
	}
	a, b := direct.String(), through.String()
	if c.varies != nil {
		a, b = c.varies.ReplaceAllString(a, "…"), c.varies.ReplaceAllString(b, "…")
	}
	if d := difference(a, b); d != "" {
		t.Errorf("a difference in %s\nthe whole, through:\n%s", d, through)
	}
	w.refused(t, job, c.refused)
}

// Command compat runs the whole test suite of pgx, as the module's own files
// have it, against one server: direct, and through Chaperone as a planner job.
// It prints what passed in each, and fails where a test comes out otherwise and
// differences.txt doesn't say why. It knows nothing of what the tests do.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"chaperone.dev/chaperone/internal/stage"
)

// buildVariable is the folder of the built suite, for the run inside of the
// namespaces: there is no network to build with.
const buildVariable = "CHAPERONE_COMPAT_SUITE"

func main() {
	binary := flag.String("chaperone", "bin/chaperone", "the chaperone binary")
	only := flag.String("run", "", "only tests that match, as go test -run has it")
	verbose := flag.Bool("v", false, "print what the tests print, and the daemon's log")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	same, err := run(ctx, *binary, *only, *verbose)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(2)
	case !same:
		os.Exit(1)
	}
}

func run(ctx context.Context, binary, only string, verbose bool) (same bool, err error) {
	dir := os.Getenv(buildVariable)
	if dir == "" {
		s, err := build(ctx)
		if err != nil {
			return false, err
		}
		os.Setenv(buildVariable, s.dir)
		err = stage.Isolate() // comes back only when it fails
		return false, errors.Join(err, os.RemoveAll(s.dir))
	}
	if err := stage.Isolate(); err != nil {
		return false, err
	}
	s := &suite{dir: dir, only: only}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	if binary, err = filepath.Abs(binary); err != nil {
		return false, err
	}
	s.log = io.Discard
	if verbose {
		s.log = os.Stderr
	}
	return compare(ctx, s, binary)
}

// documents let a planner do what PostgreSQL lets it, with nothing masked.
func documents() map[string]string {
	return map[string]string{
		"mask.yaml": "",
		// A test of pgx opens more connections at once than a job has by default.
		"target.yaml": strings.Replace(stage.Documents()["target.yaml"], "ttl: 15m", "ttl: 1h\n      connectionLimit: 90", 1),
		"policy.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: everything}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules:
    - {name: everything, when: "true", then: allow}
`,
	}
}

// database is what the suite asks for (pgx's testsetup/postgresql_setup.sql),
// owned by the role whose rights planners get.
const database = "pgx_test"

const password = "direct"

func prepare(ctx context.Context, s *stage.Stage) error {
	if err := s.Postgres.Exec(ctx, "postgres",
		"CREATE DATABASE "+database+" OWNER orders_reader",
		"CREATE ROLE direct LOGIN PASSWORD '"+password+"' IN ROLE orders_reader",
		"GRANT pg_signal_backend, pg_monitor TO orders_reader",
		"GRANT SET ON PARAMETER log_statement TO orders_reader",
		`CREATE ROLE " tricky, ' } "" \ test user " SUPERUSER`,
	); err != nil {
		return err
	}
	return s.Postgres.Exec(ctx, database,
		"CREATE EXTENSION hstore", "CREATE EXTENSION ltree", "CREATE DOMAIN uint64 AS numeric(20,0)",
		"ALTER SCHEMA public OWNER TO orders_reader",
	)
}

func compare(ctx context.Context, s *suite, binary string) (same bool, err error) {
	var daemonLog bytes.Buffer
	world, err := stage.New(ctx, stage.Options{Binary: binary, Documents: documents(), Plain: true, Log: &locked{to: io.MultiWriter(&daemonLog, s.log)}})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, world.Close(context.WithoutCancel(ctx))) }()
	if err := prepare(ctx, world); err != nil {
		return false, err
	}
	if _, err := world.Up(ctx); err != nil {
		return false, err
	}
	base := fmt.Sprintf("host=%s dbname=%s sslmode=verify-full", stage.Host, database)
	direct, err := s.run(ctx, "direct", environment(base+" user=direct password="+password+" sslrootcert="+world.Path("target-ca.pem")), nil)
	if err != nil {
		return false, err
	}
	through, err := s.run(ctx, "through", environment(base+" user=planner"), func(command ...string) []string {
		// Tests of pgx's own parser and of its own TLS servers take the variable for theirs.
		// The node's authority is among the system's by SSL_CERT_FILE, too.
		return world.Planner(ctx, "nightly-pgx", append([]string{"env", "-u", "PGSSLROOTCERT"}, command...)...).Args
	}, "CHAPERONE_RUN_DIR="+world.RunDir())
	if err != nil {
		return false, err
	}
	return report(os.Stdout, direct, through)
}

// environment is what the suite is told. Left out are the connections that
// Chaperone doesn't make or ends itself: unix sockets (planners are refused
// them), passwords and certificates of the client (it needs none), channel
// binding (TLS ends at the node), other servers.
func environment(connString string) []string {
	return []string{
		"PGX_TEST_DATABASE=" + connString,
		"PGX_TEST_TCP_CONN_STRING=" + connString,
		"PGX_TEST_TLS_CONN_STRING=" + connString,
	}
}

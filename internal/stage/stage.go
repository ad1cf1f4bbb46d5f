// Package stage sets a whole Chaperone up on one machine, as a person would:
// a PostgreSQL server behind a host name with a few rows of sample data, a
// folder of documents, and the chaperone binary. The end-to-end tests, the
// benchmark and "chaperone demo" play on it. It calls nothing of the product
// but its commands.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"chaperone.dev/chaperone/internal/lab"
)

// The server's name and address. The name is in /etc/hosts of the namespace
// that [Isolate] makes.
const (
	Host    = "orders.db.internal"
	Address = "10.20.0.5"
	Port    = 5432
	// Elsewhere is an address of the namespace that no target is at.
	Elsewhere = "10.20.0.66"
)

// Database is the one with the sample data.
const Database = "shop"

// Isolate puts the current program into a namespace in which [Host] is known.
// It is called first in main or TestMain; see [lab.Isolate].
func Isolate() error {
	return lab.Isolate(lab.Namespace{
		Hosts:     map[string]string{Host: Address},
		Addresses: []string{Elsewhere},
	})
}

// Options configure a [Stage].
type Options struct {
	// Binary is the chaperone binary. Required.
	Binary string
	// Documents replace or add files of the documents' folder, by name; an
	// empty text leaves a file out. "{{dir}}" stands for the stage's folder.
	Documents map[string]string
	// Version is the server's major version; 0: the newest of Debian's.
	Version int
	// Postgres are further settings of the server.
	Postgres map[string]string
	// Addresses are further ones that the server listens on. They must be
	// the namespace's already; see [lab.AddAddress].
	Addresses []string
	// Names are further host names that the server's certificate is for.
	Names []string
	// Slice makes the planners' ancestor a slice, in which units can be.
	Slice bool
	// Ancestor is the whole name of the planners' ancestor, which must not be
	// there. Empty: a fresh one.
	Ancestor string
	// Plain lets clients in without TLS, too.
	Plain bool
	// HBA are lines of the server's pg_hba.conf before the stage's own, which lets
	// every role in by scram-sha-256.
	HBA []string
	// ClientCA has the server ask for client certificates, and verify them with
	// these, in PEM.
	ClientCA []byte
	// Durable turns the server's fsync on.
	Durable bool
	// Log receives what the daemon and the server log. May be nil.
	Log io.Writer
}

// Stage is a server, documents and a place for a daemon. The daemon is not
// started by [New].
type Stage struct {
	Postgres *lab.Postgres
	// Dir holds everything that the stage keeps on disk.
	Dir string

	options Options
	cgroup  *lab.Cgroup
	daemon  *Daemon
}

// New sets the stage up.
func New(ctx context.Context, options Options) (_ *Stage, err error) {
	if options.Log == nil {
		options.Log = io.Discard
	}
	s := &Stage{options: options}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}()
	if s.Dir, err = os.MkdirTemp("", "chaperone-stage-"); err != nil {
		return nil, err
	}
	// A planner that runs as another user reads what the daemon gives it.
	if err := os.Chmod(s.Dir, 0o755); err != nil {
		return nil, err
	}
	cgroup := "chaperone-stage"
	if options.Slice {
		cgroup += slice
	}
	if options.Ancestor != "" {
		s.cgroup, err = lab.NewNamedCgroup(options.Ancestor)
	} else {
		s.cgroup, err = lab.NewCgroup(cgroup)
	}
	if err != nil {
		return nil, err
	}
	ca, err := lab.NewCA()
	if err != nil {
		return nil, err
	}
	certificate, err := ca.Issue(append([]string{Host}, options.Names...)...)
	if err != nil {
		return nil, err
	}
	// One for sessions, one for the administrator's connections: a test may
	// change either.
	for _, name := range []string{"target-ca.pem", "admin-ca.pem"} {
		if err := os.WriteFile(s.Path(name), ca.PEM(), 0o644); err != nil {
			return nil, err
		}
	}
	entry := "hostssl"
	if options.Plain {
		entry = "host"
	}
	s.Postgres, err = lab.StartPostgres(ctx, lab.PostgresOptions{
		Version: options.Version, Listen: append([]string{Address}, options.Addresses...), Port: Port, TLS: certificate, Config: options.Postgres,
		HBA:      append(slices.Clip(options.HBA), entry+" all all all scram-sha-256"),
		ClientCA: options.ClientCA, Durable: options.Durable, Log: options.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := s.fill(ctx); err != nil {
		return nil, err
	}
	return s, s.writeDocuments()
}

// Path is a file of the stage's folder.
func (s *Stage) Path(name ...string) string {
	return filepath.Join(append([]string{s.Dir}, name...)...)
}

// Cgroup is the folder of the planners' ancestor.
func (s *Stage) Cgroup() string { return s.cgroup.Path }

// RunDir is where the daemon's sockets are.
func (s *Stage) RunDir() string { return s.Path("run") }

// Command is a chaperone command against the stage's daemon.
func (s *Stage) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.options.Binary, args...)
	cmd.Env = append(os.Environ(), "CHAPERONE_RUN_DIR="+s.RunDir())
	return cmd
}

// Planner is a command that runs as a planner job with that name.
func (s *Stage) Planner(ctx context.Context, name string, command ...string) *exec.Cmd {
	return s.Command(ctx, append([]string{"run", "--name", name, "--"}, command...)...)
}

// Psql are the words of a psql that connects by the server's real name, with
// no password, and verifies whom it talks to.
func Psql(args ...string) []string {
	return append([]string{
		"psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", ConnString,
	}, args...)
}

// ConnString is what a planner connects with: it holds no password.
const ConnString = "host=" + Host + " dbname=" + Database + " user=planner sslmode=verify-full"

// Roles are the minted roles that exist at the server.
func (s *Stage) Roles(ctx context.Context) ([]string, error) {
	out, err := s.Superuser(ctx, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'chaperone\\_%' AND rolname <> 'chaperone_admin' ORDER BY 1")
	return strings.Fields(out), err
}

// SlowQuery is a query that planners may run and that does not end by itself.
const SlowQuery = "SELECT max(card_number), count(*) FROM customers, generate_series(1, 100000000000)"

// SlowQueries is how many of them run at the server.
func (s *Stage) SlowQueries(ctx context.Context) (int, error) {
	out, err := s.Superuser(ctx, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $q$"+SlowQuery+"$q$")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(out)
}

// Superuser runs SQL on the server, past Chaperone, as the tests' own eyes.
func (s *Stage) Superuser(ctx context.Context, sql string) (string, error) {
	out, err := exec.CommandContext(ctx, "psql", "-XAtq", "-d", s.Postgres.AdminDSN(Database), "-c", sql).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("as superuser: %s: %w", out, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Close ends the daemon, enforcement and the server, and leaves nothing behind.
func (s *Stage) Close(ctx context.Context) error {
	var errs []error
	if s.daemon != nil {
		errs = append(errs, s.daemon.Stop(ctx))
	}
	if s.cgroup != nil {
		errs = append(errs, s.cgroup.Remove(ctx))
		if s.daemon != nil {
			if out, err := s.Command(ctx, "detach", "--pin-dir", s.pinDir()).CombinedOutput(); err != nil {
				errs = append(errs, fmt.Errorf("detach: %s: %w", out, err))
			}
		}
	}
	if s.Postgres != nil {
		errs = append(errs, s.Postgres.Stop(ctx))
	}
	if s.Dir != "" {
		errs = append(errs, os.RemoveAll(s.Dir))
	}
	return errors.Join(errs...)
}

// slice is what the names of slices end in.
const slice = ".slice"

// pinDir has no dot in its name, which bpffs does not take.
func (s *Stage) pinDir() string {
	return filepath.Join("/sys/fs/bpf", strings.TrimSuffix(filepath.Base(s.cgroup.Path), slice))
}

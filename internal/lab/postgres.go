package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresOptions says what server to start. The zero value starts one on a
// free port of 127.0.0.1, without TLS.
type PostgresOptions struct {
	// Version is the server's major version. 0: the newest that Debian has
	// installed. See [PostgresVersions].
	Version int
	// Dir is the server's folder, made if need be; it stays after Stop.
	// Empty: a fresh one in the system's temporary folder, gone after Stop.
	Dir string
	// Listen are the addresses to listen on (default 127.0.0.1). An address
	// that can't be had is an error.
	Listen []string
	// Port is the same on each of them; 0 takes a free one.
	Port int
	// HBA are lines of pg_hba.conf for TCP connections. Without any, every
	// host, database and role is let in with scram-sha-256.
	HBA []string
	// TLS is the server's certificate; nil leaves TLS off.
	TLS *KeyPair
	// ClientCA are the certificates, in PEM, that those of clients are verified with
	// (ssl_ca_file), for HBA's method cert. nil: clients aren't asked for any.
	ClientCA []byte
	// Config are further settings of postgresql.conf, unquoted. They win
	// over those that the lab makes itself.
	Config map[string]string
	// Durable turns fsync on, for a server whose speed or crash is what is
	// looked at.
	Durable bool
	// Log receives the server's log. Writes come from one goroutine. May be nil.
	Log io.Writer
}

// Postgres is a running server. Its superuser is "postgres". It dies with the
// process that started it. Methods must not be called at the same time as
// Halt, Start or Stop.
type Postgres struct {
	options  PostgresOptions
	install  installation
	dir      string
	ownDir   bool
	password string
	process  *process // nil while halted
}

// StartPostgres makes a server and returns when it takes connections. ctx
// bounds the start, not the server's life.
func StartPostgres(ctx context.Context, options PostgresOptions) (*Postgres, error) {
	install, err := findInstallation(options.Version)
	if err != nil {
		return nil, err
	}
	if len(options.Listen) == 0 {
		options.Listen = []string{"127.0.0.1"}
	}
	p := &Postgres{options: options, install: install, dir: options.Dir, password: rand.Text()}
	if p.dir == "" {
		if p.dir, err = os.MkdirTemp("", "chaperone-lab-pg-"); err != nil {
			return nil, fmt.Errorf("PostgreSQL folder: %w", err)
		}
		p.ownDir = true
	}
	if err := p.create(ctx); err != nil {
		return nil, errors.Join(err, p.removeDir())
	}
	if err := p.Start(ctx); err != nil {
		return nil, errors.Join(err, p.removeDir())
	}
	return p, nil
}

// Host is the first address that the server listens on.
func (p *Postgres) Host() string { return p.options.Listen[0] }

// Port is the TCP port that the server listens on.
func (p *Postgres) Port() int { return p.options.Port }

// Addr is Host and Port, as net.Dial takes them.
func (p *Postgres) Addr() string {
	return net.JoinHostPort(p.Host(), strconv.Itoa(p.options.Port))
}

// Password is the superuser's.
func (p *Postgres) Password() string { return p.password }

// BinDir is the folder that the server's programs are in: psql, pgbench, … for
// a version of Debian's, those of the server alone for another.
func (p *Postgres) BinDir() string { return p.install.bin }

// LibDir is the folder of the libpq that comes with a version that isn't
// Debian's.
func (p *Postgres) LibDir() string { return filepath.Join(filepath.Dir(p.install.bin), "lib") }

// AdminDSN is a connection string of the superuser over TCP.
func (p *Postgres) AdminDSN(database string) string {
	return p.DSN(database, superuser, p.password)
}

// DSN is a connection string over TCP for a role; an empty password is left
// out. The server's certificate isn't verified: add sslmode and sslrootcert
// for that.
func (p *Postgres) DSN(database, user, password string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user), Host: p.Addr(), Path: "/" + database}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	mode := "disable"
	if p.options.TLS != nil {
		mode = "require"
	}
	u.RawQuery = url.Values{"sslmode": {mode}}.Encode()
	return u.String()
}

// Exec runs statements as the superuser, one after the other.
func (p *Postgres) Exec(ctx context.Context, database string, statements ...string) error {
	conn, err := pgx.Connect(ctx, p.socketDSN(database))
	if err != nil {
		return fmt.Errorf("PostgreSQL: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("PostgreSQL: %w", err)
		}
	}
	return nil
}

// Halt stops the server and keeps its data and its port, for [Postgres.Start].
// Sessions are cut off. When ctx ends first the server is killed.
func (p *Postgres) Halt(ctx context.Context) error {
	if p.process == nil {
		return nil
	}
	err := p.process.stop(ctx)
	p.process = nil
	return err
}

// Start starts a server that was halted.
func (p *Postgres) Start(ctx context.Context) error {
	if p.process != nil {
		return errors.New("PostgreSQL runs already")
	}
	// A free port may be taken by somebody else between looking and
	// listening; only then another one is tried.
	const attempts = 5
	fixed := p.options.Port != 0
	for i := 1; ; i++ {
		if !fixed {
			port, err := FreePort(ctx, p.options.Listen...)
			if err != nil {
				return err
			}
			p.options.Port = port
		}
		err := p.launch(ctx)
		if err == nil || fixed || i == attempts || !errors.Is(err, errAddressInUse) {
			return err
		}
	}
}

// Stop ends the server and removes its folder, unless the folder was given.
func (p *Postgres) Stop(ctx context.Context) error {
	return errors.Join(p.Halt(ctx), p.removeDir())
}

func (p *Postgres) removeDir() error {
	if !p.ownDir {
		return nil
	}
	return os.RemoveAll(p.dir)
}

// launch starts the server's process and waits until it takes connections.
func (p *Postgres) launch(ctx context.Context) error {
	if err := p.writeConfig(); err != nil {
		return err
	}
	proc, err := startProcess(p.install, p.dir, p.options.Log)
	if err != nil {
		return err
	}
	if err := p.ready(ctx, proc); err != nil {
		kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return errors.Join(err, proc.stop(kill))
	}
	p.process = proc
	return nil
}

// ready connects over the server's own socket, which no other server can be
// behind, until that works.
func (p *Postgres) ready(ctx context.Context, proc *process) error {
	const pause = 20 * time.Millisecond
	var last error
	for {
		conn, err := pgx.Connect(ctx, p.socketDSN("postgres"))
		if err == nil {
			conn.Close(ctx)
			// The server only warns when one of several addresses is taken.
			if proc.log.saw(bindFailure) {
				return fmt.Errorf("%w: %v port %d\n%s", errAddressInUse, p.options.Listen, p.options.Port, proc.log.String())
			}
			return nil
		}
		if last = err; ctx.Err() != nil {
			return fmt.Errorf("PostgreSQL isn't ready: %w", last)
		}
		select {
		case <-proc.done:
			if proc.log.saw(bindFailure) {
				return fmt.Errorf("%w: %v port %d", errAddressInUse, p.options.Listen, p.options.Port)
			}
			return fmt.Errorf("PostgreSQL ended at its start: %w\n%s", proc.err, proc.log.String())
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (p *Postgres) socketDSN(database string) string {
	return strings.Join([]string{
		"host=" + quoteDSN(p.dir), "port=" + strconv.Itoa(p.options.Port), "user=" + superuser,
		"password=" + quoteDSN(p.password), "dbname=" + quoteDSN(database), "sslmode=disable",
	}, " ")
}

func quoteDSN(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

const (
	superuser   = "postgres"
	bindFailure = "could not bind"
)

var errAddressInUse = errors.New("PostgreSQL can't listen on its address")

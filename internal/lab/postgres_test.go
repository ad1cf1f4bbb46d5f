package lab_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"

	"github.com/jackc/pgx/v5"
)

func startPostgres(t *testing.T, options lab.PostgresOptions) *lab.Postgres {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pg, err := lab.StartPostgres(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := pg.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return pg
}

func TestPostgresServesOverVerifiedTLSAndComesBackWithItsData(t *testing.T) {
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue("orders.db.internal", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	pg := startPostgres(t, lab.PostgresOptions{
		TLS: pair, Log: &syncWriter{w: &log}, Config: map[string]string{"log_statement": "all"},
	})
	config, err := pgx.ParseConfig(pg.AdminDSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	config.TLSConfig = &tls.Config{RootCAs: ca.Pool(), ServerName: "orders.db.internal"}
	config.Fallbacks = nil
	query := func() (encrypted bool, n int) {
		t.Helper()
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if err := conn.QueryRow(t.Context(), "select ssl, (select count(*) from orders) from pg_stat_ssl where pid = pg_backend_pid()").Scan(&encrypted, &n); err != nil {
			t.Fatal(err)
		}
		return encrypted, n
	}
	if err := pg.Exec(t.Context(), "postgres", "create table orders (id int)", "insert into orders values (1), (2)"); err != nil {
		t.Fatal(err)
	}
	if encrypted, n := query(); !encrypted || n != 2 {
		t.Fatalf("encrypted %v, rows %d; want TLS and 2 rows", encrypted, n)
	}
	if err := pg.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", pg.Addr()); err == nil {
		conn.Close()
		t.Fatal("the halted server still takes connections")
	}
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, n := query(); n != 2 {
		t.Fatalf("rows %d after the restart, want 2", n)
	}
	if err := pg.Halt(t.Context()); err != nil { // so that the log is complete
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "create table orders") {
		t.Error("Log and Config had no effect: the log misses the statement")
	}
}

func TestPostgresWantsThePassword(t *testing.T) {
	pg := startPostgres(t, lab.PostgresOptions{})
	conn, err := pgx.Connect(t.Context(), pg.DSN("postgres", "postgres", "guess"))
	if err == nil {
		conn.Close(t.Context())
		t.Fatal("a wrong password was let in")
	}
	if !strings.Contains(err.Error(), "28P01") {
		t.Fatalf("got %v, want a password failure", err)
	}
}

func TestPostgresOfEachVersion(t *testing.T) {
	versions, err := lab.PostgresVersions()
	if err != nil {
		t.Fatal(err)
	}
	if len(versions) < 2 {
		t.Fatalf("there are the versions %v; run tools/setup.sh clients for a newer one than Debian's", versions)
	}
	for _, version := range versions {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			pg := startPostgres(t, lab.PostgresOptions{Version: version})
			conn, err := pgx.Connect(t.Context(), pg.AdminDSN("postgres"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			var is int
			if err := conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int / 10000").Scan(&is); err != nil || is != version {
				t.Errorf("the server is version %d, %v", is, err)
			}
		})
	}
}

func TestPostgresSaysWhyItCannotStart(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	hidden := filepath.Join(t.TempDir(), "data") // its parent belongs to us alone
	tests := []struct {
		name    string
		options lab.PostgresOptions
		want    string
		is      error
	}{
		{"port taken", lab.PostgresOptions{Port: busy.Addr().(*net.TCPAddr).Port}, "can't listen", nil},
		{"one of two addresses missing", lab.PostgresOptions{Listen: []string{"127.0.0.1", "192.0.2.1"}, Port: 54399}, "can't listen", nil},
		{"wrong setting", lab.PostgresOptions{Config: map[string]string{"no_such_setting": "1"}}, "no_such_setting", nil},
		{"folder out of reach", lab.PostgresOptions{Dir: hidden}, "can't reach it", fs.ErrPermission},
		{"a version that isn't here", lab.PostgresOptions{Version: 9}, "tools/setup.sh", nil},
		{"socket path too long", lab.PostgresOptions{Dir: "/tmp/" + strings.Repeat("x", 100)}, "too long", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.is == fs.ErrPermission && os.Geteuid() != 0 {
				t.Skip("the server runs as ourselves, who can reach the folder")
			}
			if test.options.Dir != "" {
				t.Cleanup(func() { os.RemoveAll(test.options.Dir) })
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			pg, err := lab.StartPostgres(ctx, test.options)
			if err == nil {
				pg.Stop(ctx)
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want it to say %q", err, test.want)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want %v", err, test.is)
			}
		})
	}
}

type syncWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (s *syncWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

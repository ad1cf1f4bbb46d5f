package postgresrole_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresrole"
	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/pkg/policy"
)

// bench is a server with a database "shop", a role "shop_rw" that may create
// tables in it, and two administrators.
type bench struct {
	*lab.Postgres
	log    *safeBuffer
	admins map[string]string // "superuser", "createrole" → file with the connection string
}

func newBench(t testing.TB) *bench { return newBenchOf(t, 0) }

// What depends on the server's version is tried on each that is here. They share
// its server.
func TestOnEachVersion(t *testing.T) {
	versions, err := lab.PostgresVersions()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		t.Run(fmt.Sprintf("PostgreSQL %d", version), func(t *testing.T) {
			b := newBenchOf(t, version)
			for name, test := range map[string]func(t *testing.T, b *bench){
				"IssuedRoleIsWhatWasPromised":       issuedRoleIsWhatWasPromised,
				"RevokeLeavesNothingOfTheRole":      revokeLeavesNothingOfTheRole,
				"RevokeGivesWhatHasNoHeirToNobody":  revokeGivesWhatHasNoHeirToNobody,
				"RevokeSaysWhatItMayNotTake":        revokeSaysWhatItMayNotTake,
				"WhatAJobMakesGoesToItsOwner":       whatAJobMakesGoesToItsOwner,
				"AnOwnerThatCantOwnIsRefusedAtOnce": anOwnerThatCantOwnIsRefusedAtOnce,
			} {
				t.Run(name, func(t *testing.T) { test(t, b) })
			}
		})
	}
}

func newBenchOf(t testing.TB, version int) *bench {
	t.Helper()
	b := &bench{log: &safeBuffer{}, admins: map[string]string{}}
	var err error
	b.Postgres, err = lab.StartPostgres(t.Context(), lab.PostgresOptions{
		Version: version,
		Log:     b.log,
		Config:  map[string]string{"log_statement": "all", "log_min_duration_statement": "0", "max_prepared_transactions": "5"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	b.exec(t, "postgres", "CREATE DATABASE shop", "CREATE DATABASE stock", "CREATE ROLE shop_rw",
		"CREATE ROLE minter LOGIN CREATEROLE PASSWORD 'minter'", "GRANT shop_rw TO minter WITH ADMIN OPTION", "CREATE ROLE nobody LOGIN PASSWORD 'nobody'")
	for _, database := range []string{"shop", "stock"} {
		b.exec(t, database, "GRANT CREATE, USAGE ON SCHEMA public TO shop_rw",
			"CREATE TABLE orders (id int)", "INSERT INTO orders VALUES (1)", "GRANT SELECT ON orders TO shop_rw WITH GRANT OPTION")
	}
	b.exec(t, "stock", "CREATE SEQUENCE numbers", "CREATE TYPE colour AS ENUM ('red')",
		"CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'",
		"GRANT UPDATE (id) ON orders TO shop_rw WITH GRANT OPTION", "GRANT USAGE ON SEQUENCE numbers TO shop_rw WITH GRANT OPTION",
		"GRANT EXECUTE ON FUNCTION twice(int) TO shop_rw WITH GRANT OPTION", "GRANT USAGE ON SCHEMA public TO shop_rw WITH GRANT OPTION",
		"GRANT USAGE ON TYPE colour TO shop_rw WITH GRANT OPTION", "GRANT CONNECT ON DATABASE stock TO shop_rw WITH GRANT OPTION")
	b.admins["superuser"] = secretFile(t, b.AdminDSN("postgres"), 0o600)
	b.admins["createrole"] = secretFile(t, b.DSN("postgres", "minter", "minter"), 0o600)
	return b
}

func secretFile(t testing.TB, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.dsn")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func (b *bench) exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	if err := b.Exec(t.Context(), database, statements...); err != nil {
		t.Fatal(err)
	}
}

// ask runs a query as the superuser and scans its one row.
func (b *bench) ask(t *testing.T, database, query string, args []any, into ...any) {
	t.Helper()
	conn := connect(t, b.AdminDSN(database))
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), query, args...).Scan(into...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func order(adminFile string, memberOf ...string) credential.Order {
	return credential.Order{
		Grant: "01-grant", Job: "job-7", JobName: "nightly", Node: "n1",
		Principal: policy.Principal{Subject: "ann", Issuer: "corp-idp"},
		Target: &policy.Target{Metadata: policy.Metadata{Name: "shop-db"}, Spec: policy.TargetSpec{
			Credential: policy.CredentialSpec{PostgresRole: &policy.PostgresRoleSpec{
				AdminFrom: policy.SecretSource{File: adminFile}, MemberOf: memberOf,
			}},
		}},
	}
}

// issue does what the manager does.
func issue(t testing.TB, o credential.Order) (credential.Entry, credential.Secret, error) {
	t.Helper()
	plan, err := postgresrole.Issuer{}.Plan(o)
	if err != nil {
		return credential.Entry{}, credential.Secret{}, err
	}
	entry := credential.Entry{ID: o.Grant, Account: plan.Account, Expires: time.Now().Add(plan.TTL)}
	secret, err := postgresrole.Issuer{}.Issue(t.Context(), entry, o)
	return entry, secret, err
}

func mustIssue(t testing.TB, o credential.Order) (credential.Entry, credential.Secret) {
	t.Helper()
	entry, secret, err := issue(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return entry, secret
}

func issuedRoleIsWhatWasPromised(t *testing.T, b *bench) {
	for _, admin := range []string{"superuser", "createrole"} {
		t.Run(admin, func(t *testing.T) {
			o := order(b.admins[admin], "shop_rw")
			o.JobName = `Nightly "Report"; DROP ROLE shop_rw -- ` + strings.Repeat("ü", 60)
			o.Principal.Subject = `o'brien\'; --`
			o.Target.Spec.Credential.PostgresRole.ConnectionLimit = 1
			entry, secret := mustIssue(t, o)

			if !regexp.MustCompile(`^chaperone_nightly__report___[a-z0-9_]+_[0-9a-f]{8}$`).MatchString(entry.Account.Name) || len(entry.Account.Name) > 63 {
				t.Errorf("the role's name is %q", entry.Account.Name)
			}
			var login, inherit, super, createdb, createrole, replication, bypass, inTime bool
			var limit int
			var comment, method string
			b.ask(t, "postgres", `SELECT rolcanlogin, rolinherit, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,
				rolvaliduntil BETWEEN now() + interval '14 minutes' AND now() + interval '16 minutes',
				rolconnlimit, shobj_description(oid, 'pg_authid'), left(rolpassword, 14) FROM pg_authid WHERE rolname = $1`,
				[]any{entry.Account.Name}, &login, &inherit, &super, &createdb, &createrole, &replication, &bypass, &inTime, &limit, &comment, &method)
			if !login || !inherit || super || createdb || createrole || replication || bypass || !inTime || limit != 1 || method != "SCRAM-SHA-256$" {
				t.Errorf("attributes: login %v inherit %v super %v createdb %v createrole %v replication %v bypassrls %v valid in time %v limit %d password %s",
					login, inherit, super, createdb, createrole, replication, bypass, inTime, limit, method)
			}
			for _, want := range []string{"job-7", `o'brien\'; --@corp-idp`, "n1", "grant 01-grant"} {
				if !strings.Contains(comment, want) {
					t.Errorf("the comment %q misses %q", comment, want)
				}
			}
			// Its memberships work without SET ROLE, over SCRAM.
			conn := connect(t, b.DSN("shop", entry.Account.Name, secret.Reveal()))
			var n int
			if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM orders").Scan(&n); err != nil || n != 1 {
				t.Errorf("reading what shop_rw may read: %d, %v", n, err)
			}
			if second, err := pgx.Connect(t.Context(), b.DSN("shop", entry.Account.Name, secret.Reveal())); err == nil {
				second.Close(t.Context())
				t.Error("a second session was let in, over the connection limit")
			}
			if wrong, err := pgx.Connect(t.Context(), b.DSN("shop", entry.Account.Name, "guess")); err == nil {
				wrong.Close(t.Context())
				t.Error("a wrong password was let in")
			}
			if err := b.Halt(t.Context()); err != nil { // the log is complete then
				t.Fatal(err)
			}
			defer func() {
				if err := b.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}()
			log := b.log.String()
			if !strings.Contains(log, "CREATE ROLE") || !strings.Contains(log, "SCRAM-SHA-256$") {
				t.Error("the server's log isn't what this test needs it to be")
			}
			if strings.Contains(log, secret.Reveal()) {
				t.Error("the password is in the server's log")
			}
		})
	}
}

func TestRenewExtendsAndNoticesAMissingRole(t *testing.T) {
	b := newBench(t)
	entry, _ := mustIssue(t, order(b.admins["createrole"]))
	if err := (postgresrole.Issuer{}).Renew(t.Context(), entry, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var extended bool
	b.ask(t, "postgres", "SELECT rolvaliduntil > now() + interval '59 minutes' FROM pg_roles WHERE rolname = $1", []any{entry.Account.Name}, &extended)
	if !extended {
		t.Error("the role's end did not move")
	}
	b.exec(t, "postgres", "DROP ROLE "+entry.Account.Name)
	if err := (postgresrole.Issuer{}).Renew(t.Context(), entry, time.Now().Add(time.Hour)); !errors.Is(err, credential.ErrGone) {
		t.Errorf("renewing a dropped role: %v, want ErrGone", err)
	}
}

func TestIssueRefuses(t *testing.T) {
	b := newBench(t)
	b.exec(t, "postgres", "CREATE ROLE boss SUPERUSER", "CREATE ROLE near_boss IN ROLE boss")
	su := b.AdminDSN("postgres")
	prefer := strings.Replace(su, "sslmode=disable", "sslmode=prefer", 1)
	tests := []struct {
		name, admin string
		memberOf    []string
		want        string
	}{
		{"memberOf that doesn't exist", b.admins["superuser"], []string{"nothere"}, `no role "nothere"`},
		{"memberOf that is a superuser", b.admins["superuser"], []string{"shop_rw", "boss"}, `"boss" is a superuser`},
		{"memberOf that can become one", b.admins["superuser"], []string{"near_boss"}, `"near_boss" is a superuser or can become one`},
		{"name longer than PostgreSQL's", b.admins["superuser"], []string{"shop_rw" + strings.Repeat("x", 80)}, "no role"},
		{"administrator without CREATEROLE", secretFile(t, b.DSN("postgres", "nobody", "nobody"), 0o600), nil, "needs CREATEROLE"},
		{"administrator's password wrong", secretFile(t, b.DSN("postgres", "minter", "hunter2"), 0o600), nil, "28P01"},
		{"file that all may read", secretFile(t, su, 0o604), nil, "chmod 600"},
		{"file that the group may write", secretFile(t, su, 0o620), nil, "chmod 600"},
		{"file that isn't there", filepath.Join(t.TempDir(), "none"), nil, "no such file"},
		{"file that is a folder", t.TempDir(), nil, "no regular file"},
		{"empty file", secretFile(t, "", 0o600), nil, "must hold one line"},
		{"two lines", secretFile(t, su+"\n"+su, 0o600), nil, "must hold one line"},
		{"no connection string", secretFile(t, "postgres://minter:hunter2@host:port/", 0o600), nil, "no PostgreSQL connection string"},
		{"encryption left to the network", secretFile(t, prefer, 0o600), nil, "sslmode must be"},
		{"encryption not spoken of", secretFile(t, strings.Replace(su, "?sslmode=disable", "", 1), 0o600), nil, "sslmode must be"},
		{"no administrator", "", nil, "names no administrator"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := issue(t, order(test.admin, test.memberOf...))
			if err == nil {
				t.Fatal("issued")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to say %q", err, test.want)
			}
			if test.admin != "" && !errors.Is(err, credential.ErrNotMade) {
				t.Errorf("%q doesn't say that nothing was made", err)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), b.Password()) {
				t.Errorf("%q holds a password", err)
			}
		})
	}
	var left int
	b.ask(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'chaperone%'", nil, &left)
	if left != 0 {
		t.Errorf("%d roles were left behind", left)
	}
}

func FuzzPlannedNameIsAPlainIdentifier(f *testing.F) {
	for _, s := range []string{"nightly", "", `a"b`, "Ünïcode", strings.Repeat("x", 100), "\x00\xff"} {
		f.Add(s)
	}
	plain := regexp.MustCompile(`^chaperone_[a-z0-9_]{0,44}_[0-9a-f]{8}$`)
	f.Fuzz(func(t *testing.T, job string) {
		o := order("/admin.dsn")
		o.JobName = job
		plan, err := postgresrole.Issuer{}.Plan(o)
		if err != nil {
			t.Fatal(err)
		}
		if name := plan.Account.Name; !plain.MatchString(name) || len(name) > 63 {
			t.Errorf("job %q gives role %q", job, name)
		}
	})
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

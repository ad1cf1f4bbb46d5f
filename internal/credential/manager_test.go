package credential_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresrole"
	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// bench is a server, a ledger and what the managers on it have told.
type bench struct {
	*lab.Postgres
	ledger  string
	admin   string
	issued  chan event.CredentialIssued
	revoked chan event.CredentialRevoked
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{
		ledger: filepath.Join(t.TempDir(), "ledger.db"), admin: filepath.Join(t.TempDir(), "admin.dsn"),
		issued: make(chan event.CredentialIssued, 100), revoked: make(chan event.CredentialRevoked, 100),
	}
	var err error
	if b.Postgres, err = lab.StartPostgres(t.Context(), lab.PostgresOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := b.Exec(t.Context(), "postgres", "CREATE ROLE rw", "CREATE ROLE other", "CREATE ROLE minter LOGIN CREATEROLE PASSWORD 'minter'"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.admin, []byte(b.DSN("postgres", "minter", "minter")), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) options() credential.Options {
	return credential.Options{
		LedgerFile: b.ledger, Node: "n1", Issuers: []credential.Issuer{postgresrole.Issuer{}},
		OnIssued:  func(e event.CredentialIssued) { b.issued <- e },
		OnRevoked: func(e event.CredentialRevoked) { b.revoked <- e },
		Log:       zerolog.Nop(), RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond,
	}
}

// open opens a manager that the test's end closes.
func (b *bench) open(t *testing.T, options credential.Options) *credential.Manager {
	t.Helper()
	m, err := credential.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = m.Close(ctx) // a test that cares closes it itself
	})
	return m
}

func (b *bench) target(memberOf ...string) *policy.Target {
	return &policy.Target{Metadata: policy.Metadata{Name: "db"}, Spec: policy.TargetSpec{
		Credential: policy.CredentialSpec{PostgresRole: &policy.PostgresRoleSpec{
			AdminFrom: policy.SecretSource{File: b.admin}, MemberOf: memberOf,
		}},
	}}
}

func (b *bench) request(job string) credential.Request {
	return credential.Request{Job: job, JobName: "nightly", Principal: policy.Principal{Subject: "ann", Issuer: "idp"}, Target: b.target("rw")}
}

// roles are the minted roles that the server has.
func (b *bench) roles(t *testing.T) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.AdminDSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "SELECT rolname::text FROM pg_roles WHERE rolname ~ '^chaperone_' ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// left is what the ledger holds; no manager has it open.
func (b *bench) left(t *testing.T) []credential.Entry {
	t.Helper()
	ledger, err := credential.OpenLedger(b.ledger)
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	entries, err := ledger.Entries()
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func mustFor(t *testing.T, m *credential.Manager, r credential.Request) *credential.Grant {
	t.Helper()
	g, err := m.For(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// next waits for something to be told; the test's own deadline bounds it.
func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-t.Context().Done():
		t.Fatal("never told")
		panic("not reached")
	}
}

func TestOneGrantPerJobAndTarget(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	const callers = 20
	grants := make([]*credential.Grant, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			g, err := m.For(t.Context(), b.request("j1"))
			if err != nil {
				t.Error(err)
				return
			}
			grants[i] = g
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	fresh := 0
	for _, g := range grants {
		if g.ID != grants[0].ID || g.Name != grants[0].Name || g.Secret.Reveal() != grants[0].Secret.Reveal() {
			t.Errorf("got %v and %v for the same job and target", g, grants[0])
		}
		if !g.Cached {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d of the grants were new", fresh)
	}
	told := next(t, b.issued)
	if told.Grant != grants[0].ID || told.Name != grants[0].Name || told.Issuer != "postgresRole" || told.Target != "db" || told.Job != "j1" {
		t.Errorf("told %+v", told)
	}
	other := mustFor(t, m, b.request("j2"))
	if other.Name == grants[0].Name {
		t.Error("two jobs share a role")
	}
	conn, err := pgx.Connect(t.Context(), b.DSN("postgres", other.Name, other.Secret.Reveal()))
	if err != nil {
		t.Fatalf("the grant doesn't work: %v", err)
	}
	conn.Close(t.Context())

	if err := m.EndJob(t.Context(), "j1", credential.WhyJobEnded); err != nil {
		t.Fatal(err)
	}
	if gone := next(t, b.revoked); gone.Grant != grants[0].ID || gone.Why != "job_ended" || !gone.Verified || gone.Error != "" {
		t.Errorf("told %+v", gone)
	}
	if roles := b.roles(t); len(roles) != 1 || roles[0] != other.Name {
		t.Errorf("the server has %v, want the other job's role", roles)
	}
	if _, err := m.For(t.Context(), b.request("j1")); !errors.Is(err, credential.ErrJobEnded) {
		t.Errorf("an ended job got %v, want ErrJobEnded", err)
	}
	if err := m.EndJob(t.Context(), "j1", credential.WhyJobEnded); err != nil {
		t.Errorf("ending twice: %v", err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if roles, left := b.roles(t), b.left(t); len(roles) != 0 || len(left) != 0 {
		t.Errorf("after Close the server has %v, the ledger %v", roles, left)
	}
	if _, err := m.For(t.Context(), b.request("j3")); !errors.Is(err, credential.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// hold lets nobody make a role until the function it returns is called.
func (b *bench) hold(t *testing.T) (release func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.AdminDSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	for _, s := range []string{"BEGIN", "LOCK TABLE pg_authid IN SHARE MODE"} {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
			t.Error(err)
		}
	}
}

func TestACallerThatGivesUpTakesNobodyWithIt(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	release := b.hold(t)
	hurried, cancel := context.WithCancel(t.Context())
	type result struct {
		grant *credential.Grant
		err   error
	}
	results := make(chan result, 1)
	first := make(chan error, 1)
	go func() { _, err := m.For(hurried, b.request("j1")); first <- err }()
	go func() { g, err := m.For(t.Context(), b.request("j1")); results <- result{g, err} }()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller that gave up got %v", err)
	}
	release()
	if r := next(t, results); r.err != nil {
		t.Errorf("the caller that waited got %v", r.err)
	}
	if roles := b.roles(t); len(roles) != 1 {
		t.Errorf("the server has %v", roles)
	}
}

func TestAJobThatEndsWhileItsRoleIsMade(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	release := b.hold(t)
	waiting := make(chan error, 1)
	go func() { _, err := m.For(t.Context(), b.request("j1")); waiting <- err }()
	// The entry is written before the target is asked. A copy of the ledger
	// shows it, for the file itself is locked.
	for !strings.Contains(b.copyLedger(t), `"job":"j1"`) {
		if t.Context().Err() != nil {
			t.Fatal("no entry was written")
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- m.EndJob(t.Context(), "j1", credential.WhyJobEnded) }()
	if err := next(t, waiting); !errors.Is(err, credential.ErrJobEnded) {
		t.Errorf("the caller got %v, want ErrJobEnded", err)
	}
	release()
	if err := next(t, ended); err != nil {
		t.Error(err)
	}
	if roles := b.roles(t); len(roles) != 0 {
		t.Errorf("the server has %v", roles)
	}
}

func (b *bench) copyLedger(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(b.ledger)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestAFailureIsToldAndNotRemembered(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	bad := b.request("j1")
	bad.Target = b.target("nothere")
	for range 2 {
		if _, err := m.For(t.Context(), bad); err == nil || !strings.Contains(err.Error(), `no role "nothere"`) || !strings.Contains(err.Error(), "target db") {
			t.Fatalf("got %v", err)
		}
	}
	if err := b.Exec(t.Context(), "postgres", "CREATE ROLE nothere"); err != nil {
		t.Fatal(err)
	}
	mustFor(t, m, bad)
	unknown := b.request("j2")
	unknown.Target = &policy.Target{}
	if _, err := m.For(t.Context(), unknown); !errors.Is(err, credential.ErrNoIssuer) {
		t.Errorf("a credential of no kind: %v", err)
	}
	late := b.request("j3")
	late.Principal.Expires = time.Now().Add(-time.Minute)
	if _, err := m.For(t.Context(), late); !errors.Is(err, credential.ErrExpired) {
		t.Errorf("an expired identity: %v", err)
	}
	options := b.options()
	options.LedgerFile, options.MaxGrants = filepath.Join(t.TempDir(), "l"), 1
	small := b.open(t, options)
	mustFor(t, small, b.request("j1"))
	if _, err := small.For(t.Context(), b.request("j2")); !errors.Is(err, credential.ErrTooMany) {
		t.Errorf("over the limit: %v", err)
	}
}

func TestAChangedTargetGetsAnotherRole(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	before := mustFor(t, m, b.request("j1"))
	r := b.request("j1")
	r.Target = b.target("other")
	after := mustFor(t, m, r)
	if after.Name == before.Name || after.Cached {
		t.Errorf("the old role %s goes on, with memberships that the document has no more", before.Name)
	}
	if gone := next(t, b.revoked); gone.Name != before.Name || gone.Why != "target_changed" || !gone.Verified {
		t.Errorf("told %+v", gone)
	}
}

package credential_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresrole"
	"chaperone.dev/chaperone/pkg/policy"
)

func TestAGrantIsRenewedWhileItsJobLives(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	r := b.request("j1")
	r.Target.Spec.Credential.PostgresRole.TTL = policy.Duration(2 * time.Second)
	g := mustFor(t, m, r)
	conn, err := pgx.Connect(t.Context(), b.AdminDSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// It outlives its first end twice over, as the server sees it.
	for {
		var renewed bool
		err := conn.QueryRow(t.Context(), "SELECT rolvaliduntil > $2::timestamptz + interval '4 seconds' FROM pg_roles WHERE rolname = $1",
			g.Name, g.Expires).Scan(&renewed)
		if err != nil {
			t.Fatalf("the role is gone: %v", err)
		}
		if renewed {
			break
		}
	}
	again := mustFor(t, m, r)
	if again.ID != g.ID || !again.Expires.After(g.Expires) {
		t.Errorf("the grant is %+v now, was %+v", again, g)
	}
	login, err := pgx.Connect(t.Context(), b.DSN("postgres", again.Name, again.Secret.Reveal()))
	if err != nil {
		t.Fatalf("the renewed grant doesn't work: %v", err)
	}
	login.Close(t.Context())

	// Somebody else drops it: the next request gets another one.
	if err := b.Exec(t.Context(), "postgres", "DROP ROLE "+g.Name); err != nil {
		t.Fatal(err)
	}
	if gone := next(t, b.revoked); gone.Grant != g.ID || gone.Why != "gone" || !gone.Verified {
		t.Errorf("told %+v", gone)
	}
	if another := mustFor(t, m, r); another.ID == g.ID {
		t.Error("the grant of a dropped role is handed out")
	}
}

func TestAGrantEndsWithTheIdentityBehindIt(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	r := b.request("j1")
	r.Principal.Expires = time.Now().Add(time.Second)
	g := mustFor(t, m, r)
	if g.Expires.After(r.Principal.Expires) {
		t.Errorf("the grant ends at %v, the identity at %v", g.Expires, r.Principal.Expires)
	}
	session, err := pgx.Connect(t.Context(), b.DSN("postgres", g.Name, g.Secret.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(t.Context())
	if gone := next(t, b.revoked); gone.Grant != g.ID || gone.Why != "expired" || !gone.Verified {
		t.Errorf("told %+v", gone)
	}
	if err := session.Ping(t.Context()); err == nil {
		t.Error("a session outlived the identity")
	}
	// A fresh token lets the job go on.
	r.Principal.Expires = time.Now().Add(time.Hour)
	mustFor(t, m, r)
}

func TestATokenRenewedInTimeKeepsTheGrant(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	r := b.request("j1")
	r.Principal.Expires = time.Now().Add(time.Minute)
	g := mustFor(t, m, r)
	r.Principal.Expires = time.Now().Add(time.Hour)
	mustFor(t, m, r)
	for { // the keeper renews it at the target, beyond the first token's end
		again := mustFor(t, m, r)
		if again.ID != g.ID {
			t.Fatal("another role was made")
		}
		if again.Expires.After(g.Expires) {
			break
		}
	}
}

func TestTargetDownAtTheEndOfTheJob(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	g := mustFor(t, m, b.request("j1"))
	if err := b.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.EndJob(t.Context(), "j1", credential.WhyJobEnded); err == nil {
		t.Fatal("the job's end was confirmed while the server was down")
	}
	if told := next(t, b.revoked); told.Grant != g.ID || told.Verified || told.Error == "" || told.Why != "job_ended" {
		t.Errorf("told %+v", told)
	}
	if err := m.EndJob(t.Context(), "j1", credential.WhyJobEnded); err == nil {
		t.Error("asked again, the job's end was confirmed")
	}
	// The next run finds the server still down, and goes on trying.
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := b.left(t); len(left) != 1 || left[0].ID != g.ID || left[0].State != credential.StateRevoking {
		t.Fatalf("the ledger holds %+v", left)
	}
	m = b.open(t, b.options())
	if err := m.Recover(t.Context()); err == nil {
		t.Error("recovered while the server was down")
	}
	if told := next(t, b.revoked); told.Verified {
		t.Errorf("told %+v", told)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told := next(t, b.revoked); told.Grant != g.ID || !told.Verified || told.Why != "job_ended" {
		t.Errorf("told %+v", told)
	}
	if roles := b.roles(t); len(roles) != 0 {
		t.Errorf("the server has %v", roles)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := b.left(t); len(left) != 0 {
		t.Errorf("the ledger holds %+v", left)
	}
}

func TestRecoverFindsACrashAtAnyPoint(t *testing.T) {
	b := newBench(t)
	issuer := postgresrole.Issuer{}
	ledger, err := credential.OpenLedger(b.ledger)
	if err != nil {
		t.Fatal(err)
	}
	write := func(id string, state credential.State) (credential.Entry, credential.Order) {
		order := credential.Order{Grant: id, Job: "j-" + id, JobName: id, Node: "n1", Target: b.target("rw")}
		plan, err := issuer.Plan(order)
		if err != nil {
			t.Fatal(err)
		}
		e := credential.Entry{
			ID: id, Kind: issuer.Kind(), Account: plan.Account, Target: "db", Job: order.Job,
			Created: time.Now(), Expires: time.Now().Add(plan.TTL), State: state,
		}
		if err := ledger.Put(e); err != nil {
			t.Fatal(err)
		}
		return e, order
	}
	make := func(e credential.Entry, order credential.Order) {
		if _, err := issuer.Issue(t.Context(), e, order); err != nil {
			t.Fatal(err)
		}
	}
	write("before-create", credential.StateIssuing)
	make(write("after-create", credential.StateIssuing))
	make(write("issued", credential.StateIssued))
	make(write("revoking", credential.StateRevoking))
	gone, order := write("dropped", credential.StateRevoking)
	make(gone, order)
	if err := issuer.Revoke(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Close(); err != nil {
		t.Fatal(err)
	}
	if len(b.roles(t)) != 3 {
		t.Fatalf("the server has %v, want three roles to begin with", b.roles(t))
	}

	m := b.open(t, b.options())
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if roles := b.roles(t); len(roles) != 0 {
		t.Errorf("the server has %v", roles)
	}
	for range 5 {
		if told := next(t, b.revoked); !told.Verified {
			t.Errorf("told %+v", told)
		}
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := b.left(t); len(left) != 0 {
		t.Errorf("the ledger holds %+v", left)
	}
}

// envChild makes the test binary a daemon that takes a grant and waits to be
// killed: "<ledger> <admin file>".
const envChild = "CHAPERONE_CREDENTIAL_TEST_CHILD"

func TestMain(m *testing.M) {
	if files := os.Getenv(envChild); files != "" {
		os.Exit(child(files))
	}
	os.Exit(m.Run())
}

func child(files string) int {
	ledger, admin, _ := strings.Cut(files, " ")
	b := &bench{ledger: ledger, admin: admin}
	options := b.options()
	options.OnIssued, options.OnRevoked = nil, nil
	m, err := credential.Open(options)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	g, err := m.For(context.Background(), b.request("j1"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(g.Name)
	select {}
}

func TestKilledInTheMiddle(t *testing.T) {
	b := newBench(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envChild+"="+b.ledger+" "+b.admin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	name := strings.TrimSpace(line)
	if err := errors.Join(err, cmd.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if roles := b.roles(t); len(roles) != 1 || roles[0] != name {
		t.Fatalf("the server has %v, the daemon had made %q", roles, name)
	}
	if content := b.copyLedger(t); strings.Contains(content, "SCRAM") || !strings.Contains(content, name) {
		t.Error("the ledger isn't what it should be")
	}
	m := b.open(t, b.options())
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told := next(t, b.revoked); told.Name != name || told.Why != "recovered" || !told.Verified {
		t.Errorf("told %+v", told)
	}
	if roles := b.roles(t); len(roles) != 0 {
		t.Errorf("the server has %v", roles)
	}
}

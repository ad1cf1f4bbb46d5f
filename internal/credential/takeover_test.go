package credential_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/pkg/policy"
)

// Another process goes on with the accounts of jobs that live, and ends those of the others.
func TestInherit(t *testing.T) {
	b := newBench(t)
	first := b.open(t, b.options())
	lives, err := first.For(t.Context(), b.request("lives"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.For(t.Context(), b.request("gone")); err != nil {
		t.Fatal(err)
	}
	if err := first.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := first.For(t.Context(), b.request("late")); !errors.Is(err, credential.ErrSuspended) {
		t.Errorf("issued while suspended: %v", err)
	}

	second := b.open(t, b.options())
	second.Inherit(func(job string) bool { return job == "lives" })
	if err := second.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if roles := b.roles(t); len(roles) != 1 || roles[0] != lives.Name {
		t.Fatalf("roles %v, want that of the living job, %s", roles, lives.Name)
	}
	if jobs := second.InheritedJobs(); len(jobs) != 1 || jobs[0] != "lives" {
		t.Errorf("inherited jobs %v", jobs)
	}
	own, err := second.For(t.Context(), b.request("lives"))
	if err != nil || own.Name == lives.Name || own.Cached {
		t.Fatalf("a new request: %+v, %v", own, err)
	}
	// The first process's end takes nothing away.
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if roles := b.roles(t); len(roles) != 2 {
		t.Fatalf("roles %v, want two", roles)
	}
	if err := second.EndJob(t.Context(), "lives", credential.WhyJobEnded); err != nil {
		t.Fatal(err)
	}
	if roles := b.roles(t); len(roles) != 0 {
		t.Errorf("roles %v after the job's end", roles)
	}
	if len(second.InheritedJobs()) != 0 {
		t.Error("the job is still inherited")
	}
	if err := second.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := b.left(t); len(left) != 0 {
		t.Errorf("the ledger holds %+v", left)
	}
}

// An inherited account is renewed like any other, and ends with its heir.
func TestInheritedIsRenewed(t *testing.T) {
	b := newBench(t)
	request := b.request("lives")
	request.Target.Spec.Credential.PostgresRole.TTL = policy.Duration(2 * time.Second)
	first := b.open(t, b.options())
	grant, err := first.For(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := b.open(t, b.options())
	second.Inherit(func(string) bool { return true })
	if err := second.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), b.AdminDSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for renewed := false; !renewed; {
		err := conn.QueryRow(t.Context(), "SELECT rolvaliduntil > $2::timestamptz + interval '4 seconds' FROM pg_roles WHERE rolname = $1",
			grant.Name, grant.Expires).Scan(&renewed)
		if err != nil {
			t.Fatalf("the role is gone: %v", err)
		}
	}
	if err := second.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if roles := b.roles(t); len(roles) != 0 {
		t.Errorf("roles %v after its heir's end", roles)
	}
}

// When the other process comes to nothing, this one goes on as if nothing had been.
func TestResume(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	before, err := m.For(t.Context(), b.request("lives"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Suspend(t.Context()); err != nil {
			t.Fatal(err)
		}
		// The ledger is free.
		if left := b.left(t); len(left) != 1 {
			t.Fatalf("the ledger holds %+v", left)
		}
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	after, err := m.For(t.Context(), b.request("lives"))
	if err != nil || !after.Cached || after.Name != before.Name || after.Secret.Reveal() != before.Secret.Reveal() {
		t.Errorf("%+v, %v: not the grant of before", after, err)
	}
	if err := m.EndJob(t.Context(), "lives", credential.WhyJobEnded); err != nil {
		t.Fatal(err)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.For(t.Context(), b.request("other")); err != nil {
		t.Fatal(err)
	}
	_ = m.Suspend(ended) // whether it succeeds or not
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if roles := b.roles(t); len(roles) != 0 {
		t.Errorf("roles %v after Close", roles)
	}
}

package credential_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/credential"
)

func TestSomeGrantsAreRevokedAndTheirJobsGoOn(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	locked, free := mustFor(t, m, b.request("j1")), mustFor(t, m, b.request("j2"))
	n, err := m.Revoke(t.Context(), credential.WhyLocked, func(job, _ string) bool { return job == "j1" })
	if n != 1 || err != nil {
		t.Fatalf("revoked %d: %v", n, err)
	}
	if told := next(t, b.revoked); told.Grant != locked.ID || told.Why != "locked" || !told.Verified {
		t.Errorf("told %+v", told)
	}
	if _, err := pgx.Connect(t.Context(), b.DSN("postgres", locked.Name, locked.Secret.Reveal())); err == nil {
		t.Error("a revoked account lets in")
	}
	if again := mustFor(t, m, b.request("j1")); again.ID == locked.ID {
		t.Error("the revoked grant is handed out again")
	}
	if other := mustFor(t, m, b.request("j2")); other.ID != free.ID {
		t.Error("a grant that was not selected is gone")
	}
}

func TestARenewedIdentityProlongsGrantsThatAreInUse(t *testing.T) {
	b := newBench(t)
	m := b.open(t, b.options())
	r := b.request("j1")
	r.Principal.Expires = time.Now().Add(2 * time.Second)
	g := mustFor(t, m, r)
	m.Prolong("j1", time.Now().Add(time.Hour))
	conn, err := pgx.Connect(t.Context(), b.AdminDSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for renewed := false; !renewed; {
		err := conn.QueryRow(t.Context(), "SELECT rolvaliduntil > $2 FROM pg_roles WHERE rolname = $1", g.Name, r.Principal.Expires).Scan(&renewed)
		if errors.Is(err, pgx.ErrNoRows) {
			t.Fatal("the account ended with the first token")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

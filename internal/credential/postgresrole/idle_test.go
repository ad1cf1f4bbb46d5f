package postgresrole_test

import (
	"os"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresadmin"
	"chaperone.dev/chaperone/internal/credential/postgresrole"
)

func mustPlan(t testing.TB, o credential.Order) credential.Entry {
	t.Helper()
	plan, err := postgresrole.Issuer{}.Plan(o)
	if err != nil {
		t.Fatal(err)
	}
	return credential.Entry{ID: o.Grant, Account: plan.Account, Expires: time.Now().Add(plan.TTL)}
}

func TestTheAdministratorsConnectionIsKeptForTheNextRole(t *testing.T) {
	b := newBench(t)
	idle := &postgresadmin.Idle{}
	defer idle.Close()
	issuer := postgresrole.Issuer{Idle: idle}
	o := order(b.admins["createrole"], "shop_rw")
	process := func() (pid int) {
		b.ask(t, "postgres", "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE usename = 'minter'", nil, &pid)
		return pid
	}
	issue := func() {
		t.Helper()
		entry := mustPlan(t, o)
		if _, err := issuer.Issue(t.Context(), entry, o); err != nil {
			t.Fatal(err)
		}
		if !b.roleExists(t, entry.Account.Name) {
			t.Fatal("there is no role")
		}
	}
	issue()
	first := process()
	issue()
	if second := process(); first == 0 || second != first {
		t.Errorf("the second role was made by process %d, the first by %d", second, first)
	}
	// A refusal leaves it usable, a server that drops it doesn't fail a job.
	bad := order(b.admins["createrole"], "no_such_role")
	if _, err := issuer.Issue(t.Context(), mustPlan(t, bad), bad); err == nil {
		t.Error("a role of no group was made")
	}
	issue()
	if pid := process(); pid != first {
		t.Errorf("after a refusal the connection is %d's", pid)
	}
	b.exec(t, "postgres", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'minter'")
	issue()
	// With another connection string another connection is opened.
	before := process()
	if err := os.WriteFile(b.admins["createrole"], []byte(b.DSN("shop", "minter", "minter")), 0o600); err != nil {
		t.Fatal(err)
	}
	issue()
	if pid := process(); pid == before {
		t.Error("a connection by the connection string of before was used")
	}
	idle.Close()
	for process() != 0 { // it says goodbye, and its process takes a moment
	}
	issue()
	for process() != 0 {
	}
}

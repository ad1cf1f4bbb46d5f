package postgresrole_test

import (
	"testing"

	"chaperone.dev/chaperone/internal/credential/postgresadmin"
	"chaperone.dev/chaperone/internal/credential/postgresrole"
)

// What a job's first connection waits for.
func BenchmarkIssue(b *testing.B) {
	server := newBench(b)
	o := order(server.admins["createrole"], "shop_rw")
	for b.Loop() {
		entry, _ := mustIssue(b, o)
		b.StopTimer()
		if err := (postgresrole.Issuer{}).Revoke(b.Context(), entry); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// What the end of a job takes that left nothing behind.
func BenchmarkRevoke(b *testing.B) {
	server := newBench(b)
	o := order(server.admins["createrole"], "shop_rw")
	for b.Loop() {
		b.StopTimer()
		entry, _ := mustIssue(b, o)
		b.StartTimer()
		if err := (postgresrole.Issuer{}).Revoke(b.Context(), entry); err != nil {
			b.Fatal(err)
		}
	}
}

// The same where another job's came shortly before.
func BenchmarkIssueOverAnIdleConnection(b *testing.B) {
	server := newBench(b)
	o := order(server.admins["createrole"], "shop_rw")
	idle := &postgresadmin.Idle{}
	defer idle.Close()
	issuer := postgresrole.Issuer{Idle: idle}
	for b.Loop() {
		entry := mustPlan(b, o)
		if _, err := issuer.Issue(b.Context(), entry, o); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := issuer.Revoke(b.Context(), entry); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

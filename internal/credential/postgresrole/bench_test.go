package postgresrole_test

import (
	"testing"

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

package policy_test

import (
	"testing"
	"time"

	"chaperone.dev/chaperone/pkg/policy"
)

const fiveRules = `
apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: orders-db}
spec:
  protocol: postgres
  hosts: ["orders.db.example:5432"]
  credential: {postgresRole: {adminFrom: {file: /etc/chaperone/orders.dsn}}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: orders}
spec:
  principals: {groups: [planners]}
  targets: [orders-db]
  rules:
    - {name: no-ddl, when: "statement.ddl", then: deny, message: "schema changes go through migrations"}
    - {name: one-at-a-time, when: "statement.multi", then: deny}
    - {name: no-salaries, when: "statement.tables.exists(t, t.endsWith('salaries'))", then: deny}
    - {name: write-with-where, when: "statement.kind in ['UPDATE', 'DELETE'] && statement.hasWhere", then: allow}
    - {name: read, when: "statement.readOnly", then: allow}
`

func BenchmarkStatement(b *testing.B) {
	set, err := policy.Parse("bench.yaml", []byte(fiveRules))
	if err != nil {
		b.Fatal(err)
	}
	bound := set.Bind(policy.Principal{Subject: "nightly", Issuer: policy.LocalIssuer, Groups: []string{"planners"}},
		policy.WorkloadFacts{Name: "nightly"}, policy.TargetFacts{Name: "orders-db", Protocol: "postgres"})
	st := &policy.Statement{
		Text: "SELECT id, total FROM orders o JOIN customers c USING (customer) WHERE o.id = $1",
		Kind: "SELECT", ReadOnly: true, HasWhere: true, Tables: []string{"orders", "customers"},
	}
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		if d := bound.Statement(now, policy.SessionFacts{}, st); d.Action != policy.Allow || !d.Lasting {
			b.Fatalf("%+v", d)
		}
	}
}

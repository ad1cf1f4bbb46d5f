package policy_test

import (
	"fmt"
	"strings"
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

// Decisions of a set with 1,000 policies: one of them applies, or all do, each
// with the same condition, with one that a look-up finds, or with one of its own
// that must be asked.
func BenchmarkDecide1000Policies(b *testing.B) {
	const many = 1000
	same := func(int) string { return "statement.readOnly && !statement.multi" }
	for _, bench := range []struct {
		name, group string
		when        func(i int) string
	}{
		{"one-applies", "team-%d", same},
		{"all-apply/alike", "planners", same},
		{"all-apply/by-table", "planners", func(i int) string {
			return fmt.Sprintf("statement.readOnly && 'public.table_%d' in statement.tables", i)
		}},
		{"all-apply/by-prefix", "planners", func(i int) string {
			return fmt.Sprintf("statement.kind != 'COPY' && !statement.ddl && statement.text.startsWith('SELECT %d ')", i)
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			documents := []string{aTarget}
			for i := range many {
				text := rules(fmt.Sprintf("p%d", i), "r: allow: "+bench.when(i))
				if bench.group != "planners" {
					text = strings.Replace(text, "planners", fmt.Sprintf(bench.group, i), 1)
				}
				documents = append(documents, text)
			}
			who := policy.Principal{Subject: "nightly", Issuer: "corp-idp", Groups: []string{"planners", "team-500"}}
			bound := mustParse(b, documents...).Bind(who, policy.WorkloadFacts{Name: "job"}, orders)
			st := &policy.Statement{Text: "SELECT 999 ", Kind: "SELECT", ReadOnly: true, Tables: []string{"public.table_7", "public.table_999"}}
			b.ReportAllocs()
			for b.Loop() {
				if d := bound.Statement(noon, policy.SessionFacts{}, st); d.Action != policy.Allow {
					b.Fatalf("%+v", d)
				}
			}
		})
	}
}

package policy_test

import (
	"fmt"
	"time"

	"chaperone.dev/chaperone/pkg/policy"
)

func ExampleSet_Bind() {
	set, err := policy.Load("../../policies/postgres-readonly")
	if err != nil {
		fmt.Println(err)
		return
	}
	bound := set.Bind(
		policy.Principal{Subject: "report-builder", Issuer: "corp-idp", Groups: []string{"planners"}},
		policy.WorkloadFacts{Name: "report-7"},
		policy.TargetFacts{Name: "reporting-db", Protocol: "postgres"},
	)
	now := time.Now()
	fmt.Println(bound.Open(now).Action)
	for _, st := range []*policy.Statement{
		{Kind: "SELECT", ReadOnly: true, Tables: []string{"sales"}},
		{Kind: "SELECT", ReadOnly: true, Tables: []string{"hr.payroll"}},
		{Kind: "DELETE", Tables: []string{"sales"}},
	} {
		d := bound.Statement(now, policy.SessionFacts{Age: time.Minute}, st)
		fmt.Println(st.Kind, st.Tables, d.Action, d.Rule)
	}
	// Output:
	// allow
	// SELECT [sales] allow read
	// SELECT [hr.payroll] deny no-payroll
	// DELETE [sales] deny
}

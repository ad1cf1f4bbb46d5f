// Package policies_test holds the worked examples to their cases.
package policies_test

import (
	"os"
	"slices"
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

// parse reads SQL as the daemon does.
func parse() func(string) ([]policy.Statement, error) {
	parser := pgsql.NewParser(pgsql.Options{})
	return func(sql string) ([]policy.Statement, error) {
		query, err := parser.Parse(sql)
		if err != nil {
			return nil, err
		}
		facts := make([]policy.Statement, len(query.Statements))
		for i, s := range query.Statements {
			facts[i] = s.Facts(sql)
		}
		return facts, nil
	}
}

// Every folder's cases hold, each rule is shown at work by one of them, and
// each action that the folder's rules can come to.
func TestExamples(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !e.IsDir() })
	if len(entries) < 7 {
		t.Fatalf("there are only %d examples", len(entries))
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) { checkExample(t, e.Name()) })
	}
}

func checkExample(t *testing.T, dir string) {
	set, err := policy.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	results, err := policy.RunTests(dir, parse())
	if err != nil {
		t.Fatal(err)
	}
	if len(results) == 0 {
		t.Fatal("there are no cases")
	}
	shown, actions := map[string]bool{}, map[policy.Action]bool{policy.Deny: false}
	for _, r := range results {
		actions[r.Got.Action] = true
		shown[r.Got.Policy+"/"+r.Got.Rule] = true
		for _, n := range r.Got.Approvals {
			shown[n.Policy+"/"+n.Rule] = true
		}
		for _, s := range r.Got.Shadows {
			shown[s.Policy+"/"+s.Rule] = true
		}
		if !r.Passed {
			t.Errorf("%s:%d: %s: want %s %s %v, got %s by %s/%s: %s, approvals %v, shadows %v", r.File, r.Line, r.Name, r.Want, r.WantRule, r.WantShadows,
				r.Got.Action, r.Got.Policy, r.Got.Rule, r.Got.Message, r.Got.Approvals, r.Got.Shadows)
		}
	}
	for _, p := range set.Policies {
		for _, r := range p.Spec.Rules {
			if !shown[p.Metadata.Name+"/"+r.Name] {
				t.Errorf("no case shows rule %s of policy %s", r.Name, p.Metadata.Name)
			}
			if p.Spec.Enforce == policy.EnforceOn && !actions[r.Then] {
				t.Errorf("no case comes to %s", r.Then)
				actions[r.Then] = true
			}
		}
	}
}

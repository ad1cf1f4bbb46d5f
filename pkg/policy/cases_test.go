package policy_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
	"github.com/google/go-cmp/cmp"
)

// parser reads SQL as the daemon does.
func parser() func(string) ([]policy.Statement, error) {
	p := pgsql.NewParser(pgsql.Options{})
	return func(sql string) ([]policy.Statement, error) {
		q, err := p.Parse(sql)
		if err != nil {
			return nil, err
		}
		facts := make([]policy.Statement, len(q.Statements))
		for i, s := range q.Statements {
			facts[i] = s.Facts(sql)
			facts[i].Multi = len(q.Statements) > 1
		}
		return facts, nil
	}
}

// The worked examples do what their cases say, and each rule of theirs is
// shown at work by one.
func TestExamples(t *testing.T) {
	found, err := filepath.Glob("../../policies/*/policy.yaml")
	if err != nil || len(found) < 2 {
		t.Fatalf("found %d examples, %v", len(found), err)
	}
	for _, document := range found {
		folder := filepath.Dir(document)
		t.Run(filepath.Base(folder), func(t *testing.T) {
			results, err := policy.RunTests(folder, parser())
			if err != nil {
				t.Fatal(err)
			}
			shown := map[string]bool{}
			for _, r := range results {
				shown[r.Got.Policy+"/"+r.Got.Rule] = true
				if !r.Passed {
					t.Errorf("%s:%d: %s: want %s %s, got %+v", r.File, r.Line, r.Name, r.Want, r.WantRule, r.Got)
				}
			}
			set, err := policy.Load(folder)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range set.Policies {
				for _, r := range p.Spec.Rules {
					if !shown[p.Metadata.Name+"/"+r.Name] {
						t.Errorf("no case is decided by rule %s", r.Name)
					}
				}
			}
		})
	}
}

func writeFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRunTestsTellsFailures(t *testing.T) {
	dir := writeFolder(t, map[string]string{
		"all.yaml": stream(aTarget, aProvider, rules("p", "read: allow: statement.readOnly && principal.claims.team == 'a' && session.rows < 5 && workload.uid == 7")),
		"a_test.yaml": `
as: {subject: x, issuer: corp-idp, groups: [planners], claims: {team: a}}
target: orders-db
workload: {uid: 7}
cases:
  - {statement: {kind: SELECT, readOnly: true}, expect: allow, rule: read}
  - {name: by no rule, statement: {kind: DELETE}, expect: deny, rule: read}
  - {sql: "SELECT 1", expect: allow, as: {subject: x, issuer: corp-idp, groups: [planners], claims: {team: b}}}
  - {sql: "SELECT 1", expect: allow, session: {rows: 5}}
  - {sql: "SELECT", expect: allow}
  - {sql: "SELEC", expect: deny}
`})
	results, err := policy.RunTests(dir, parser())
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		Name   string
		Line   int
		Passed bool
	}
	var got []outcome
	for _, r := range results {
		got = append(got, outcome{r.Name, r.Line, r.Passed})
	}
	want := []outcome{
		{"SELECT", 6, true}, {"by no rule", 7, false}, {"SELECT 1", 8, false}, {"SELECT 1", 9, false}, {"SELECT", 10, true}, {"SELEC", 11, true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}

func TestRunTestsOfEachKind(t *testing.T) {
	dir := writeFolder(t, map[string]string{
		"all.yaml": stream(aTarget, anSSHTarget, aKubeTarget, aProvider, everything,
			approving("p", "on", "write: approve: statement.kind == 'DELETE'", "late: approve: now.getHours() > 20"), approving("sh", "shadow", "no: deny: statement.kind == 'SELECT'")),
		"a_test.yaml": `
as: {subject: x, issuer: corp-idp, groups: [planners]}
target: orders-db
cases:
  - {sql: "DELETE FROM a", expect: approve, rule: write}
  - {name: the second approval, sql: "DELETE FROM a", expect: approve, rule: late, now: "2026-07-06T21:00:00Z"}
  - {name: a session, expect: approve, rule: late, now: "2026-07-06T21:00:00Z"}
  - {name: a session of that, sql: "SELECT 1", expect: approve, rule: late, now: "2026-07-06T21:00:00Z"}
  - {name: no approval, sql: "DELETE FROM a", expect: allow}
  - {name: shadow, sql: "SELECT 1", expect: allow, shadow: [sh/no]}
  - {name: no shadow, sql: "SELECT 1", expect: allow, shadow: []}
  - {name: one of two, sql: "SELECT 1; DELETE FROM a", expect: approve, rule: write, shadow: [sh/no]}
  - {target: build-host, file: {op: read, path: /srv/a, size: 1}, expect: allow, rule: files}
  - {target: build-host, command: {text: sh, program: sh, interactive: true}, expect: deny, rule: shells}
  - {target: cluster, workload: {image: "registry.example/x"}, request: {verb: get, group: apps, version: v1, resource: deployments, namespace: shop, name: web}, expect: allow, rule: requests}
`})
	results, err := policy.RunTests(dir, parser())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, r := range results {
		got[r.Name] = r.Passed
	}
	want := map[string]bool{
		"DELETE FROM a": true, "the second approval": true, "a session": true, "a session of that": true, "no approval": false, "shadow": true, "no shadow": false, "one of two": true,
		`read of "/srv/a"`: true, `the command "sh"`: true, `get "deployments"`: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("passed (-want +got):\n%s", diff)
	}
}

func TestRunTestsRefusesBadCases(t *testing.T) {
	dir := writeFolder(t, map[string]string{
		"all.yaml": stream(aTarget, aPolicy),
		"a_test.yaml": `cases:
  - {expect: maybe, target: other}
  - {as: {subject: x, issuer: corp}, target: orders-db, expect: allow, now: noon, sql: a, statement: {}}
  - {as: {subject: x, issuer: local}, target: orders-db, expect: allow, command: {program: ls}}
`,
		"b_test.yaml": "as: {}\n",
		"c_test.yaml": "cases: [{sqll: x}]\n",
		"d_test.yaml": "a: [",
	})
	_, err := policy.RunTests(dir, parser())
	var all policy.Errors
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	want := []string{
		dir + `/a_test.yaml:2: cases[0].as: is missing; it is {subject: …, issuer: …, groups: […]}, here or for all cases`,
		dir + `/a_test.yaml:2: cases[0].target: no Target document is named "other"`,
		dir + `/a_test.yaml:2: cases[0].expect: must be allow, approve or deny`,
		dir + `/a_test.yaml:3: cases[1].as.issuer: no IdentityProvider document is named "corp"`,
		dir + `/a_test.yaml:3: cases[1].statement: has no place beside sql; only one of them may be set`,
		dir + `/a_test.yaml:3: cases[1].now: must be a time such as "2026-07-06T12:00:00Z"`,
		dir + `/a_test.yaml:4: cases[2].command: is for ssh targets; "orders-db" speaks postgres`,
		dir + `/b_test.yaml:1: cases: is missing; it is a list of cases`,
		dir + `/c_test.yaml:1: cases[0].sqll: unknown field; known here are as, command, expect, file, name, now, request, rule, session, shadow, sql, statement, target, workload`,
		dir + `/d_test.yaml:1: is no valid YAML: did not find expected node content`,
	}
	if diff := cmp.Diff(want, policy.Messages(err)); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

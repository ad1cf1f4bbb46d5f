package policy_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/pkg/policy"
	"github.com/google/go-cmp/cmp"
)

var (
	planner = policy.Principal{Subject: "nightly@jobs.example", Issuer: "corp-idp", Groups: []string{"staff", "planners"}}
	job     = policy.WorkloadFacts{Name: "nightly-7", Node: "n1", Executable: "/usr/bin/psql", UID: 1000}
	orders  = policy.TargetFacts{Name: "orders-db", Protocol: "postgres", Host: "orders.db.example", Port: 5432, Labels: map[string]string{"tier": "prod"}}
	noon    = time.Date(2026, 7, 6, 12, 0, 0, 0, time.UTC) // a Monday
)

// rules makes a policy document of one-line rules "name: then: when".
func rules(name string, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: Policy\nmetadata: {name: %s}\nspec:\n  principals: {groups: [planners]}\n  targets: [orders-db]\n  rules:\n", policy.APIVersion, name)
	for _, line := range lines {
		part := strings.SplitN(line, ": ", 3)
		fmt.Fprintf(&b, "    - {name: %s, then: %s, when: %q}\n", part[0], part[1], part[2])
	}
	return b.String()
}

func TestStatement(t *testing.T) {
	read := &policy.Statement{Text: "SELECT 1", Kind: "SELECT", ReadOnly: true, Tables: []string{"public.orders"}}
	drop := &policy.Statement{Text: "DROP TABLE orders", Kind: "DROP TABLE", DDL: true, Tables: []string{"orders"}}
	tests := []struct {
		name  string
		rules []string
		st    *policy.Statement
		sess  policy.SessionFacts
		want  policy.Decision
	}{
		{"an allow matches", []string{"read: allow: statement.readOnly"}, read, policy.SessionFacts{},
			policy.Decision{Action: policy.Allow, Policy: "p", Rule: "read", Lasting: true}},
		{"nothing matches", []string{"read: allow: statement.readOnly"}, drop, policy.SessionFacts{},
			policy.Decision{Action: policy.Deny, Message: `no rule allows DROP TABLE for "nightly@jobs.example@corp-idp" at target "orders-db"`, Lasting: true}},
		{"deny wins from behind", []string{"all: allow: true", "no-ddl: deny: statement.ddl"}, drop, policy.SessionFacts{},
			policy.Decision{Action: policy.Deny, Policy: "p", Rule: "no-ddl", Message: `denied by rule "no-ddl" of policy "p"`, Lasting: true}},
		{"the first allow is named", []string{"a: allow: true", "b: allow: true"}, read, policy.SessionFacts{},
			policy.Decision{Action: policy.Allow, Policy: "p", Rule: "a", Lasting: true}},
		{"an allow rule that fails denies", []string{"all: allow: true", "broken: allow: principal.claims.team == 'x'"}, read, policy.SessionFacts{},
			policy.Decision{Action: policy.Deny, Policy: "p", Rule: "broken", Message: `rule "broken" of policy "p" could not be evaluated, so it denies`, Lasting: true}},
		{"an error that doesn't matter", []string{"all: allow: true || principal.claims.team == 'x'"}, read, policy.SessionFacts{},
			policy.Decision{Action: policy.Allow, Policy: "p", Rule: "all", Lasting: true}},
		{"the time doesn't last", []string{"read: allow: statement.readOnly", "night: deny: now.getHours() < 7"}, read, policy.SessionFacts{},
			policy.Decision{Action: policy.Allow, Policy: "p", Rule: "read"}},
		{"a deny lasts if its rule does", []string{"night: deny: now.getHours() < 7", "none: deny: true"}, read, policy.SessionFacts{},
			policy.Decision{Action: policy.Deny, Policy: "p", Rule: "none", Message: `denied by rule "none" of policy "p"`, Lasting: true}},
		{"the text doesn't last", []string{"read: allow: !statement.text.contains('secret')"}, read, policy.SessionFacts{},
			policy.Decision{Action: policy.Allow, Policy: "p", Rule: "read"}},
		{"a statement without its type may be its text", []string{"read: allow: dyn(statement).text == 'SELECT 1'"}, read, policy.SessionFacts{},
			policy.Decision{Action: policy.Allow, Policy: "p", Rule: "read"}},
		{"the session's counters", []string{"read: allow: session.rows < 10 && session.commands < 3 && session.age < duration('1h')"}, read,
			policy.SessionFacts{Age: time.Minute, Rows: 9, Commands: 2}, policy.Decision{Action: policy.Allow, Policy: "p", Rule: "read"}},
		{"a time zone", []string{"berlin: allow: now.getHours('Europe/Berlin') == 14 && now.getHours('-02:30') == 9 && now.getDayOfWeek('UTC') == 1 && now.getMonth('UTC') == 6 && now.getDate('UTC') == 6"}, read,
			policy.SessionFacts{}, policy.Decision{Action: policy.Allow, Policy: "p", Rule: "berlin"}},
		{"every fact of workload and target", []string{
			"all: allow: workload.name == 'nightly-7' && workload.node == 'n1' && workload.executable.endsWith('psql') && workload.uid == 1000" +
				" && target.name == 'orders-db' && target.protocol == 'postgres' && target.host.startsWith('orders') && target.port == 5432 && target.labels.tier == 'prod'" +
				" && principal.subject == 'nightly@jobs.example' && principal.issuer == 'corp-idp' && 'planners' in principal.groups && !has(principal.claims.team)"},
			read, policy.SessionFacts{}, policy.Decision{Action: policy.Allow, Policy: "p", Rule: "all", Lasting: true}},
		{"every fact of a statement", []string{
			"all: allow: statement.kind == 'SELECT' && statement.readOnly && !statement.ddl && statement.tables.all(t, t.startsWith('public.'))" +
				" && size(statement.columns) == 0 && statement.functions == [] && !statement.hasWhere && !statement.multi && statement == statement"},
			read, policy.SessionFacts{}, policy.Decision{Action: policy.Allow, Policy: "p", Rule: "all"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bound := mustParse(t, aTarget, rules("p", test.rules...)).Bind(planner, job, orders)
			got := bound.Statement(noon, test.sess, test.st)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
			explained, results := bound.Explain(noon, test.sess, test.st)
			if diff := cmp.Diff(got, explained); diff != "" {
				t.Errorf("explained otherwise (-decided +explained):\n%s", diff)
			}
			decided := ""
			for _, r := range results {
				if !r.Applies || !r.Asked {
					t.Errorf("rule %s was not asked", r.Rule)
				}
				if r.Decided {
					decided += r.Rule
				}
			}
			if decided != got.Rule {
				t.Errorf("explained as decided by %q", decided)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	claims := planner
	claims.Claims = map[string]any{"team": "x", "level": 3.0, "tags": []any{"a", map[string]any{"b": nil}}}
	expired := planner
	expired.Expires = noon
	stranger := policy.Principal{Subject: "eve", Issuer: "corp-idp"}
	tests := []struct {
		name    string
		rules   []string
		who     policy.Principal
		target  string
		allowed bool
		message string
	}{
		{"a policy applies", []string{"read: allow: statement.readOnly"}, planner, "orders-db", true, ""},
		{"rules about statements wait for one", []string{"all: allow: true", "all-ddl: deny: statement.ddl || true"}, planner, "orders-db", true, ""},
		{"an allow rule that is false now may be true later", []string{"all: allow: now.getHours() > 20"}, planner, "orders-db", true, ""},
		{"a deny rule fires", []string{"all: allow: true", "noon: deny: now.getHours() == 12"}, planner, "orders-db", false, `denied by rule "noon" of policy "p"`},
		{"a deny rule fails", []string{"all: allow: true", "team: deny: principal.claims.team == 'x'"}, planner, "orders-db", false, `rule "team" of policy "p" could not be evaluated, so it denies`},
		{"claims", []string{"all: allow: true", "team: deny: principal.claims.team != 'x' || principal.claims.level < 3 || principal.claims.tags[1].b != null"}, claims, "orders-db", true, ""},
		{"nothing is ever allowed", []string{"none: deny: statement.ddl"}, planner, "orders-db", false, `no policy lets "nightly@jobs.example@corp-idp" open a session to target "orders-db"`},
		{"another principal", []string{"all: allow: true"}, stranger, "orders-db", false, `no policy lets "eve@corp-idp" open a session to target "orders-db"`},
		{"another target", []string{"all: allow: true"}, planner, "hr-db", false, `no policy lets "nightly@jobs.example@corp-idp" open a session to target "hr-db"`},
		{"no target", []string{"all: allow: true"}, planner, "", false, `no policy lets "nightly@jobs.example@corp-idp" open a session to target ""`},
		{"nobody", []string{"all: allow: true"}, policy.Principal{Groups: []string{"planners"}}, "orders-db", false, `no policy lets nobody (no identity was proved) open a session to target "orders-db"`},
		{"an expired identity", []string{"all: allow: true"}, expired, "orders-db", false, `the identity of "nightly@jobs.example@corp-idp" expired at 2026-07-06T12:00:00Z`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bound := mustParse(t, aTarget, rules("p", test.rules...)).Bind(test.who, job, policy.TargetFacts{Name: test.target})
			got := bound.Open(noon)
			if (got.Action == policy.Allow) != test.allowed || got.Message != test.message {
				t.Errorf("got %+v", got)
			}
			if explained, _ := bound.Explain(noon, policy.SessionFacts{}, nil); !cmp.Equal(explained, got) {
				t.Errorf("explained as %+v", explained)
			}
			if !test.allowed && !strings.HasPrefix(test.name, "a deny") && !strings.HasPrefix(test.name, "nothing") {
				if d := bound.Statement(noon, policy.SessionFacts{}, &policy.Statement{}); d.Action != policy.Deny {
					t.Errorf("a statement is decided as %+v", d)
				}
			}
		})
	}
	if d := new(policy.Set).Bind(planner, job, orders).Open(noon); d.Action != policy.Deny {
		t.Errorf("a set of nothing decides %+v", d)
	}
	if d := mustParse(t, aTarget, aPolicy).Bind(planner, job, orders).Statement(noon, policy.SessionFacts{}, nil); d.Action != policy.Deny {
		t.Errorf("no statement is decided as %+v", d)
	}
}

func TestPoliciesTogether(t *testing.T) {
	tight := strings.Replace(rules("a", "all: allow: true"), "  rules:", "  session: {maxDuration: 1h, maxRows: 500, maxBytes: 2MiB, maxSessions: 3, maxCommandDuration: 1m, record: strict}\n  rules:", 1)
	loose := strings.Replace(rules("b", "none: deny: statement.multi"), "  rules:", "  session: {maxDuration: 30m, maxBytes: 1MiB, maxSessions: 3, maxCommandDuration: 2m}\n  rules:", 1)
	other := strings.Replace(rules("c", "none: deny: true"), "[planners]", "[dba]", 1)
	elsewhere := strings.Replace(rules("d", "none: deny: true"), "[orders-db]", "[hr-db]", 1)
	hr := strings.NewReplacer("orders-db", "hr-db", "orders.db", "hr.db", "10.20", "10.21", "db8::1", "db8::2").Replace(aTarget)
	bound := mustParse(t, elsewhere, hr, other, loose, tight, aTarget).Bind(planner, job, orders)
	want := policy.SessionSpec{
		MaxDuration: policy.Duration(30 * time.Minute), MaxRows: 500, MaxBytes: 1 << 20, MaxSessions: 3,
		MaxCommandDuration: policy.Duration(time.Minute), Record: policy.RecordStrict,
	}
	if got := bound.Session(); got != want {
		t.Errorf("the session's bounds are %+v", got)
	}
	for of, field := range map[string]func(policy.SessionSpec) any{
		"b maxDuration": func(s policy.SessionSpec) any { return s.MaxDuration },
		"b maxBytes":    func(s policy.SessionSpec) any { return s.MaxBytes },
		"a maxRows":     func(s policy.SessionSpec) any { return s.MaxRows },
		"a maxSessions": func(s policy.SessionSpec) any { return s.MaxSessions },
	} {
		if by := bound.BoundBy(field); !strings.HasPrefix(of, by+" ") {
			t.Errorf("%s is said to be by policy %q", of, by)
		}
	}
	if d := bound.Statement(noon, policy.SessionFacts{}, &policy.Statement{Multi: true}); d.Action != policy.Deny || d.Policy != "b" {
		t.Errorf("got %+v", d)
	}
	_, results := bound.Explain(noon, policy.SessionFacts{}, &policy.Statement{})
	var told []string
	for _, r := range results {
		told = append(told, fmt.Sprintf("%s/%s applies=%t matched=%t decided=%t %s", r.Policy, r.Rule, r.Applies, r.Matched, r.Decided, r.Why))
	}
	wantTold := []string{
		"a/all applies=true matched=true decided=true ",
		"b/none applies=true matched=false decided=false ",
		"c/none applies=false matched=false decided=false the policy is for other principals",
		"d/none applies=false matched=false decided=false the policy is for other targets",
	}
	if strings.Join(told, "\n") != strings.Join(wantTold, "\n") {
		t.Errorf("explained as\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(wantTold, "\n"))
	}
}

// An expression whose cost grows with what a client sends is cut off.
func TestEvaluationIsBounded(t *testing.T) {
	tables := make([]string, 5000)
	for i := range tables {
		tables[i] = fmt.Sprintf("public.t%d", i)
	}
	st := &policy.Statement{Kind: "SELECT", Text: strings.Repeat("x", 4<<20), Tables: tables}
	for _, when := range []string{
		"statement.tables.all(a, statement.tables.exists(b, a == b))",
		"statement.text.matches('(a|b|x)*(x|a|b)*y')",
		"statement.tables.all(a, (statement.text + statement.text).size() > 0)",
	} {
		bound := mustParse(t, aTarget, rules("p", "slow: allow: "+when)).Bind(planner, job, orders)
		d, results := bound.Explain(noon, policy.SessionFacts{}, st)
		if d.Action != policy.Deny || results[0].Err == nil || !strings.Contains(results[0].Err.Error(), "cost limit") {
			t.Errorf("%s is decided as %+v, %v", when, d, results[0].Err)
		}
	}
}

func TestPrincipalSelect(t *testing.T) {
	local := policy.Principal{Subject: "alice", Issuer: policy.LocalIssuer, Groups: []string{"users"}}
	tests := []struct {
		sel  policy.PrincipalSelect
		who  policy.Principal
		want bool
	}{
		{policy.PrincipalSelect{}, planner, false},
		{policy.PrincipalSelect{Groups: []string{"x", "planners"}}, planner, true},
		{policy.PrincipalSelect{Groups: []string{"planner"}}, planner, false},
		{policy.PrincipalSelect{Subjects: []string{"nightly@jobs.example@corp-idp"}}, planner, true},
		{policy.PrincipalSelect{Subjects: []string{"nightly@jobs.example@other"}}, planner, false},
		{policy.PrincipalSelect{Subjects: []string{"nightly@jobs.example"}}, planner, false},
		{policy.PrincipalSelect{Subjects: []string{"*@corp-idp"}}, planner, true},
		{policy.PrincipalSelect{Subjects: []string{"*@corp-idp"}}, local, false},
		{policy.PrincipalSelect{Subjects: []string{"alice@local"}}, local, true},
		{policy.PrincipalSelect{Subjects: []string{"alice@corp-idp"}}, local, false},
		{policy.PrincipalSelect{Subjects: []string{"*"}}, local, true},
		{policy.PrincipalSelect{Subjects: []string{"*"}}, policy.Principal{Issuer: "corp-idp"}, false},
		{policy.PrincipalSelect{Subjects: []string{"*"}}, policy.Principal{Subject: "x"}, false},
		{policy.PrincipalSelect{Subjects: []string{"al*@local"}}, local, false},
	}
	for _, test := range tests {
		if got := test.sel.Matches(test.who); got != test.want {
			t.Errorf("%+v matches %s@%s: %t", test.sel, test.who.Subject, test.who.Issuer, got)
		}
	}
}

// Sessions of one job share what was bound for it.
func TestBoundIsShared(t *testing.T) {
	bound := mustParse(t, aTarget, rules("p",
		"read: allow: statement.tables.all(t, t.matches('^public[.]')) && now.getHours('Europe/Berlin') == 14",
		"many: deny: size(statement.tables) > 3",
	)).Bind(planner, job, orders)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			st := &policy.Statement{Kind: "SELECT"}
			for n := range i {
				st.Tables = append(st.Tables, fmt.Sprintf("public.t%d", n))
			}
			want := policy.Allow
			if i > 3 {
				want = policy.Deny
			}
			for range 50 {
				if d := bound.Statement(noon, policy.SessionFacts{}, st); d.Action != want {
					t.Errorf("%d tables are decided as %+v", i, d)
				}
			}
		})
	}
	wg.Wait()
}

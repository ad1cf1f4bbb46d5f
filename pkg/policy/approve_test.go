package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/pkg/policy"
	"github.com/google/go-cmp/cmp"
)

// approving makes a policy of rules as [rules] does; an approve rule asks the
// group dba, with what stands behind a last " | " in its approval.
func approving(name, enforce string, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: Policy\nmetadata: {name: %s}\nspec:\n  principals: {groups: [planners]}\n  targets: [\"*\"]\n  enforce: %s\n  rules:\n", policy.APIVersion, name, enforce)
	for _, line := range lines {
		part := strings.SplitN(line, ": ", 3)
		when, more, _ := strings.Cut(part[2], " | ")
		fmt.Fprintf(&b, "    - {name: %s, then: %s, when: %q", part[0], part[1], when)
		if part[1] == "approve" {
			fmt.Fprintf(&b, ", message: why %s, approval: {from: {groups: [dba]}%s}", part[0], more)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func TestApprove(t *testing.T) {
	write := &policy.Statement{Kind: "DELETE", HasWhere: true}
	const deniedByDefault = `no rule allows DELETE for "nightly@jobs.example@corp-idp" at target "orders-db"`
	tests := []struct {
		name     string
		policies []string
		open, do string // action, then what is asked for or denies
	}{
		{"approve over allow", []string{approving("a", "on", "all: allow: true", "write: approve: statement.kind == 'DELETE'")}, "allow", "approve a/write"},
		{"deny over approve", []string{approving("a", "on", "write: approve: true | , per: command"), approving("b", "on", "none: deny: statement.hasWhere")}, "allow", "deny b/none"},
		{"all of them, by name", []string{
			approving("b", "on", "x: approve: statement.hasWhere", "y: approve: true | , per: command", "z: approve: statement.ddl"), approving("a", "on", "w: approve: !statement.readOnly"),
		}, "allow", "approve a/w b/x b/y"},
		{"a session's, again at each statement", []string{approving("a", "on", "s: approve: target.name == 'orders-db'", "w: approve: statement.hasWhere")}, "approve a/s", "approve a/s a/w"},
		{"a session's that doesn't match", []string{approving("a", "on", "s: approve: target.name == 'other'")}, "allow", "deny"},
		{"a session's whose rule is about statements", []string{approving("a", "on", "w: approve: statement.hasWhere | , per: session")}, "allow", "approve a/w"},
		{"one that can't be evaluated denies", []string{approving("a", "on", "all: allow: true", "s: approve: principal.claims.none == 1")}, "deny a/s", "deny a/s"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bound := mustParse(t, append(test.policies, aTarget)...).Bind(planner, job, orders)
			check := func(what, want string, d policy.Decision) {
				t.Helper()
				got := string(d.Action)
				for _, n := range d.Approvals {
					got += " " + n.Policy + "/" + n.Rule
					if n.Message != "why "+n.Rule || n.Spec == nil || n.Spec.Count != 1 {
						t.Errorf("%s: needed %+v", what, n)
					}
				}
				if d.Action == policy.Approve && (d.Policy != d.Approvals[0].Policy || d.Rule != d.Approvals[0].Rule || !d.Lasting) {
					t.Errorf("%s: the first is not named in %+v", what, d)
				}
				if d.Action == policy.Deny && d.Policy != "" {
					got += " " + d.Policy + "/" + d.Rule
				}
				if got != want {
					t.Errorf("%s: %s, want %s", what, got, want)
				}
			}
			check("open", test.open, bound.Open(noon))
			d := bound.Statement(noon, policy.SessionFacts{}, write)
			check("statement", test.do, d)
			if test.do == "deny" && d.Message != deniedByDefault {
				t.Errorf("message %q", d.Message)
			}
			explained, results := bound.Explain(noon, policy.SessionFacts{}, write)
			if diff := cmp.Diff(d, explained); diff != "" {
				t.Errorf("explained otherwise (-decided +explained):\n%s", diff)
			}
			for _, r := range results {
				named := strings.Contains(" "+test.do+" ", " "+r.Policy+"/"+r.Rule+" ")
				if r.Decided != named {
					t.Errorf("%s/%s: decided is %t", r.Policy, r.Rule, r.Decided)
				}
			}
		})
	}
}

func TestApprovalDefaults(t *testing.T) {
	set := mustParse(t, aTarget, approving("a", "on",
		"statement: approve: statement.ddl", "session: approve: true",
		"all: approve: true | , per: command, count: 2, within: 1h, mode: retry, standing: 30m, escalate: [{after: 5m, to: {groups: [cto]}}]"),
		aMask+"  untraceable: approve\n  approval: {from: {groups: [dba]}}\n")
	from := policy.PrincipalSelect{Groups: []string{"dba"}}
	want := []policy.ApprovalSpec{
		{From: from, Count: 1, Within: policy.Duration(10 * time.Minute), Mode: policy.ModeHold, Per: policy.PerCommand},
		{From: from, Count: 1, Within: policy.Duration(10 * time.Minute), Mode: policy.ModeHold, Per: policy.PerSession},
		{From: from, Count: 2, Within: policy.Duration(time.Hour), Mode: policy.ModeRetry, Per: policy.PerCommand, Standing: policy.Duration(30 * time.Minute),
			Escalate: []policy.EscalationSpec{{After: policy.Duration(5 * time.Minute), To: policy.PrincipalSelect{Groups: []string{"cto"}}}}},
		{From: from, Count: 1, Within: policy.Duration(10 * time.Minute), Mode: policy.ModeHold, Per: policy.PerCommand},
	}
	var got []policy.ApprovalSpec
	for _, r := range set.Policies[0].Spec.Rules {
		got = append(got, *r.Approval)
	}
	got = append(got, *set.Masks[0].Spec.Approval)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("approvals (-want +got):\n%s", diff)
	}
}

func TestShadow(t *testing.T) {
	const read, write = true, false
	allow, none := approving("on", "on", "read: allow: statement.readOnly"), approving("on", "on", "none: deny: statement.ddl")
	tests := []struct {
		name     string
		enforced string
		shadow   string
		readOnly bool
		want     policy.Action
		shadows  []policy.Shadow
	}{
		{"a deny of what is allowed", allow, approving("sh", "shadow", "no: deny: true", "yes: allow: true"), read, policy.Allow, []policy.Shadow{{Policy: "sh", Rule: "no", Action: policy.Deny}}},
		{"an error is a deny", allow, approving("sh", "shadow", "no: allow: principal.claims.x == 1"), read, policy.Allow, []policy.Shadow{{Policy: "sh", Rule: "no", Action: policy.Deny}}},
		{"an approve of what is allowed", allow, approving("sh", "shadow", "ask: approve: statement.readOnly"), read, policy.Allow, []policy.Shadow{{Policy: "sh", Rule: "ask", Action: policy.Approve}}},
		{"an allow of what is allowed", allow, approving("sh", "shadow", "yes: allow: true"), read, policy.Allow, nil},
		{"nothing of what is allowed", allow, approving("sh", "shadow", "no: deny: statement.ddl"), read, policy.Allow, nil},
		{"an allow of what nothing allows", allow, approving("sh", "shadow", "yes: allow: !statement.readOnly"), write, policy.Deny, []policy.Shadow{{Policy: "sh", Rule: "yes", Action: policy.Allow}}},
		{"an approve of what nothing allows", allow, approving("sh", "shadow", "ask: approve: !statement.readOnly"), write, policy.Deny, []policy.Shadow{{Policy: "sh", Rule: "ask", Action: policy.Approve}}},
		{"a deny of what nothing allows", allow, approving("sh", "shadow", "no: deny: true"), write, policy.Deny, nil},
		{"an allow of what is denied", approving("on", "on", "read: allow: true", "no: deny: !statement.readOnly"), approving("sh", "shadow", "yes: allow: true"), write, policy.Deny, nil},
		{"a deny of what needs an approval", approving("on", "on", "ask: approve: true | , per: command"), approving("sh", "shadow", "no: deny: statement.readOnly"), read, policy.Approve, []policy.Shadow{{Policy: "sh", Rule: "no", Action: policy.Deny}}},
		{"an approve of what needs an approval", approving("on", "on", "ask: approve: true | , per: command"), approving("sh", "shadow", "ask: approve: statement.readOnly"), read, policy.Approve, nil},
		{"one that allows alone", none, approving("sh", "shadow", "yes: allow: true"), write, policy.Deny, []policy.Shadow{{Policy: "sh", Rule: "yes", Action: policy.Allow}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bounds := strings.Replace(test.shadow, "  rules:", "  session: {maxRows: 1, record: strict}\n  rules:", 1)
			bound := mustParse(t, aTarget, test.enforced, bounds).Bind(planner, job, orders)
			if got := bound.Session(); got.MaxRows != 0 || got.Record != policy.RecordDurable {
				t.Errorf("the session is bounded by %+v", got)
			}
			st := &policy.Statement{Kind: "SELECT", ReadOnly: test.readOnly}
			d := bound.Statement(noon, policy.SessionFacts{}, st)
			if d.Action != test.want {
				t.Errorf("%s, want %s", d.Action, test.want)
			}
			if diff := cmp.Diff(test.shadows, d.Shadows); diff != "" {
				t.Errorf("shadows (-want +got):\n%s", diff)
			}
			alone := mustParse(t, aTarget, test.enforced).Bind(planner, job, orders).Statement(noon, policy.SessionFacts{}, st)
			if d.Shadows = nil; !cmp.Equal(alone, d) {
				t.Errorf("without the shadow policy it is %+v, with it %+v", alone, d)
			}
			_, results := bound.Explain(noon, policy.SessionFacts{}, st)
			for _, r := range results {
				if r.Shadow != (r.Policy == "sh") || !r.Asked {
					t.Errorf("explained as %+v", r)
				}
			}
		})
	}
}

func TestShadowOfOpening(t *testing.T) {
	open := func(documents ...string) policy.Decision {
		bound := mustParse(t, append(documents, aTarget)...).Bind(planner, job, orders)
		d := bound.Open(noon)
		if explained, _ := bound.Explain(noon, policy.SessionFacts{}, nil); !cmp.Equal(explained, d) {
			t.Errorf("decided as %+v, explained as %+v", d, explained)
		}
		return d
	}
	if d := open(approving("sh", "shadow", "yes: allow: statement.readOnly")); d.Action != policy.Deny || !cmp.Equal(d.Shadows, []policy.Shadow{{Policy: "sh", Action: policy.Allow}}) {
		t.Errorf("a shadow policy alone: %+v", d)
	}
	if d := open(approving("on", "on", "yes: allow: true"), approving("sh", "shadow", "no: deny: true")); d.Action != policy.Allow || len(d.Shadows) != 1 {
		t.Errorf("a shadow that denies: %+v", d)
	}
	d := open(approving("on", "on", "yes: allow: true"), approving("sh", "shadow", "no: deny: now.getHours() < 7"))
	if d.Action != policy.Allow || d.Shadows != nil || d.Lasting {
		t.Errorf("a shadow that depends on the time: %+v", d)
	}
}

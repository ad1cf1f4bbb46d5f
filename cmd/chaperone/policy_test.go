package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chaperone.dev/chaperone/docs/schema"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// chaperone runs the whole command line.
func chaperone(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	root := rootCommand()
	var out, errOut bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	return out.String(), errOut.String(), err
}

const examples = "../../policies/"

func TestPolicyCheck(t *testing.T) {
	out, warnings, err := chaperone(t, "policy", "check", examples+"readonly-analyst")
	ok(t, err)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if !strings.HasPrefix(lines[0], "revision ") {
		t.Errorf("first line %q", lines[0])
	}
	var kinds []string
	for _, line := range lines[1:] {
		kinds = append(kinds, strings.Fields(line)[1])
	}
	if !isSorted(kinds) || !strings.Contains(out, "   2 Policy\n") {
		t.Errorf("counts:\n%s", out)
	}
	if warnings != "" {
		t.Errorf("warnings about what is served: %s", warnings)
	}
	_, warnings, err = chaperone(t, "policy", "check", examples+"ci-ssh")
	ok(t, err)
	if want := "warning: this release's node does not serve ssh yet: nobody gets through to Target app-servers\n"; warnings != want {
		t.Errorf("warnings %q, want %q", warnings, want)
	}
	if _, _, err := chaperone(t, "policy", "check", t.TempDir()); err == nil {
		t.Error("an empty folder was taken")
	}
}

func isSorted(list []string) bool {
	for i := range list[:len(list)-1] {
		if list[i] > list[i+1] {
			return false
		}
	}
	return true
}

func TestPolicySchema(t *testing.T) {
	out, _, err := chaperone(t, "policy", "schema")
	ok(t, err)
	if out != string(schema.JSON) {
		t.Error("what is printed is not the committed schema")
	}
}

func TestPolicyExplain(t *testing.T) {
	executor := []string{examples + "migration-approval", "--as", "executor@corp-idp", "--groups", "executors", "--target", "orders-db"}
	runner := []string{examples + "ci-ssh", "--as", "pipeline@ci", "--target", "app-servers"}
	bot := []string{examples + "gitops-kubernetes", "--as", "system:serviceaccount:gitops:bot@local", "--target", "shop-cluster"}
	planner := []string{examples + "readonly-analyst", "--as", "planner@corp-idp", "--groups", "planners", "--target", "warehouse"}
	responder := []string{examples + "incident-response", "--as", "r@corp-idp", "--groups", "responders", "--target", "orders-db"}
	for _, c := range []struct {
		of   []string
		args []string
		want []string
	}{
		{executor, nil, []string{"open a session: allow\n"}},
		{executor, []string{"--statement", "SELECT 1"}, []string{"SELECT: allow by migrations/read\n", "migrations/read                     allow    decides\n"}},
		{executor, []string{"--statement", "DROP TABLE t", "--at", "2026-07-06T12:00:00Z"}, []string{
			"DROP TABLE: approve by migrations/schema-change\n",
			"needs migrations/schema-change: 1 of group dba within 15m; each time; the client waits (hold)\n",
			"they are told: a change of the schema of orders\n",
			"approve  needs its approval\n",
		}},
		{executor, []string{"--statement", "UPDATE orders SET a = 1 WHERE id = 2"}, []string{
			"1 of group dba within 4h; each time; the client is refused and tries again (retry); a yes may stand for 30m\n",
		}},
		{executor, []string{"--statement", "DROP TABLE t", "--at", "2026-07-10T15:00:00Z"}, []string{
			"DROP TABLE: deny by migrations/friday-afternoon: no schema changes on Friday afternoon\n",
		}},
		{executor, []string{"--statement", "SELECT 1; DROP DATABASE d"}, []string{"SELECT: allow by", "DROP DATABASE: deny by migrations/one-at-a-time"}},
		{planner, []string{"--statement", "SELECT 1", "--at", "2026-07-05T23:00:00Z"}, []string{
			"SELECT: allow by analyst/read\n", "shadow: office-hours/outside would deny\n", "would decide (shadow: without effect)\n",
		}},
		{responder, []string{"--workload", "name=incident-1"}, []string{
			"2 of group on-call within 20m; once for the session; the client waits (hold); after 5m also group managers\n", "is about something else\n",
		}},
		{responder, []string{"--workload", "name=nightly"}, []string{"open a session: deny by break-glass/incidents-only"}},
		{runner, []string{"--command", "journalctl -u 'app x'"}, []string{"(journalctl): allow by deploy/tools\n"}},
		{runner, []string{"--command", "journalctl -u app | grep 'a b'"}, []string{"(journalctl, grep): deny: no rule allows"}},
		{runner, []string{"--command", "ls $(reboot)"}, []string{"ls $(reboot) (its programs can't be told): deny:"}},
		{runner, []string{"--command", ""}, []string{"a shell: deny"}},
		{runner, []string{"--command", "ls", "--interactive"}, []string{"deny by deploy/no-shell"}},
		{runner, []string{"--subsystem", "sftp"}, []string{"subsystem sftp: allow by deploy/sftp\n"}},
		{runner, []string{"--forward", "remote"}, []string{"forwarding remote: deny by deploy/no-forwarding"}},
		{runner, []string{"--file", "write:/srv/app/x"}, []string{"write /srv/app/x: allow by deploy/write-files\n"}},
		{runner, []string{"--file", "read:/etc/shadow"}, []string{"read /etc/shadow: deny: no rule allows"}},
		{bot, []string{"--request", "patch:deployments.apps:shop/web"}, []string{"patch deployments.apps shop/web: allow by gitops/apply\n"}},
		{bot, []string{"--request", "create:pods/exec:shop/web-1"}, []string{"create pods/exec shop/web-1: deny by gitops/no-exec"}},
		{bot, []string{"--request", "delete:namespaces:/shop-x"}, []string{"delete namespaces shop-x: approve by gitops/delete-namespace\n", "2 of group platform"}},
		{bot, []string{"--request", "get:/version"}, []string{"get /version: allow by gitops/discovery\n"}},
	} {
		out, _, err := chaperone(t, append(append([]string{"policy", "explain"}, c.of...), c.args...)...)
		if err != nil {
			t.Errorf("%v: %v", c.args, err)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v: no %q in\n%s", c.args, want, out)
			}
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--as", "executor"}, "not SUBJECT@ISSUER"},
		{[]string{"--target", "other-db"}, `no Target document is named "other-db"`},
		{[]string{"--statement", "SELECT FROM WHERE"}, "refused, whatever the policy"},
		{[]string{"--statement", "SELECT 1", "--command", "ls"}, "none of the others"},
		{[]string{"--command", "ls"}, `target "orders-db" speaks postgres; what is asked is of ssh`},
		{[]string{"--statement", "SELECT 1", "--interactive"}, "are for SSH"},
		{[]string{"--file", "touch:/x"}, "is not OP:PATH"},
		{[]string{"--file", "read:x/../y"}, "must be absolute"},
		{[]string{"--request", "get"}, "is not VERB:RESOURCE"},
		{[]string{"--at", "noon"}, "want a time like"},
		{[]string{"--workload", "name"}, "is not KEY=VALUE"},
		{[]string{"--workload", "colour=red"}, "known are name"},
		{[]string{"-o", "xml"}, "-o xml"},
	} {
		if _, _, err := chaperone(t, append(append([]string{"policy", "explain"}, executor...), c.args...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestPolicyExplainJSON(t *testing.T) {
	out, _, err := chaperone(t, "policy", "explain", examples+"migration-approval", "--as", "x@corp-idp", "--groups", "executors", "--target", "orders-db",
		"--statement", "DROP TABLE t", "--at", "2026-07-06T12:00:00Z", "-o", "json")
	ok(t, err)
	var got []explanation
	ok(t, json.Unmarshal([]byte(out), &got))
	if len(got) != 1 || got[0].Decision != policy.Approve || len(got[0].Approvals) != 1 || len(got[0].Rules) < 5 {
		t.Fatalf("%+v", got)
	}
	if a := got[0].Approvals[0]; a.Rule != "schema-change" || a.Spec.Count != 1 || a.Spec.Within != policy.Duration(15*time.Minute) || a.Spec.Per != policy.PerCommand {
		t.Errorf("approval %+v %+v", a, a.Spec)
	}
}

func TestReadCommand(t *testing.T) {
	for text, want := range map[string][]string{
		"ls -l /srv":                    {"ls"},
		"/usr/bin/ls":                   {"ls"},
		"a | b || c && d; e & f":        {"a", "b", "c", "d", "e", "f"},
		"grep 'a | b; $(c)' \"x y\"":    {"grep"},
		"echo a'b'\"c\"":                {"echo"},
		"a\nb":                          {"a", "b"},
		"":                              nil,
		"   ":                           nil,
		"a $(b)":                        nil,
		"a `b`":                         nil,
		"a \"$(b)\"":                    nil,
		"$SHELL":                        nil,
		"a > /etc/x":                    nil,
		"a < x":                         nil,
		"(a)":                           nil,
		"{ a; }":                        nil,
		"X=1 a":                         nil,
		"if a; then b; fi":              nil,
		"a 'b":                          nil,
		"a \\\nb":                       nil,
		"a *":                           nil,
		"| a":                           nil,
		"a;; b":                         nil,
		"a && ":                         {"a"},
		"sudo -u root sh -c 'rm -rf /'": {"sudo"},
	} {
		got := readCommand(text)
		if diff := cmp.Diff(want, got.Programs); diff != "" {
			t.Errorf("%q: programs (-want +got):\n%s", text, diff)
		}
		if got.Text != text || (got.Program == "") != (len(want) == 0) || len(want) > 0 && got.Program != want[0] {
			t.Errorf("%q: %+v", text, got)
		}
	}
	if got := readCommand("echo a'b c'\"d\" e"); cmp.Diff([]string{"echo", "ab cd", "e"}, got.Argv) != "" {
		t.Errorf("words %q", got.Argv)
	}
}

func FuzzReadCommand(f *testing.F) {
	for _, seed := range []string{"ls -l | grep 'x'", "a && b", "a \"b\" c;d", "$(x)", "a\\b", "'"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := readCommand(text)
		if len(c.Programs) > 0 && (c.Program != c.Programs[0] || len(c.Argv) == 0) {
			t.Errorf("%q: %+v", text, c)
		}
		// What a shell expands outside of single quotes is never taken for a word.
		if !strings.ContainsRune(text, '\'') && strings.ContainsAny(text, "$`\\") && len(c.Programs) > 0 {
			t.Errorf("%q: %+v", text, c)
		}
	})
}

func TestReadWorkload(t *testing.T) {
	got, err := readWorkload([]string{"name=a=b", "uid=7", "labels.app=x", "labels.tier=y", "serviceAccount=s"})
	ok(t, err)
	want := policy.WorkloadFacts{Name: "a=b", UID: 7, ServiceAccount: "s", Labels: map[string]string{"app": "x", "tier": "y"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	if _, err := readWorkload([]string{"uid=me"}); err == nil {
		t.Error("a name was taken for a uid")
	}
}

func TestPolicyTest(t *testing.T) {
	out, _, err := chaperone(t, "policy", "test", examples+"readonly-analyst", examples+"ci-ssh")
	ok(t, err)
	if !strings.HasSuffix(out, " passed, 0 failed\n") || strings.Count(out, "\n") != 1 {
		t.Errorf("without -v:\n%s", out)
	}
	out, _, err = chaperone(t, "policy", "test", "-v", examples+"readonly-analyst", examples+"ci-ssh")
	ok(t, err)
	for _, want := range []string{"analyst_test.yaml:", "deploy_test.yaml:", "want allow by rule read", "got approve by deploy/restart", "shadow [office-hours/outside]"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}

	dir := t.TempDir()
	text, err := os.ReadFile(examples + "postgres-readonly/policy.yaml")
	ok(t, err)
	ok(t, os.WriteFile(filepath.Join(dir, "policy.yaml"), text, 0o600))
	if _, _, err := chaperone(t, "policy", "test", dir); err == nil || !strings.Contains(err.Error(), "has no cases") {
		t.Errorf("a folder without cases: %v", err)
	}
	ok(t, os.WriteFile(filepath.Join(dir, "a_test.yaml"), []byte(`as: {subject: a, issuer: corp-idp, groups: [planners]}
target: reporting-db
cases:
  - {sql: "SELECT 1", expect: allow, rule: read}
  - {sql: "DELETE FROM sales", expect: allow}
`), 0o600))
	out, _, err = chaperone(t, "policy", "test", dir)
	if err == nil || err.Error() != "1 of 2 cases failed" {
		t.Errorf("a failing case: %v", err)
	}
	if want := "FAIL  " + dir + "/a_test.yaml:5  DELETE FROM sales  want allow  got deny: no rule allows DELETE"; !strings.HasPrefix(out, want) || !strings.HasSuffix(out, "1 passed, 1 failed\n") {
		t.Errorf("want %q in\n%s", want, out)
	}
}

// What is recorded is decided anew, from its text where that can be read.
func TestReplaySession(t *testing.T) {
	set, err := policy.Load(examples + "migration-approval")
	ok(t, err)
	at := time.Date(2026, time.July, 6, 12, 0, 0, 0, time.UTC)
	started := event.SessionStarted{
		Session: "s-1", Principal: event.Principal{Subject: "executor", Issuer: "corp-idp", Groups: []string{"executors"}},
		Workload: event.Workload{Name: "migrate-7"}, Target: event.Target{Name: "orders-db", Protocol: "postgres"},
	}
	tests := []struct {
		name    string
		command event.Command
		want    string // "old → new"
		by      string
		note    string
		changed bool
	}{
		{"the same", event.Command{Text: "SELECT 1", Decision: "allow", Policy: "p", Rule: "r"}, "allow → allow", "migrations/read", "", false},
		{"now people are asked", event.Command{Text: "ALTER TABLE orders ADD a int", Decision: "allow", Policy: "p", Rule: "r"}, "allow → approve", "migrations/schema-change", "", true},
		{"people were asked", event.Command{Text: "ALTER TABLE orders ADD a int", Decision: "allow", Policy: "p", Rule: "r", Approvals: []string{"a-1"}}, "approve → approve", "migrations/schema-change", "", false},
		{"people said no", event.Command{Text: "ALTER TABLE orders ADD a int", Decision: "deny", Approvals: []string{"a-1"}}, "approve → approve", "migrations/schema-change", "", false},
		{"people are waited for", event.Command{Text: "SELECT 1", Decision: "pending"}, "approve → allow", "migrations/read", "", true},
		{"a hole", event.Command{Text: "DELETE FROM orders", Decision: "allow", Policy: "p", Rule: "r"}, "allow → deny", "migrations/no-change-without-where", "", true},
		{"several", event.Command{Text: "SELECT 1; DROP TABLE a", Decision: "allow", Policy: "p", Rule: "r"}, "allow → deny", "migrations/one-at-a-time", "", true},
		{"denied by default", event.Command{Text: "SELECT 1", Decision: "deny", Message: `no rule allows SELECT for "a@b" at target "c"`}, "deny → allow", "migrations/read", "", true},
		{"refused by a mask", event.Command{Text: "SELECT 1", Decision: "deny", Message: "the column can't be traced"}, "refused → allow", "migrations/read", "", false},
		{"cut", event.Command{Text: "UPDATE orders SET note = 'x", Cut: true, Decision: "allow", Policy: "p", Rule: "r",
			Parsed: event.Parsed{Kinds: []string{"UPDATE"}, Tables: []string{"orders"}}}, "allow → deny", "migrations/no-change-without-where", "its recorded text is cut; decided by the facts on record", true},
		{"cut where it can be read", event.Command{Text: "SELECT 1", Cut: true, Decision: "deny", Policy: "p", Rule: "r",
			Parsed: event.Parsed{Kinds: []string{"DROP TABLE"}, DDL: true}}, "deny → approve", "migrations/schema-change", "its recorded text is cut; decided by the facts on record", true},
		{"covered", event.Command{Text: "INSERT INTO orders VALUES ([redacted])))", Decision: "allow", Policy: "p", Rule: "r",
			Parsed: event.Parsed{Kinds: []string{"INSERT"}, Tables: []string{"orders"}}}, "allow → approve", "migrations/backfill", "its recorded text can't be read; decided by the facts on record", true},
		{"no SQL", event.Command{Text: "SELEC 1", Decision: "deny", Message: "syntax error"}, "refused → deny", "", `it can't be read, whatever the documents say: syntax error at or near "SELEC"`, false},
	}
	var commands []recordedCommand
	for i, c := range tests {
		c.command.Seq = uint64(i + 1)
		commands = append(commands, recordedCommand{At: at, Command: c.command})
	}
	got, err := replaySession(set, started, commands)
	ok(t, err)
	if got.Open.Decision != "allow" || got.Total != len(tests) || got.Same != 5 || got.Stale != 4 || got.Changes["allow → deny"] != 3 || got.Changes["allow → approve"] != 2 {
		t.Errorf("%+v", got)
	}
	for i, c := range tests {
		r := got.Commands[i]
		if have := r.Old.Decision + " → " + r.New.Decision; have != c.want || strings.Join(r.New.By, ",") != c.by || r.Note != c.note || r.Changed != c.changed {
			t.Errorf("%s: got %q by %v, note %q, changed %v", c.name, have, r.New.By, r.Note, r.Changed)
		}
	}
	var out bytes.Buffer
	ok(t, printReplay(&out, []replayedSession{got}))
	for _, want := range []string{
		"session s-1: executor@corp-idp to orders-db, by documents of revision " + set.Revision + "\n",
		"* 2   ALTER TABLE orders ADD a int", "13 commands: 5 the same, 2 allow → approve, 3 allow → deny, 1 approve → allow, 1 deny → allow, 1 deny → approve; 4 could not be read anew\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	started.Target.Protocol = "ssh"
	if _, err := replaySession(set, started, commands); err == nil {
		t.Error("an ssh session was replayed as SQL")
	}
	started.Target.Protocol, started.Principal.Groups = "postgres", nil
	got, err = replaySession(set, started, commands)
	ok(t, err)
	if got.Open.Decision != "deny" || got.Commands[0].New.Decision != "deny" {
		t.Errorf("nobody's session: %+v", got.Open)
	}
}

// Counters go on from command to command, as they did in the session.
func TestReplayCounts(t *testing.T) {
	dir := t.TempDir()
	ok(t, os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(`apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: db}
spec: {protocol: postgres, hosts: ["db.example:5432"], credential: {postgresRole: {adminFrom: {file: /a}}}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: p}
spec:
  principals: {subjects: ["*@local"]}
  targets: [db]
  rules:
    - {name: some, when: "session.rows < 5 && session.commands < 3 && session.age < duration('1m')", then: allow}
`), 0o600))
	set, err := policy.Load(dir)
	ok(t, err)
	at := time.Date(2026, time.July, 6, 12, 0, 0, 0, time.UTC)
	started := event.SessionStarted{Principal: event.Principal{Subject: "a", Issuer: "local"}, Target: event.Target{Name: "db", Protocol: "postgres"}}
	for name, c := range map[string]struct {
		rows uint64
		step time.Duration
		want string
	}{
		"rows":     {3, 0, "allow allow deny deny"},
		"commands": {0, 0, "allow allow allow deny"},
		"age":      {0, 40 * time.Second, "allow allow deny deny"},
	} {
		var commands []recordedCommand
		for i := range 4 {
			commands = append(commands, recordedCommand{At: at.Add(time.Duration(i) * c.step), Command: event.Command{Seq: uint64(i + 1), Text: "SELECT 1", Decision: "allow", Rows: c.rows}})
		}
		got, err := replaySession(set, started, commands)
		ok(t, err)
		var decisions []string
		for _, r := range got.Commands {
			decisions = append(decisions, r.New.Decision)
		}
		if have := strings.Join(decisions, " "); have != c.want {
			t.Errorf("%s: %s, want %s", name, have, c.want)
		}
	}
}

func TestPolicyReplay(t *testing.T) {
	run := recorded(t)
	replay := func(args ...string) (string, error) {
		out, _, err := chaperone(t, append([]string{"--run-dir", run, "policy", "replay"}, args...)...)
		return out, err
	}
	dir := t.TempDir()
	text, err := os.ReadFile(examples + "postgres-masking/policy.yaml")
	ok(t, err)
	ok(t, os.WriteFile(filepath.Join(dir, "a.yaml"), bytes.ReplaceAll(text, []byte("planner@local"), []byte("ann@local")), 0o600))
	out, err := replay("s-1", "--config", dir)
	ok(t, err)
	for _, want := range []string{"session s-1: ann@local to orders-db", "SELECT card_number FROM customers", "allow (orders/read)", "→ allow (orders/read)", "→ deny (orders/no-ddl)", "2 commands: 2 the same\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, err = replay("s-1", "--config", examples+"postgres-masking", "--changed", "-o", "json")
	ok(t, err)
	var got []replayedSession
	ok(t, json.Unmarshal([]byte(out), &got))
	if len(got) != 1 || len(got[0].Commands) != 1 || got[0].Total != 2 || got[0].Commands[0].New.Decision != "deny" || got[0].Open.Decision != "deny" {
		t.Errorf("%s", out)
	}
	if _, err := replay("none", "--config", dir); err == nil || !strings.Contains(err.Error(), "no session none") {
		t.Errorf("unknown session: %v", err)
	}
}

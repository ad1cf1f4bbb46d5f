package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/documents"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

const shadow = `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: strict}
spec:
  enforce: shadow
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules:
    - {name: read, when: "statement.readOnly", then: allow}
    - {name: no-writes, when: "statement.kind == 'INSERT'", then: deny}
    - {name: ask-first, when: "statement.kind == 'UPDATE'", then: approve, approval: {from: {groups: [dba]}}}
`

func TestShadowPolicies(t *testing.T) {
	w := setUp(t, stage.Options{Documents: map[string]string{"shadow.yaml": shadow}})
	for _, test := range []struct{ sql, prints, shadow string }{
		{"INSERT INTO orders (note) VALUES ('shadowed')", "INSERT 0 1", "strict/no-writes deny"},
		{"UPDATE orders SET note = 'shadowed' WHERE id = 1", "UPDATE 1", "strict/ask-first approve"},
		{"SELECT count(*) FROM orders", "4", ""},
	} {
		w.psql(test.sql).want(t, 0, test.prints)
		data := w.event(event.TypeCommand, func(data map[string]any) bool { return data["text"] == test.sql })
		var command event.Command
		recast(t, data, &command)
		said := ""
		for _, s := range command.Shadows {
			said += fmt.Sprintf("%s/%s %s", s.Policy, s.Rule, s.Action)
		}
		if command.Decision != "allow" || command.Policy != "orders" || said != test.shadow {
			t.Errorf("%s was decided as %q by %q, and the shadow says %q", test.sql, command.Decision, command.Policy, said)
		}
	}
	w.psql("DROP TABLE orders").want(t, 1, "schema changes go through migrations")
	w.event(event.TypePolicyLoaded, nil)
	for _, e := range w.events() {
		if e.PolicyRevision == "" {
			t.Errorf("event %s doesn't say which documents were in force: %s", e.Kind(), e.Data)
		}
	}
}

// note is what the stage's policy says of schema changes, with another message.
func note(message string) string {
	return strings.Replace(stage.Documents()["policy.yaml"], "schema changes go through migrations", message, 1)
}

// told waits until planners are told the message, which policy has.
func (w *world) told(message string) {
	w.t.Helper()
	w.until("planners who are told: "+message, func() bool {
		r := w.psql("DROP TABLE orders")
		return r.code == 1 && strings.Contains(r.out, message)
	})
}

func TestDocumentsAreReadWhenTheyChange(t *testing.T) {
	w := setUp(t, stage.Options{})
	w.told("schema changes go through migrations")
	// One session sees it too.
	shell := w.shell()
	if got := shell.ask("SELECT 1"); got != "1" {
		t.Fatalf("SELECT 1 is %q", got)
	}
	if err := w.WriteDocument("policy.yaml", note("ask the others")); err != nil {
		t.Fatal(err)
	}
	w.told("ask the others")
	if before := len(w.loads()); before < 2 {
		t.Errorf("%d sets of documents were loaded", before)
	}

	text := note("half of it")
	if err := w.WriteDocument("policy.yaml", text[:len(text)/2]); err != nil {
		t.Fatal(err)
	}
	rejected := w.event(event.TypePolicyRejected, func(data map[string]any) bool {
		return strings.Contains(fmt.Sprint(data["errors"]), "policy.yaml")
	})
	revisions := w.loads()
	if kept := rejected["kept"]; kept != revisions[len(revisions)-1] {
		t.Errorf("it says that %v stays, and %v was the last", kept, revisions)
	}
	w.told("ask the others")
	if got := shell.ask("SELECT 2"); got != "2" {
		t.Errorf("SELECT 2 is %q", got)
	}
	// As editors and deployments do: another file takes its place.
	if err := os.WriteFile(w.Path("new.yaml"), []byte(note("the whole of it")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.Path("new.yaml"), filepath.Join(w.ConfigDir(), "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	w.told("the whole of it")
	if err := os.Remove(filepath.Join(w.ConfigDir(), "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	w.until("planners who may do nothing", func() bool { return w.psql("SELECT 1").code != 0 })
	shell.close()
}

// loads are the revisions of the sets of documents that came into force, in order.
func (w *world) loads() []string {
	w.t.Helper()
	var revisions []string
	for _, e := range w.events() {
		if e.Kind() == event.TypePolicyLoaded {
			var loaded event.PolicyLoaded
			if err := json.Unmarshal(e.Data, &loaded); err != nil {
				w.t.Fatal(err)
			}
			revisions = append(revisions, loaded.Revision)
		}
	}
	return revisions
}

func TestDocumentsArePublished(t *testing.T) {
	w := setUp(t, stage.Options{Documents: map[string]string{
		"node.yaml":   strings.TrimRight(stage.Documents()["node.yaml"], "\n") + "\n  documents: {published: true}\n",
		"target.yaml": "", "policy.yaml": "", "mask.yaml": "",
	}})
	w.psql("SELECT 1").want(t, 2)
	folder := w.Path("published")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(strings.ReplaceAll(text, "{{dir}}", w.Dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	publish := func() result {
		t.Helper()
		cmd := w.Command(t.Context(), "policy", "publish", folder)
		cmd.Env = append(cmd.Env, "HOME="+w.Dir, "XDG_CONFIG_HOME=") // root may be logged in elsewhere
		return w.do(cmd)
	}
	for _, name := range []string{"target.yaml", "mask.yaml"} {
		write(name, stage.Documents()[name])
	}
	write("policy.yaml", note("published first"))
	publish().want(t, 0)
	conn, err := bus.Connect(bus.Remote{URL: "nats://127.0.0.1:4222", Role: bus.RoleSink, SeedFile: bus.SeedFile(w.Path("state"), bus.RoleSink), Once: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := bus.BucketsOf(js).Documents.KV(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old, err := kv.Get(t.Context(), documents.Key)
	if err != nil {
		t.Fatal(err)
	}
	w.told("published first")
	w.psql("SELECT card_number FROM customers WHERE id = 1").want(t, 0, "************1111")

	write("policy.yaml", "apiVersion: chaperone.dev/v1alpha1\nkind: Policy\nmetadata: {name: orders}\nspec: {targets: [nowhere]}\n")
	publish().want(t, 1, "nowhere", "policy.yaml:")
	write("policy.yaml", note("published second"))
	write("node.yaml", "apiVersion: chaperone.dev/v1alpha1\nkind: Node\nmetadata: {name: stage}\nspec: {cluster: mine}\n")
	publish().want(t, 1, "node.yaml:")
	w.told("published first")
	if err := os.Remove(filepath.Join(folder, "node.yaml")); err != nil {
		t.Fatal(err)
	}
	publish().want(t, 0)
	w.told("published second")

	good, err := kv.Get(t.Context(), documents.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ value, because string }{
		"altered":        {strings.Replace(string(good.Value()), "published second", "published by eve", 1), "not signed by the authority"},
		"not signed":     {`{"payload": {"serial": 99999999999999, "files": {}}}`, "not signed by the authority"},
		"no JSON":        {"hello", "can't be read"},
		"an earlier one": {string(old.Value()), "older bundle"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			if c.value == string(good.Value()) {
				t.Fatal("it is the good one")
			}
			if _, err := kv.Put(t.Context(), documents.Key, []byte(c.value)); err != nil {
				t.Fatal(err)
			}
			w.event(event.TypePolicyRejected, func(data map[string]any) bool { return strings.Contains(fmt.Sprint(data["errors"]), c.because) })
			w.told("published second")
		})
	}
	// A daemon that starts with those in NATS has the good ones still.
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	w.up()
	w.told("published second")
	write("policy.yaml", note("published third"))
	publish().want(t, 0)
	w.told("published third")
}

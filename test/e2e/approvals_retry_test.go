package e2e

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// script is a job's shell that does what the test tells it.
type script struct {
	t     *testing.T
	in    io.Writer
	lines *lines
	runs  int
}

func (w *askingWorld) script(subject string) *script {
	w.t.Helper()
	cmd := w.job(subject, "sh")
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	s := &script{t: w.t, in: in, lines: w.start(cmd)}
	w.t.Cleanup(func() { in.Close() })
	return s
}

// run runs a line of shell, and returns what it printed.
func (s *script) run(line string) string {
	s.t.Helper()
	s.runs++
	end := fmt.Sprintf("end of %d", s.runs)
	if _, err := fmt.Fprintf(s.in, "{ %s; }\necho %s\n", line, end); err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	from := len(s.lines.all)
	s.lines.want(s.t, end)
	return strings.Join(s.lines.all[from:len(s.lines.all)-1], "\n")
}

const counting = "UPDATE counter SET n = n + 1"

// again runs what must be asked for, and returns the id of the request.
func (s *script) again(sql string) string {
	s.t.Helper()
	printed := s.run(psqlOf(sql))
	id := requestID.FindString(printed)
	for _, want := range []string{"ERROR:  approval " + id + " is needed, and root@local is asked", "DETAIL:  Request " + id, "HINT:  Run it again"} {
		if id == "" || !strings.Contains(printed, want) {
			s.t.Fatalf("no %q in:\n%s", want, printed)
		}
	}
	return id
}

func TestApprovalOfARetry(t *testing.T) {
	w := newAskingWorld(t)
	planner, other := w.script("planner"), w.script("other")
	id := planner.again(counting)
	w.event(event.TypeApprovalRequested, requested(id, "mode", "retry"))
	w.event(event.TypeCommand, func(data map[string]any) bool {
		return data["decision"] == "pending" && fmt.Sprint(data["approvals"]) == "["+id+"]"
	})
	if same := planner.again(counting); same != id {
		t.Errorf("run again it is request %s, it was %s", same, id)
	}
	if another := planner.again("UPDATE counter SET n = n + 2"); another == id {
		t.Error("another statement is the same request")
	}
	if another := other.again(counting); another == id {
		t.Error("another job's is the same request")
	}
	w.view(w.root(), id)
	w.approvals("approve", "--yes", id).want(t, 0, id+": approved; it runs when it is sent again")
	w.event(event.TypeApprovalDecided, requested(id, "outcome", "approved"))

	// What was approved is kept on the node's own disk; the job lives on.
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	w.up()
	if n := w.value("SELECT n FROM counter"); n != "0" {
		t.Fatalf("it ran %s times before it was sent again", n)
	}
	// Of three at once one runs.
	one := psqlOf(counting)
	printed := planner.run(one + " & " + one + " & " + one + " & wait")
	if strings.Count(printed, "UPDATE 1") != 1 {
		t.Errorf("of three at once there ran:\n%s", printed)
	}
	if n := w.value("SELECT n FROM counter"); n != "1" {
		t.Errorf("it ran %s times", n)
	}
	w.event(event.TypeCommand, approvedBy(id))
	if anew := planner.again(counting); anew == id {
		t.Error("what was approved once is asked for by the same request again")
	}
	if n := w.value("SELECT n FROM counter"); n != "1" {
		t.Errorf("it ran %s times", n)
	}
}

// Restarted, a daemon goes on to ask, and to say no.
func TestApprovalOfARetryThatIsDenied(t *testing.T) {
	w := newAskingWorld(t)
	planner := w.script("planner")
	id := planner.again(counting)
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	w.up()
	if same := planner.again(counting); same != id {
		t.Errorf("after a restart it is request %s, it was %s", same, id)
	}
	w.view(w.root(), id)
	w.approvals("deny", "--yes", "--reason", "ask tomorrow", id).want(t, 0, id+": denied")
	for range 2 {
		w.event(event.TypeApprovalDecided, requested(id, "outcome", "denied"))
		if printed := planner.run(psqlOf(counting)); !strings.Contains(printed, "ERROR:  approval "+id+" was denied by root@local: ask tomorrow") {
			t.Errorf("it was told:\n%s", printed)
		}
		if err := w.daemon.Kill(); err != nil {
			t.Fatal(err)
		}
		w.up()
	}
	if n := w.value("SELECT n FROM counter"); n != "0" {
		t.Errorf("it ran %s times", n)
	}
}

// Who can write votes where they are kept can't make one that counts.
func TestApprovalIsNotForged(t *testing.T) {
	w := newAskingWorld(t)
	conn, err := bus.Connect(bus.Remote{URL: "nats://127.0.0.1:4222", Role: bus.RoleSink, SeedFile: bus.SeedFile(w.Path("state"), bus.RoleSink), Once: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := bus.BucketsOf(js).Approvals.KV(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	// A vote that counts, for something else.
	before := w.start(w.job("planner", says("UPDATE orders SET note = 'seen' WHERE id = 1", "SELECT 'it ' || 'ran'")...))
	seen := before.notice(t)
	w.view(w.root(), seen)
	w.approvals("approve", "--yes", seen).want(t, 0)
	before.want(t, "it ran")
	<-before.done
	entry, err := kv.Get(t.Context(), approval.VotesKey("default", "stage", seen))
	if err != nil {
		t.Fatal(err)
	}
	genuine, err := approval.DecodeVotes(entry.Value())
	if err != nil {
		t.Fatal(err)
	}

	psql := w.start(w.job("planner", says("UPDATE orders SET note = 'forged' WHERE id = 2", "SELECT 'it ' || 'ran'")...))
	id := psql.notice(t)
	r := w.view(w.root(), id).Request
	vote := approval.Vote{
		Request: id, Cluster: r.Cluster, Node: r.Node, Session: r.Session, Digest: r.Digest, Verdict: approval.No,
		By: approval.Person{Subject: "root", Issuer: "local"}, Via: approval.ViaTerminal, At: r.Created, Until: r.Expires,
	}
	sign := func(s *authority.Signer, kind string, v approval.Vote) authority.Signed {
		signed, err := s.Sign(kind, v)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	yes, self, stranger := vote, vote, vote
	yes.Verdict, self.Verdict, stranger.Verdict = approval.Yes, approval.Yes, approval.Yes
	self.By = approval.Person{Subject: "planner", Issuer: "corp-idp"}
	stranger.By = approval.Person{Subject: "eve", Issuer: "corp-idp"}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	forger, err := authority.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	renamed := sign(forger, approval.SignedVote, yes)
	renamed.Key = authority.KeyID(w.authority().Public())
	altered := sign(w.authority(), approval.SignedVote, vote)
	if altered.Payload, err = json.Marshal(yes); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		votes  []authority.Signed
		reason string
		said   string
	}{
		"signed by another":                 {[]authority.Signed{sign(forger, approval.SignedVote, yes)}, "signature", "root"},
		"signed by another, as if by us":    {[]authority.Signed{renamed}, "signature", "root"},
		"altered":                           {[]authority.Signed{altered}, "signature", "root"},
		"signed as something else":          {[]authority.Signed{sign(w.authority(), "lock", yes)}, "signature", "root"},
		"given to another request":          {genuine, "replayed", "root"},
		"of the person that the job is for": {[]authority.Signed{sign(w.authority(), approval.SignedVote, self)}, "self", "planner"},
		"of somebody who isn't asked":       {[]authority.Signed{sign(w.authority(), approval.SignedVote, stranger)}, "not_asked", "eve"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			rejected := func() (n int) {
				for _, e := range w.events() {
					var data event.ApprovalRejected
					if e.Kind() == event.TypeApprovalRejected && json.Unmarshal(e.Data, &data) == nil &&
						data.Request == id && data.Reason == c.reason && data.By != nil && data.By.Subject == c.said {
						n++
					}
				}
				return n
			}
			known := rejected()
			value, err := json.Marshal(c.votes)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := kv.Put(t.Context(), approval.VotesKey("default", "stage", id), value); err != nil {
				t.Fatal(err)
			}
			w.until("an event that tells of the vote", func() bool { return rejected() == known+1 })
			if view := w.view(w.root(), id); view.State != approval.StatePending {
				t.Errorf("the request is %s", view.State)
			}
		})
	}
	if n := w.value("SELECT count(*) FROM orders WHERE note = 'forged'"); n != "0" {
		t.Errorf("%s rows were changed", n)
	}
	// What lies there keeps nobody from answering.
	w.approvals("deny", "--yes", "--reason", "forgers about", id).want(t, 0, id+": denied")
	psql.want(t, "was denied by root@local: forgers about")
	<-psql.done
}

// A daemon that can bring a question to nobody lets nothing run.
func TestApprovalThatNobodyCanBeAskedFor(t *testing.T) {
	authorityKey, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := setStage(t, stage.Options{Documents: map[string]string{
		"node.yaml": strings.TrimRight(stage.Documents()["node.yaml"], "\n") + `
  nats: {url: "nats://127.0.0.1:4299"}
  authority: {keys: ["` + base64.StdEncoding.EncodeToString(authorityKey) + `"]}
`,
		"policy.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: orders}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules:
    - {name: read, when: "statement.readOnly", then: allow}
    - {name: hold, when: "statement.kind == 'UPDATE'", then: approve, approval: {from: {subjects: ["ana@local"]}}}
    - {name: retry, when: "statement.kind == 'DELETE'", then: approve, approval: {from: {subjects: ["ana@local"]}, mode: retry}}
`,
	}})
	chaperoned := filepath.Join(filepath.Dir(binary), "chaperoned")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", chaperoned, "chaperone.dev/chaperone/cmd/chaperoned").CombinedOutput(); err != nil {
		t.Fatalf("building chaperoned: %v\n%s", err, out)
	}
	if w.daemon, err = w.Start(t.Context(), exec.Command(chaperoned, "--config", w.ConfigDir(), "--state", w.Path("state"))); err != nil {
		t.Fatal(err)
	}
	w.psql("SELECT count(*) FROM orders").want(t, 0, "3")
	for _, sql := range []string{"UPDATE orders SET note = 'unasked'", "DELETE FROM orders"} {
		w.psql(sql, "-v", "VERBOSITY=verbose").want(t, 1, "ERROR:  57P03: an approval is needed, and people can't be asked at the moment")
	}
	if n, err := w.Superuser(t.Context(), "SELECT count(*) FROM orders WHERE note IS DISTINCT FROM 'unasked'"); err != nil || n != "3" {
		t.Errorf("%s rows are left, %v", n, err)
	}
}

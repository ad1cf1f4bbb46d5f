package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/desk/client"
	"chaperone.dev/chaperone/internal/lab"
	openid "chaperone.dev/chaperone/internal/lab/idp"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// asking are the policies of the approvals' tests. Jobs act for people of the OpenID
// provider; root of this machine answers at the sink's socket, and the group dba over HTTP.
const asking = `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: orders}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules:
    - {name: read, when: "statement.readOnly", then: allow}
    - name: writes
      when: "statement.kind == 'UPDATE' && statement.tables == ['orders']"
      then: approve
      message: "changes orders"
      approval: {from: {subjects: ["root@local"]}, within: 5m}
    - name: counts
      when: "statement.kind == 'UPDATE' && statement.tables == ['counter']"
      then: approve
      approval: {from: {subjects: ["root@local"]}, within: 5m, mode: retry}
    - name: four-eyes
      when: "statement.kind == 'DELETE'"
      then: approve
      approval: {from: {groups: [dba]}, count: 2, within: 5m}
    - name: inserts
      when: "statement.kind == 'INSERT'"
      then: approve
      approval: {from: {groups: [dba]}, within: 5m, standing: 10m}
---
apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: guests}
spec:
  principals: {subjects: ["guest@corp-idp"]}
  targets: [orders-db]
  rules:
    - name: entry
      when: "true"
      then: approve
      approval: {from: {subjects: ["root@local"]}, within: 5m}
`

// askingWorld is a stage whose policies ask people.
type askingWorld struct {
	*tokenWorld
	url string // of the sink
}

func newAskingWorld(t *testing.T) *askingWorld {
	t.Helper()
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	provider, err := openid.Start(t.Context(), openid.Options{CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := provider.Close(); err != nil {
			t.Error(err)
		}
	})
	port, err := lab.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	w := &askingWorld{url: "http://" + address, tokenWorld: &tokenWorld{idp: provider, world: setStage(t, stage.Options{Documents: map[string]string{
		"policy.yaml": asking,
		"workload.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: nightly-planner}
spec:
  select: {run: {name: "nightly-*"}}
  identity: {issuer: corp-idp, audience: chaperone}
---
apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp-idp}
spec: {issuer: "` + provider.Issuer() + `", audiences: [chaperone, page, cli], caFile: "{{dir}}/idp-ca.pem"}
`,
		"sink.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Sink
metadata: {name: sink}
spec:
  listen: "` + address + `"
  url: "http://` + address + `"
  login: {issuer: corp-idp, clientID: page, cliClientID: cli}
`,
	}})}}
	if err := os.WriteFile(w.Path("idp-ca.pem"), provider.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"CREATE TABLE counter (n int)", "INSERT INTO counter VALUES (0)", "CREATE TABLE refunds (amount int)",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON counter, refunds TO orders_reader",
	} {
		w.value(sql)
	}
	w.up()
	return w
}

func (w *askingWorld) in(t *testing.T) *askingWorld {
	return &askingWorld{url: w.url, tokenWorld: &tokenWorld{world: w.world.in(t), idp: w.idp}}
}

// value is what the server says past Chaperone.
func (w *askingWorld) value(sql string) string {
	w.t.Helper()
	value, err := w.Superuser(w.t.Context(), sql)
	if err != nil {
		w.t.Fatal(err)
	}
	return value
}

// job is a command that runs as a job that acts for somebody of the provider.
func (w *askingWorld) job(subject string, command ...string) *exec.Cmd {
	w.t.Helper()
	file := w.write(subject+".token", w.token(openid.TokenRequest{Subject: subject, Audience: []string{"chaperone"}}))
	return w.run(w.t.Context(), "nightly-"+subject, file, command...)
}

// says is psql that runs each statement in one session, whatever becomes of the others.
func says(statements ...string) []string {
	args := []string{"-Atq", "-v", "ON_ERROR_STOP=0"}
	for _, sql := range statements {
		args = append(args, "-c", sql)
	}
	return stage.Psql(args...)
}

// conversation is one session of a job's psql, in which statements are asked one after
// the other. Each must print what is wanted; the line that does is returned.
func (w *askingWorld) conversation(subject string) func(sql, want string) string {
	w.t.Helper()
	psql := w.job(subject, stage.Psql("-Atq", "-v", "ON_ERROR_STOP=0")...)
	in, err := psql.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out := w.start(psql)
	return func(sql, want string) string {
		w.t.Helper()
		if _, err := io.WriteString(in, sql+";\n"); err != nil {
			w.t.Fatal(err)
		}
		out.want(w.t, want)
		return out.all[len(out.all)-1]
	}
}

var requestID = regexp.MustCompile(`a-[a-z2-7]{16}`)

// notice waits for the next notice that a command waits, and returns the request's id.
func (l *lines) notice(t *testing.T) string {
	t.Helper()
	l.want(t, "waiting for approval a-")
	return requestID.FindString(l.all[len(l.all)-1])
}

// approvals is "chaperone approvals" of root, at the sink's socket.
func (w *askingWorld) approvals(args ...string) result {
	w.t.Helper()
	cmd := w.Command(w.t.Context(), append([]string{"approvals"}, args...)...)
	cmd.Env = append(cmd.Env, "HOME="+w.Dir, "XDG_CONFIG_HOME=") // root may be logged in elsewhere
	return w.do(cmd)
}

// root asks at the sink's socket.
func (w *askingWorld) root() *client.Client {
	w.t.Helper()
	c, err := client.New(client.Options{Socket: filepath.Join(w.RunDir(), "sink.sock")})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// person is somebody of the provider who has logged in.
func (w *askingWorld) person(subject string, groups ...string) *client.Client {
	return w.bearer(openid.TokenRequest{Subject: subject, Groups: groups, Audience: []string{"cli"}})
}

func (w *askingWorld) bearer(r openid.TokenRequest) *client.Client {
	w.t.Helper()
	token := w.token(r)
	c, err := client.New(client.Options{URL: w.url, Token: func(context.Context) (string, error) { return token, nil }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// view is the request as a person sees it, when the sink knows it.
func (w *askingWorld) view(c *client.Client, id string) (view api.View) {
	w.t.Helper()
	w.until("request "+id+" at the sink", func() bool {
		var err error
		view, err = c.Approval(w.t.Context(), id)
		return err == nil
	})
	return view
}

// vote answers what the person is shown.
func (w *askingWorld) vote(c *client.Client, id string, v approval.Verdict, standing time.Duration) (api.View, error) {
	w.t.Helper()
	q := answer(v, w.view(c, id).Request.Digest)
	q.Standing = policy.Duration(standing)
	return c.Vote(w.t.Context(), id, q)
}

func answer(v approval.Verdict, digest string) api.VoteRequest {
	return api.VoteRequest{Verdict: v, Digest: digest}
}

// wantRefused fails the test unless the desk refused with the status and the text.
func wantRefused(t *testing.T, err error, status int, text string) {
	t.Helper()
	var refused *api.Error
	if !errors.As(err, &refused) || refused.Status != status || !strings.Contains(refused.Message, text) {
		t.Errorf("got %v, want status %d and %q", err, status, text)
	}
}

// requested fits events about the request, with a value of another field if it is given.
func requested(id string, field ...string) func(map[string]any) bool {
	return func(data map[string]any) bool {
		return data["request"] == id && (len(field) == 0 || data[field[0]] == field[1])
	}
}

// approvedBy fits the event of a command that was let through by the request.
func approvedBy(id string) func(map[string]any) bool {
	return func(data map[string]any) bool {
		ids, _ := data["approvals"].([]any)
		return data["decision"] == "allow" && len(ids) == 1 && ids[0] == id
	}
}

func TestApprovalHolds(t *testing.T) {
	w := newAskingWorld(t)
	t.Run("until somebody approves", func(t *testing.T) {
		w := w.in(t)
		psql := w.start(w.job("planner", says("UPDATE orders SET note = 'paid with 4111 1111 1111 1111' WHERE id = 1", "SELECT 'on it ' || 'goes'")...))
		id := psql.notice(t)
		w.view(w.root(), id)
		for _, args := range [][]string{{"list"}, {"show", id}} {
			r := w.approvals(args...)
			r.want(t, 0, id, "UPDATE orders SET note = 'paid with ", "planner@corp-idp", "nightly-planner", "orders-db")
			if strings.Contains(r.out, "4111 1111 1111 1111") {
				t.Errorf("approvals %s shows a card's number:\n%s", args[0], r.out)
			}
		}
		if note := w.value("SELECT note FROM orders WHERE id = 1"); note != "first" {
			t.Errorf("before it is approved, the row has %q", note)
		}
		w.approvals("approve", "--yes", "--reason", "looks right", id).want(t, 0, id+": approved")
		psql.want(t, "on it goes")
		<-psql.done
		if note := w.value("SELECT note FROM orders WHERE id = 1"); note != "paid with 4111 1111 1111 1111" {
			t.Errorf("after it was approved, the row has %q", note)
		}
		asked := w.event(event.TypeApprovalRequested, requested(id))
		if text := asked["text"].(string); strings.Contains(text, "4111 1111 1111 1111") || asked["rule"] != "writes" || asked["why"] != "changes orders" {
			t.Errorf("asked was %v", asked)
		}
		w.event(event.TypeCommand, approvedBy(id))
		w.approvals("list", "--all").want(t, 0, id, "used")

		// The event has all that the authority has signed.
		var decided event.ApprovalDecided
		recast(t, w.event(event.TypeApprovalDecided, requested(id)), &decided)
		if len(decided.Votes) != 1 || decided.Outcome != "approved" {
			t.Fatalf("decided was %+v", decided)
		}
		v := decided.Votes[0]
		payload, err := json.Marshal(approval.Vote{
			Request: id, Cluster: "default", Node: "stage", Session: decided.Session, Digest: decided.Digest, Verdict: approval.Verdict(v.Verdict),
			By: approval.Person{Subject: v.By.Subject, Issuer: v.By.Issuer, Groups: v.By.Groups, IssuerURL: v.IssuerURL, Name: v.Name}, Via: v.Via, Reason: v.Reason,
			Standing: v.Standing, At: v.At, Until: v.Until,
		})
		if err != nil {
			t.Fatal(err)
		}
		var vote approval.Vote
		signed := authority.Signed{Payload: payload, Key: v.Key, Signature: v.Signature}
		if err := (authority.Keys{w.authority().Public()}).Verify(approval.SignedVote, signed, &vote); err != nil {
			t.Error(err)
		}
		if vote.By.String() != "root@local" || vote.Reason != "looks right" || vote.Via != approval.ViaTerminal {
			t.Errorf("the vote was %+v", vote)
		}
	})
	t.Run("until somebody denies", func(t *testing.T) {
		w := w.in(t)
		psql := w.start(w.job("planner", says("UPDATE orders SET note = 'denied' WHERE id = 2", "SELECT 'on it ' || 'goes'")...))
		id := psql.notice(t)
		w.view(w.root(), id)
		w.approvals("deny", "--yes", "--reason", "not on a Friday", id).want(t, 0, id+": denied")
		psql.want(t, "ERROR:  approval "+id+" was denied by root@local: not on a Friday")
		psql.want(t, "on it goes")
		<-psql.done
		if n := w.value("SELECT count(*) FROM orders WHERE note = 'denied'"); n != "0" {
			t.Errorf("%s rows were changed", n)
		}
		w.event(event.TypeApprovalDecided, requested(id, "outcome", "denied"))
		w.event(event.TypeCommand, func(data map[string]any) bool {
			return data["decision"] == "deny" && data["rule"] == "writes" && fmt.Sprint(data["approvals"]) == "["+id+"]"
		})
	})
	t.Run("until the client leaves", func(t *testing.T) {
		w := w.in(t)
		// The job goes on without its client.
		job := w.start(w.job("planner", "sh", "-c", psqlOf("UPDATE orders SET note = 'left'")+"; "+psqlOf("SELECT 'still ' || 'here'")))
		id := job.notice(t)
		process := w.view(w.root(), id).Request.Process
		if process.Comm != "psql" {
			t.Fatalf("it is asked for process %+v", process)
		}
		if err := syscall.Kill(int(process.PID), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		expired := w.event(event.TypeApprovalExpired, requested(id, "outcome", "cancelled"))
		if message := expired["message"].(string); !strings.Contains(message, "client has closed") {
			t.Errorf("it was cancelled as %q", message)
		}
		job.want(t, "still here")
		<-job.done
		w.until("the end of the request at the sink", func() bool { return w.view(w.root(), id).State == approval.StateCancelled })
		_, err := w.vote(w.root(), id, approval.Yes, 0)
		wantRefused(t, err, 410, "over")
		if n := w.value("SELECT count(*) FROM orders WHERE note = 'left'"); n != "0" {
			t.Errorf("%s rows were changed", n)
		}
	})
	t.Run("until the client cancels", func(t *testing.T) {
		w := w.in(t)
		cmd := w.job("planner", says("\\set VERBOSITY verbose", "UPDATE orders SET note = 'cancelled'")...)
		psql := w.start(cmd)
		id := psql.notice(t)
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		psql.want(t, "57014: canceling statement due to user request")
		<-psql.done
		w.event(event.TypeApprovalExpired, requested(id, "outcome", "cancelled"))
		w.event(event.TypeCommand, func(data map[string]any) bool {
			return data["decision"] == "deny" && data["sqlstate"] == "57014" && fmt.Sprint(data["approvals"]) == "["+id+"]"
		})
		if n := w.value("SELECT count(*) FROM orders WHERE note = 'cancelled'"); n != "0" {
			t.Errorf("%s rows were changed", n)
		}
	})
}

// recast decodes an event's data into its type.
func recast(t *testing.T, data map[string]any, into any) {
	t.Helper()
	text, err := json.Marshal(data)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// authority signs as the sink does.
func (w *askingWorld) authority() *authority.Signer {
	w.t.Helper()
	signer, err := authority.OpenSigner(filepath.Join(w.Path("state"), "sink"))
	if err != nil {
		w.t.Fatal(err)
	}
	return signer
}

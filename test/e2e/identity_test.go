package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
	openid "chaperone.dev/chaperone/internal/lab/idp"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// tokenWorld is a stage whose jobs prove who they act for with tokens of a real OpenID
// provider.
type tokenWorld struct {
	*world
	idp *openid.Provider
}

// proven are the workloads; the provider's document has the audiences that it is given.
func proven(issuer string, audiences string) string {
	return `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: nightly-planner}
spec:
  select: {run: {name: "nightly-*"}}
  identity: {issuer: corp-idp}
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: accounts}
spec:
  select: {run: {name: "account-*"}}
  identity:
    issuer: corp-idp
    clientCredentials: {clientID: nightly, clientSecretFrom: {file: "{{dir}}/client-secret"}, scopes: [groups]}
---
apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp-idp}
spec: {issuer: "` + issuer + `", audiences: [` + audiences + `], caFile: "{{dir}}/idp-ca.pem"}
`
}

func newTokenWorld(t *testing.T) *tokenWorld {
	t.Helper()
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	provider, err := openid.Start(t.Context(), openid.Options{CA: ca, Clients: []openid.Client{
		{ID: "nightly", Secret: "robot", ServiceAccount: true, Groups: []string{"planners"}, Audiences: []string{"chaperone"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := provider.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &tokenWorld{world: setStage(t, stage.Options{Documents: map[string]string{
		"workload.yaml": proven(provider.Issuer(), "chaperone"),
	}}), idp: provider}
	for name, text := range map[string]string{"idp-ca.pem": string(provider.CAPEM()), "client-secret": "robot\n"} {
		if err := os.WriteFile(w.Path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.up()
	return w
}

// request is of a token that would do.
func request() openid.TokenRequest {
	return openid.TokenRequest{Subject: "planner-7", Audience: []string{"chaperone"}, Groups: []string{"planners"}}
}

// soon is the life of a token that is accepted only since clocks may differ by half a
// minute: who proves something with it has a few seconds of that left.
const (
	soon = -18 * time.Second
	left = 12 * time.Second
)

// write puts a token into a file, as a renewer does: another file takes its place.
func (w *tokenWorld) write(file, token string) string {
	w.t.Helper()
	path := w.Path(file)
	if err := os.WriteFile(path+".new", []byte(token+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *tokenWorld) token(r openid.TokenRequest) string {
	w.t.Helper()
	token, err := w.idp.Token(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// run is a command that runs as a job with a token file.
func (w *tokenWorld) run(ctx context.Context, name, file string, command ...string) *exec.Cmd {
	return w.Command(ctx, append([]string{"run", "--name", name, "--token-file", file, "--"}, command...)...)
}

// start starts a job that goes on while the test does other things.
func (w *tokenWorld) start(cmd *exec.Cmd) *lines {
	w.t.Helper()
	cmd.Stderr = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	l := &lines{got: make(chan string, 100), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			l.got <- scanner.Text()
		}
		close(l.got)
		cmd.Wait()
	}()
	w.t.Cleanup(func() {
		cmd.Process.Kill()
		for range l.got {
		}
		<-l.done
	})
	return l
}

// lines are what a job prints.
type lines struct {
	got  chan string
	done chan struct{}
	all  []string
}

// want waits for a line with the text.
func (l *lines) want(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case line, ok := <-l.got:
			if !ok {
				t.Fatalf("it ended without %q; it printed:\n%s", text, strings.Join(l.all, "\n"))
			}
			l.all = append(l.all, line)
			if strings.Contains(line, text) {
				return
			}
		case <-timeout:
			t.Fatalf("no %q in:\n%s", text, strings.Join(l.all, "\n"))
		}
	}
}

func psqlOf(sql string) string {
	return strings.Join(quote(stage.Psql("-At", "-c", sql)), " ")
}

func TestTokensAreRenewed(t *testing.T) {
	w := newTokenWorld(t)
	short := request()
	short.Life = soon
	file := w.write("token", w.token(short))
	expired := time.Now().Add(left)

	commands := w.run(t.Context(), "nightly-renewed", file, stage.Psql("-At")...)
	in, err := commands.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	job := w.start(commands)
	fmt.Fprintln(in, "SELECT 'on the ' || 'first token';")
	job.want(t, "on the first token")
	w.write("token", w.token(request()))
	w.until("the end of the first token", func() bool { return time.Now().After(expired) })
	fmt.Fprintln(in, "SELECT 'on the ' || 'second token';")
	job.want(t, "on the second token")
	in.Close()
	<-job.done
	w.event(event.TypeSessionEnded, func(data map[string]any) bool { return data["reason"] == event.ReasonClientClosed })
	w.noRoles()
}

func TestTokenThatIsNotRenewedEndsWhatItGave(t *testing.T) {
	w := newTokenWorld(t)
	short := request()
	short.Life = soon
	file := w.write("token", w.token(short))
	// After its session has ended the job waits for a new token, and works again.
	job := w.start(w.run(t.Context(), "nightly-expiring", file, "sh", "-c",
		psqlOf(stage.SlowQuery)+"; echo over; "+psqlOf("SELECT 'too late'")+"; until [ -e "+w.Path("renewed")+" ]; do sleep 0.05; done; "+
			psqlOf("SELECT 'works ' || 'again'")))
	w.until("a running query", func() bool {
		running, err := w.SlowQueries(t.Context())
		return err == nil && running == 1
	})
	job.want(t, "the identity of this session's job has expired")
	job.want(t, "over")
	job.want(t, "can't prove who it acts for")
	w.event(event.TypeSessionEnded, func(data map[string]any) bool { return data["reason"] == event.ReasonNoIdentity })
	w.event(event.TypeCredentialRevoked, func(data map[string]any) bool { return data["verified"] == true })
	w.event(event.TypeSessionRefused, func(data map[string]any) bool {
		return data["reason"] == event.ReasonNoIdentity && strings.Contains(data["message"].(string), "was not renewed")
	})
	w.noRoles()

	w.write("token", w.token(request()))
	if err := os.WriteFile(w.Path("renewed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	job.want(t, "works again")
	<-job.done
}

// Another's token is no renewal.
func TestTokenOfSomebodyElseIsNoRenewal(t *testing.T) {
	w := newTokenWorld(t)
	short, other := request(), request()
	short.Life, other.Subject = soon, "root"
	file := w.write("token", w.token(short))
	job := w.start(w.run(t.Context(), "nightly-taken-over", file, "sh", "-c", psqlOf(stage.SlowQuery)+"; "+psqlOf("SELECT 'as root'")))
	w.until("a running query", func() bool {
		running, err := w.SlowQueries(t.Context())
		return err == nil && running == 1
	})
	w.write("token", w.token(other))
	w.event(event.TypeSessionRefused, func(data map[string]any) bool {
		return strings.Contains(data["message"].(string), "planner-7@corp-idp") && strings.Contains(data["message"].(string), "root@corp-idp")
	})
	job.want(t, "the identity of this session's job has expired")
	job.want(t, "root@corp-idp")
	<-job.done
}

func TestTokensThatAreRefused(t *testing.T) {
	w := newTokenWorld(t)
	plain := w.token(request())
	parts := strings.Split(plain, ".")
	header, err := json.Marshal(map[string]string{"alg": "none", "typ": "JWT"})
	if err != nil {
		t.Fatal(err)
	}
	unsigned := base64.RawURLEncoding.EncodeToString(header) + "." + parts[1] + "."
	for _, test := range []struct {
		name, token string
		change      func(*openid.TokenRequest)
		want        string
	}{
		{"forged", parts[0] + "." + strings.Split(w.token(openid.TokenRequest{Subject: "root", Audience: []string{"chaperone"}}), ".")[1] + "." + parts[2],
			nil, "signature"},
		{"alg=none", unsigned, nil, `\"none\"`},
		{"for somebody else", "", func(r *openid.TokenRequest) { r.Audience = []string{"billing"} }, `it is for audience ["billing"], not for ["chaperone"]`},
		{"expired", "", func(r *openid.TokenRequest) { r.Life = -time.Hour }, "it expired at 2"},
		{"not valid yet", "", func(r *openid.TokenRequest) {
			r.Claims = map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}
		}, "yet to come"},
		{"no token at all", "hunter2", nil, "malformed"},
		{"empty", " ", nil, "it is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &tokenWorld{world: w.in(t), idp: w.idp}
			token := test.token
			if token == "" {
				r := request()
				test.change(&r)
				token = w.token(r)
			}
			name := "nightly-" + strings.ReplaceAll(test.name, " ", "-")
			name = strings.ReplaceAll(name, "=", "-")
			r := w.do(w.run(t.Context(), name, w.write("token", token), "true"))
			r.want(t, 125, `job "`+name+`" was not started`, strings.ReplaceAll(test.want, `\"`, `"`))
			if token != " " && strings.Contains(r.out+w.log.String(), token) {
				t.Error("the token is told")
			}
			w.event(event.TypeSessionRefused, func(data map[string]any) bool {
				workload, _ := data["workload"].(map[string]any)
				return data["reason"] == event.ReasonNoIdentity && workload["name"] == name &&
					strings.Contains(data["message"].(string), strings.ReplaceAll(test.want, `\"`, `"`))
			})
		})
	}
	t.Run("of a file that the user can't read", func(t *testing.T) {
		w := &tokenWorld{world: w.in(t), idp: w.idp}
		run := w.run(t.Context(), "nightly-nobody", w.write("token", plain), "true")
		run.Dir = "/"
		run.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		w.do(run).want(t, 125, "permission denied")
		run = w.run(t.Context(), "nightly-nobody", w.Path("token"), "true")
		if err := os.Chown(w.Path("token"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		run.Dir = "/"
		run.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		w.do(run).want(t, 0)
	})
	t.Run("nothing was granted", func(t *testing.T) {
		if roles, err := w.Roles(t.Context()); err != nil || len(roles) > 0 {
			t.Errorf("roles %v, %v", roles, err)
		}
	})
}

func TestIssuerThatIsDownAtTheStartOfAJob(t *testing.T) {
	w := newTokenWorld(t)
	file := w.write("token", w.token(request()))
	w.idp.Stop()
	w.do(w.run(t.Context(), "nightly-down", file, "true")).want(t, 125, "issuer unavailable")
	w.event(event.TypeSessionRefused, func(data map[string]any) bool {
		return data["reason"] == event.ReasonNoIdentity && strings.Contains(data["message"].(string), "issuer unavailable")
	})
	if err := w.idp.Resume(); err != nil {
		t.Fatal(err)
	}
	works := func() bool {
		return w.do(w.run(t.Context(), "nightly-up", file, stage.Psql("-At", "-c", "SELECT 'works'")...)).code == 0
	}
	w.until("a job that works", works)
	// Its keys are known now: another outage is none.
	w.idp.Stop()
	w.do(w.run(t.Context(), "nightly-outage", file, stage.Psql("-At", "-c", "SELECT 'works'")...)).want(t, 0, "works")
}

func TestServiceAccountsOfTheIssuer(t *testing.T) {
	w := newTokenWorld(t)
	w.do(w.Planner(t.Context(), "account-a", stage.Psql("-At", "-c", "SELECT 'works'")...)).want(t, 0, "works")
	w.event(event.TypeSessionStarted, func(data map[string]any) bool {
		principal := data["principal"].(map[string]any)
		return principal["subject"] == "nightly" && principal["issuer"] == "corp-idp"
	})
	w.do(w.run(t.Context(), "account-b", w.write("token", w.token(request())), "true")).want(t, 125, "leave --token-file out")
	if err := os.WriteFile(w.Path("client-secret"), []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.do(w.Planner(t.Context(), "account-c", "true")).want(t, 125, "service account refused", "invalid_client")
}

// Other documents may not let a principal live that they would not have accepted.
func TestChangedProviderEndsWhatTheFormerProved(t *testing.T) {
	w := newTokenWorld(t)
	file := w.write("token", w.token(request()))
	job := w.start(w.run(t.Context(), "nightly-changed", file, "sh", "-c", psqlOf(stage.SlowQuery)+"; "+psqlOf("SELECT 'on'")))
	w.until("a running query", func() bool {
		running, err := w.SlowQueries(t.Context())
		return err == nil && running == 1
	})
	if err := w.WriteDocument("workload.yaml", proven(w.idp.Issuer(), "billing")); err != nil {
		t.Fatal(err)
	}
	if err := w.daemon.Reload(); err != nil {
		t.Fatal(err)
	}
	job.want(t, "by the documents in force now it is not proved who the job acts for")
	job.want(t, `not for ["billing"]`)
	<-job.done
	w.noRoles()
}

package desk

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/desk/client"
	"chaperone.dev/chaperone/internal/lab/idp"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	ada, eve := w.token("ada", "dba"), w.token("eve", "interns")
	open := w.put(request(func(r *approval.Request) { r.Standing = time.Hour }), approval.StatePending)
	own := w.put(request(func(r *approval.Request) { r.Principal = event.Principal{Subject: "ada", Issuer: "corp"} }), approval.StatePending)
	late := w.put(request(func(r *approval.Request) {
		r.Created, r.Expires = r.Created.Add(-time.Hour), r.Created.Add(-time.Minute)
	}), approval.StatePending)
	gone := w.put(request(), approval.StateCancelled)
	ran := w.put(request(), approval.StateUsed)
	escalating := w.put(request(func(r *approval.Request) {
		r.Escalate = []policy.EscalationSpec{{After: policy.Duration(5 * time.Minute), To: policy.PrincipalSelect{Groups: []string{"interns"}}}}
	}), approval.StatePending)
	yes := func(r approval.Request) api.VoteRequest { return vote(r, approval.Yes) }
	with := func(v api.VoteRequest, f func(*api.VoteRequest)) api.VoteRequest { f(&v); return v }
	votes := func(r approval.Request) string { return "/v1/approvals/" + r.ID + "/votes" }
	token := func(q idp.TokenRequest) string {
		q.Subject, q.Groups = "ada", []string{"dba"}
		return w.tokenOf(q)
	}

	for _, c := range []struct {
		name, method, path, token string
		body                      any
		change                    func(*http.Request)
		status                    int
		says                      string
	}{
		{name: "no token", method: "GET", path: "/v1/approvals", status: 401, says: "not logged in"},
		{name: "no token, to watch", method: "GET", path: "/v1/approvals/watch", status: 401, says: "not logged in"},
		{name: "no token, to vote", method: "POST", path: votes(open), body: yes(open), status: 401, says: "not logged in"},
		{name: "no token, locks", method: "GET", path: "/v1/locks", status: 401, says: "not logged in"},
		{name: "no token", method: "GET", path: "/v1/documents", status: 401, says: "not logged in"},
		{name: "garbage", method: "GET", path: "/v1/whoami", token: "a.b.c", status: 401, says: "refused"},
		{name: "basic", method: "GET", path: "/v1/whoami", change: func(r *http.Request) { r.SetBasicAuth("ada", "x") }, status: 401, says: "Bearer"},
		{name: "audience", method: "GET", path: "/v1/whoami", token: token(idp.TokenRequest{Audience: []string{"other"}}), status: 401, says: "audience"},
		{name: "expired", method: "GET", path: "/v1/whoami", token: token(idp.TokenRequest{Audience: []string{"cli"}, Life: -time.Hour}), status: 401, says: "expired"},
		{name: "another client's", method: "GET", path: "/v1/whoami", token: token(idp.TokenRequest{Audience: []string{"cli"}, Claims: map[string]any{"azp": "other"}}), status: 401, says: "another client"},
		{name: "cookie of nobody", method: "GET", path: "/v1/whoami", change: func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "__Host-chaperone", Value: "x"}) }, status: 401, says: "Log in again"},
		{name: "not in group, read", method: "GET", path: "/v1/approvals/" + open.ID, token: eve, status: 404, says: "not for you"},
		{name: "not in group, vote", method: "POST", path: votes(open), token: eve, body: yes(open), status: 404, says: "not for you"},
		{name: "unknown id", method: "GET", path: "/v1/approvals/" + newID(), token: ada, status: 404, says: "no such request"},
		{name: "ambiguous id", method: "GET", path: "/v1/approvals/a-", token: ada, status: 404, says: "no such request"},
		{name: "self", method: "POST", path: votes(own), token: ada, body: yes(own), status: 403, says: "job of their own"},
		{name: "not yet", method: "POST", path: votes(escalating), token: eve, body: yes(escalating), status: 403, says: "not yet"},
		{name: "digest", method: "POST", path: votes(open), token: ada, body: with(yes(open), func(v *api.VoteRequest) { v.Digest = strings.Repeat("cd", 32) }), status: 409, says: "something else"},
		{name: "no digest", method: "POST", path: votes(open), token: ada, body: with(yes(open), func(v *api.VoteRequest) { v.Digest = "" }), status: 400, says: "digest"},
		{name: "verdict", method: "POST", path: votes(open), token: ada, body: with(yes(open), func(v *api.VoteRequest) { v.Verdict = "perhaps" }), status: 400, says: "verdict"},
		{name: "long reason", method: "POST", path: votes(open), token: ada, body: with(yes(open), func(v *api.VoteRequest) { v.Reason = strings.Repeat("x", 501) }), status: 400, says: "reason"},
		{name: "standing", method: "POST", path: votes(open), token: ada, body: with(yes(open), func(v *api.VoteRequest) { v.Standing = policy.Duration(2 * time.Hour) }), status: 400, says: "at most 1h0m0s"},
		{name: "standing no", method: "POST", path: votes(open), token: ada, body: with(vote(open, approval.No), func(v *api.VoteRequest) { v.Standing = policy.Duration(time.Minute) }), status: 400, says: "standing"},
		{name: "standing where none is", method: "POST", path: votes(escalating), token: ada, body: with(yes(escalating), func(v *api.VoteRequest) { v.Standing = policy.Duration(time.Minute) }), status: 400, says: "this once"},
		{name: "expired request", method: "POST", path: votes(late), token: ada, body: yes(late), status: 410, says: "over"},
		{name: "cancelled request", method: "POST", path: votes(gone), token: ada, body: yes(gone), status: 410, says: "over"},
		{name: "decided request", method: "POST", path: votes(ran), token: ada, body: yes(ran), status: 409, says: "already approved"},
		{name: "unknown field", method: "POST", path: votes(open), token: ada, body: `{"verdict":"approve","digest":"x","by":"root"}`, status: 400, says: "unknown field"},
		{name: "two values", method: "POST", path: votes(open), token: ada, body: `{} {}`, status: 400, says: "more than one"},
		{name: "form", method: "POST", path: votes(open), token: ada, body: "verdict=approve", change: func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, status: 415, says: "application/json"},
		{name: "large", method: "POST", path: votes(open), token: ada, body: `{"reason":"` + strings.Repeat("x", api.MaxBody) + `"}`, status: 413, says: "longer"},
		{name: "lock", method: "POST", path: "/v1/locks", token: ada, body: api.LockRequest{Principal: "eve@corp", For: policy.Duration(time.Hour)}, status: 403, says: "admins"},
		{name: "unlock", method: "DELETE", path: "/v1/locks/l-aaaaaaaaaaaaaaaa", token: ada, status: 403, says: "admins"},
		{name: "publish", method: "PUT", path: "/v1/documents", token: ada, body: api.PublishRequest{}, status: 403, says: "admins"},
		{name: "nothing there", method: "GET", path: "/v1/sessions", token: ada, status: 404, says: "There is no"},
		{name: "state", method: "GET", path: "/v1/approvals?state=some", token: ada, status: 400, says: "state"},
		{name: "another host", method: "GET", path: "/", change: func(r *http.Request) { r.Host = "evil.example" }, status: 421},
		{name: "slack is off", method: "POST", path: "/hooks/slack", body: "payload=x", status: 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			change := c.change
			if change == nil {
				change = func(*http.Request) {}
			}
			status, refused := w.call(c.method, c.path, c.token, c.body, nil, change)
			if status != c.status || !strings.Contains(refused.Message, c.says) || c.says != "" && refused.Code == "" {
				t.Errorf("got %d %+v, want %d and %q", status, refused, c.status, c.says)
			}
		})
	}

	var list []api.View
	if status, _ := w.call("GET", "/v1/approvals?state=all", eve, nil, &list); status != 200 || len(list) != 1 || list[0].May || !strings.Contains(list[0].MayNot, "from") {
		t.Errorf("whoever is asked later sees %d %+v", status, list)
	}
	var reasons []string
	w.mu.Lock()
	for _, data := range w.audits {
		if rejected, ok := data.(event.ApprovalRejected); ok {
			reasons = append(reasons, rejected.Reason)
		}
	}
	w.mu.Unlock()
	if got := strings.Join(reasons, " "); got != "self not_asked digest standing standing standing late late" {
		t.Errorf("refused answers on record: %s", got)
	}
}

func TestAnswer(t *testing.T) {
	w := newWorld(t)
	ada, bob, admin := w.token("ada", "dba"), w.token("bob", "dba"), w.token("root-of-all", "admins")
	r := w.put(request(func(r *approval.Request) { r.Count, r.Standing = 2, time.Hour }), approval.StatePending)
	var v api.View
	if status, _ := w.call("GET", "/v1/approvals/"+r.ID[2:9], ada, nil, &v); status != 200 || !v.May || v.State != approval.StatePending || v.Left < 500 || v.Request.Text != r.Text {
		t.Fatalf("%d %+v", status, v)
	}
	if status, _ := w.call("GET", "/v1/approvals/"+r.ID, admin, nil, &v); status != 200 || v.May || !strings.Contains(v.MayNot, "not among") {
		t.Fatalf("an admin who is not asked: %d %+v", status, v)
	}
	first := api.VoteRequest{Verdict: approval.Yes, Digest: r.Digest, Reason: "ticket 7", Standing: policy.Duration(30 * time.Minute)}
	if status, refused := w.call("POST", "/v1/approvals/"+r.ID+"/votes", ada, first, &v); status != 200 || v.State != approval.StatePending || v.May || len(v.Votes) != 1 {
		t.Fatalf("%d %+v %+v", status, refused, v)
	}
	if got := v.Votes[0]; got.By.String() != "ada@corp" || got.By.Name != "Ada Lovelace" || got.Via != approval.ViaTerminal || got.Reason != "ticket 7" || got.Standing.String() != "30m0s" {
		t.Errorf("the vote is %+v", got)
	}
	if status, refused := w.call("POST", "/v1/approvals/"+r.ID+"/votes", ada, vote(r, approval.Yes), nil); status != 409 || !strings.Contains(refused.Message, "answered already") {
		t.Errorf("a second answer of the same: %d %+v", status, refused)
	}
	if status, _ := w.call("POST", "/v1/approvals/"+r.ID+"/votes", bob, vote(r, approval.Yes), &v); status != 200 || v.State != approval.StateApproved || len(v.Votes) != 2 {
		t.Errorf("%d %+v", status, v)
	}
	eventually(t, "it waits no longer", func() bool {
		var list []api.View
		status, _ := w.call("GET", "/v1/approvals", bob, nil, &list)
		return status == 200 && len(list) == 0
	})
}

// Of two who answer at once, one decides and the other is told who did.
func TestAnswersRace(t *testing.T) {
	w := newWorld(t)
	tokens := map[string]string{"ada": w.token("ada", "dba"), "bob": w.token("bob", "dba")}
	for range 10 {
		r := w.put(request(), approval.StatePending)
		type result struct {
			who     string
			status  int
			refused api.Error
		}
		results := make(chan result, 2)
		var start sync.WaitGroup
		start.Add(1)
		for name, token := range tokens {
			go func() {
				start.Wait()
				status, refused := w.call("POST", "/v1/approvals/"+r.ID+"/votes", token, vote(r, approval.Yes), nil)
				results <- result{name, status, refused}
			}()
		}
		start.Done()
		a, b := <-results, <-results
		if a.status != 200 {
			a, b = b, a
		}
		if a.status != 200 || b.status != 409 || !strings.Contains(b.refused.Message, "already approved by "+a.who+"@corp") {
			t.Fatalf("%+v and %+v", a, b)
		}
	}
}

func TestClientWatchesAndOutlivesNATS(t *testing.T) {
	w := newWorld(t)
	c, err := client.New(client.Options{URL: w.url, CAFile: w.caFile, Token: func(context.Context) (string, error) { return w.token("ada", "dba"), nil }})
	ok(t, err)
	defer c.Close()
	first := w.put(request(), approval.StatePending)
	w.put(request(func(r *approval.Request) { r.From = policy.PrincipalSelect{Groups: []string{"others"}} }), approval.StatePending)
	seen := make(chan api.View, 100)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() {
		watched <- c.Watch(ctx, func(v api.View) error { seen <- v; return nil })
	}()
	wait := func(id string, state approval.State) {
		t.Helper()
		for {
			select {
			case v := <-seen:
				if v.Request.ID == id && v.State == state {
					return
				}
				if v.Request.From.Groups[0] != "dba" {
					t.Fatalf("somebody else's request: %+v", v.Request)
				}
			case err := <-watched:
				t.Fatalf("the watch ended: %v", err)
			case <-time.After(30 * time.Second):
				t.Fatalf("%s is never told as %s", id, state)
			}
		}
	}
	wait(first.ID, approval.StatePending)
	second := request()
	w.write(second, approval.StatePending)
	wait(second.ID, approval.StatePending)
	v, err := c.Vote(t.Context(), second.ID, vote(second, approval.No))
	ok(t, err)
	if v.State != approval.StateDenied {
		t.Errorf("the state is %s", v.State)
	}
	wait(second.ID, approval.StateDenied)

	listen := strings.TrimPrefix(w.nats.URL(), "nats://")
	w.nats.Shutdown()
	eventually(t, "the desk notices", func() bool { return !w.desk.board.upToDate() })
	list, err := c.Approvals(t.Context(), "pending")
	ok(t, err)
	if len(list) != 1 || list[0].Request.ID != first.ID {
		t.Errorf("while NATS is away it shows %d requests", len(list))
	}
	var refused *api.Error
	if _, err := c.Vote(t.Context(), first.ID, vote(first, approval.Yes)); !errorAs(err, &refused) || refused.Status != 503 || refused.Code != api.CodeUnavailable {
		t.Errorf("an answer while NATS is away: %v", err)
	}
	w.startNATS(listen)
	eventually(t, "the desk follows again", w.desk.board.upToDate)
	third := request()
	eventually(t, "the node reaches NATS again", w.nodeConn.IsConnected)
	w.write(third, approval.StatePending)
	wait(third.ID, approval.StatePending)
	cancel()
	ok(t, <-watched)
}

func TestLocksAndDocuments(t *testing.T) {
	w := newWorld(t)
	admin, ada := w.token("root-of-all", "admins"), w.token("ada", "dba")
	var e lock.Entry
	status, refused := w.call("POST", "/v1/locks", admin, api.LockRequest{Principal: "ada@corp", Reason: "incident 9", For: policy.Duration(time.Hour)}, &e)
	if status != 200 || e.Lock.By.String() != "root-of-all@corp" || e.Lock.Expires.Sub(e.Lock.Created) != time.Hour {
		t.Fatalf("%d %+v %+v", status, refused, e)
	}
	if status, _ := w.call("POST", "/v1/locks", admin, api.LockRequest{Target: "orders-db", For: policy.Duration(time.Hour)}, nil); status != 200 {
		t.Fatalf("a second lock: %d", status)
	}
	var all, own []lock.Entry
	w.call("GET", "/v1/locks", admin, nil, &all)
	w.call("GET", "/v1/locks", ada, nil, &own)
	if len(all) != 2 || all[0].Lock.Target != "orders-db" || len(own) != 1 || own[0].Lock.ID != e.Lock.ID {
		t.Errorf("an admin sees %+v, who is locked %+v", all, own)
	}
	if status, refused := w.call("POST", "/v1/locks", admin, api.LockRequest{For: policy.Duration(time.Hour)}, nil); status != 400 {
		t.Errorf("a lock of nothing: %d %+v", status, refused)
	}
	if status, refused := w.call("POST", "/v1/locks", admin, api.LockRequest{Target: "x"}, nil); status != 400 || !strings.Contains(refused.Message, "for:") {
		t.Errorf("a lock for no time: %d %+v", status, refused)
	}
	if status, _ := w.call("DELETE", "/v1/locks/"+e.Lock.ID, admin, api.UnlockRequest{Reason: "over"}, &e); status != 200 || e.Released == nil || e.ReleasedBy.String() != "root-of-all@corp" {
		t.Errorf("%d %+v", status, e)
	}
	if status, _ := w.call("DELETE", "/v1/locks/"+e.Lock.ID, admin, nil, nil); status != 409 {
		t.Errorf("released twice: %d", status)
	}
	if status, _ := w.call("DELETE", "/v1/locks/l-aaaaaaaaaaaaaaaa", admin, nil, nil); status != 404 {
		t.Errorf("no such lock: %d", status)
	}

	if status, refused := w.call("GET", "/v1/documents", admin, nil, nil); status != 404 || refused.Code != api.CodeNotFound {
		t.Errorf("nothing is published: %d %+v", status, refused)
	}
	bad := api.PublishRequest{Files: map[string]string{"t.yaml": "apiVersion: chaperone.dev/v1alpha1\nkind: Target\nmetadata: {name: x}\nspec: {protocol: gopher, hosts: [\"nonsense\"]}\n"}}
	if status, refused := w.call("PUT", "/v1/documents", admin, bad, nil); status != 400 || strings.Count(refused.Message, "\n") < 1 || !strings.Contains(refused.Message, "gopher") || !strings.Contains(refused.Message, "t.yaml") {
		t.Errorf("documents that don't load: %d %+v", status, refused)
	}
	good := api.PublishRequest{Files: map[string]string{"idp.yaml": "apiVersion: chaperone.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {name: corp}\nspec: {issuer: \"https://idp.example\", audiences: [a]}\n"}}
	var put, got api.Published
	if status, refused := w.call("PUT", "/v1/documents", admin, good, &put); status != 200 || put.Serial == 0 || put.Revision == "" {
		t.Fatalf("%d %+v %+v", status, refused, put)
	}
	if status, _ := w.call("GET", "/v1/documents", admin, nil, &got); status != 200 || got.Serial != put.Serial || got.Revision != put.Revision || got.By.String() != "root-of-all@corp" || len(got.Files) != 1 {
		t.Errorf("%d %+v", status, got)
	}
}

// On the unix socket the kernel says who asks.
func TestLocal(t *testing.T) {
	w := newWorld(t)
	r := w.put(request(func(r *approval.Request) { r.From = policy.PrincipalSelect{Subjects: []string{"daemon@local"}} }), approval.StatePending)
	for _, want := range []struct {
		uid   uint32
		who   string
		admin bool
		vote  int // the status of an answer
	}{{0, "root@local", true, 403}, {65534, "nobody@local", false, 404}, {4_000_000, "", false, 401}, {1, "daemon@local", false, 200}} {
		uid := want.uid
		handler := w.desk.LocalHandler(func(context.Context) (uint32, error) { return uid, nil })
		socket := filepath.Join(t.TempDir(), "s")
		listener, err := net.Listen("unix", socket)
		ok(t, err)
		server := &http.Server{Handler: handler}
		done := make(chan error, 1)
		go func() { done <- server.Serve(listener) }()
		c, err := client.New(client.Options{Socket: socket})
		ok(t, err)
		who, err := c.WhoAmI(t.Context())
		if want.who == "" {
			if err == nil {
				t.Errorf("uid %d is %+v", uid, who)
			}
		} else if err != nil || who.String() != want.who || who.Admin != want.admin || who.CSRF != "" {
			t.Errorf("uid %d is %+v, %v", uid, who, err)
		}
		_, err = c.Vote(t.Context(), r.ID, vote(r, approval.Yes))
		var refused *api.Error
		if want.vote == 200 && err != nil || want.vote != 200 && (!errorAs(err, &refused) || refused.Status != want.vote) {
			t.Errorf("uid %d answers: %v", uid, err)
		}
		c.Close()
		ok(t, server.Close())
		<-done
	}
}

// Without a Sink document there is the unix socket and nothing else.
func TestWithoutSinkDocument(t *testing.T) {
	w := newWorld(t)
	d, err := Open(Options{Buckets: w.desk.buckets, Signer: w.desk.signer, Log: zerolog.Nop()})
	ok(t, err)
	ok(t, d.ServeTCP(t.Context(), func(net.Addr) { t.Error("it serves") }))
	d.Close()
}

func TestCertificateIsReadAgain(t *testing.T) {
	w := newWorld(t)
	serial := func() string {
		c, err := tls.Dial("tcp", w.spec.Spec.Listen, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // its certificate is looked at below
		ok(t, err)
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	w.file("tls.key", "half a key")
	eventually(t, "a second look", func() bool { return serial() == before })
	w.writeCertificate(w.spec.Spec.TLS)
	eventually(t, "the new certificate serves", func() bool { return serial() != before })
	if _, err := tls.Dial("tcp", w.spec.Spec.Listen, &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10, InsecureSkipVerify: true}); err == nil { //nolint:gosec // to be refused
		t.Error("TLS 1.1 is taken")
	}
}

func TestPlainOnlyOnLoopback(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.spec.Spec.TLS, w.spec.Spec.Listen, w.spec.Spec.URL = nil, "0.0.0.0:0", "http://127.0.0.1:1"
	d, err := Open(Options{Buckets: w.desk.buckets, Signer: w.desk.signer, Sink: w.spec, Log: zerolog.Nop(),
		Providers: []*policy.IdentityProvider{{Metadata: policy.Metadata{Name: "corp"}, Spec: policy.IdentityProviderSpec{Issuer: w.idp.Issuer(), Audiences: []string{"cli"}, CAFile: w.caFile}}}})
	ok(t, err)
	defer d.Close()
	if err := d.ServeTCP(t.Context(), func(net.Addr) { t.Error("it serves") }); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("got %v", err)
	}
}

package desk

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/lab/idp"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("it never happened: %s", what)
		}
	}
}

// world is a desk that serves over TLS, the NATS it works with, and the OpenID
// provider where people log in.
type world struct {
	t        *testing.T
	dir, url string
	caFile   string
	ca       *lab.CA
	nats     *bus.Server
	idp      *idp.Provider
	desk     *Desk
	nodeConn *nats.Conn
	node     jetstream.KeyValue // of requests, as the node writes them
	http     *http.Client       // trusts the CA, follows no redirect
	spec     *policy.Sink
	stop     func() // of the desk

	mu     sync.Mutex
	audits []event.Data
}

const password = "correct horse"

// newWorld starts all of it. change may alter the Sink document.
func newWorld(t *testing.T, change ...func(*world, *policy.SinkSpec)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	var err error
	w.ca, err = lab.NewCA()
	ok(t, err)
	w.caFile = filepath.Join(w.dir, "ca.pem")
	ok(t, os.WriteFile(w.caFile, w.ca.PEM(), 0o600))
	natsPort, err := lab.FreePort(t.Context())
	ok(t, err)
	w.startNATS(fmt.Sprintf("127.0.0.1:%d", natsPort))
	t.Cleanup(func() { w.nats.Shutdown() })
	port, err := lab.FreePort(t.Context())
	ok(t, err)
	w.url = fmt.Sprintf("https://localhost:%d", port)
	w.idp, err = idp.Start(t.Context(), idp.Options{
		CA: w.ca,
		Users: []idp.User{
			{Subject: "ada", Password: password, Name: "Ada Lovelace", Groups: []string{"dba"}},
			{Subject: "bob", Password: password, Groups: []string{"dba"}},
			{Subject: "eve", Password: password, Groups: []string{"interns"}},
			{Subject: "root-of-all", Password: password, Groups: []string{"admins"}},
		},
		Clients: []idp.Client{{ID: "page", Redirects: []string{w.url + "/callback"}}, {ID: "cli", Redirects: []string{"http://127.0.0.1/callback"}, Device: true}},
	})
	ok(t, err)
	t.Cleanup(func() { ok(t, w.idp.Close()) })

	tlsFiles := &policy.ServerTLSSpec{CertFile: filepath.Join(w.dir, "tls.crt"), KeyFile: filepath.Join(w.dir, "tls.key")}
	w.writeCertificate(tlsFiles)
	w.spec = &policy.Sink{Metadata: policy.Metadata{Name: "sink"}, Spec: policy.SinkSpec{
		Listen: fmt.Sprintf("127.0.0.1:%d", port), URL: w.url, TLS: tlsFiles,
		Login:  policy.LoginSpec{Issuer: "corp", ClientID: "page", CLIClientID: "cli", Scopes: []string{"profile", "groups"}, SessionLife: policy.Duration(8 * time.Hour)},
		Admins: policy.PrincipalSelect{Groups: []string{"admins"}},
	}}
	for _, f := range change {
		f(w, &w.spec.Spec)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.ca.PEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	w.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(transport.CloseIdleConnections)
	w.nodeConn, err = bus.Connect(bus.Remote{URL: w.nats.URL(), Role: bus.RoleNode, SeedFile: bus.SeedFile(w.dir, bus.RoleNode)})
	ok(t, err)
	t.Cleanup(w.nodeConn.Close)
	js, err := jetstream.New(w.nodeConn)
	ok(t, err)
	w.node, err = bus.BucketsOf(js).Approvals.KV(t.Context())
	ok(t, err)
	w.start()
	return w
}

func (w *world) startNATS(listen string) {
	w.t.Helper()
	server, err := bus.Embedded(w.t.Context(), bus.Options{Dir: w.dir, Cluster: "c1", Node: "n1", Listen: listen, Log: zerolog.Nop()})
	ok(w.t, err)
	w.nats = server
}

func (w *world) writeCertificate(files *policy.ServerTLSSpec) {
	w.t.Helper()
	pair, err := w.ca.Issue("localhost", "127.0.0.1")
	ok(w.t, err)
	ok(w.t, os.WriteFile(files.KeyFile, pair.KeyPEM, 0o600))
	ok(w.t, os.WriteFile(files.CertFile, pair.CertPEM, 0o600))
}

// start opens the desk and serves it until the test's end, or [world.stop].
func (w *world) start() {
	w.t.Helper()
	conn, err := bus.Connect(bus.Remote{URL: w.nats.URL(), Role: bus.RoleSink, SeedFile: bus.SeedFile(w.dir, bus.RoleSink)})
	ok(w.t, err)
	js, err := jetstream.New(conn)
	ok(w.t, err)
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	signer, err := authority.NewSigner(key)
	ok(w.t, err)
	w.desk, err = Open(Options{
		Buckets: bus.BucketsOf(js), Signer: signer, Sink: w.spec, Log: zerolog.Nop(), SlackHosts: w.slackHosts(),
		Providers: []*policy.IdentityProvider{{Metadata: policy.Metadata{Name: "corp"},
			Spec: policy.IdentityProviderSpec{Issuer: w.idp.Issuer(), Audiences: []string{"page", "cli"}, CAFile: w.caFile}}},
		Audit: func(_ event.Origin, data event.Data) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.audits = append(w.audits, data)
		},
	})
	ok(w.t, err)
	for _, h := range w.desk.hooks {
		h.pause = time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	ready := make(chan struct{})
	for _, f := range []func(context.Context) error{w.desk.Run, func(ctx context.Context) error { return w.desk.ServeTCP(ctx, func(net.Addr) { close(ready) }) }} {
		running.Go(func() {
			if err := f(ctx); err != nil {
				w.t.Error(err)
			}
		})
	}
	<-ready
	w.stop = sync.OnceFunc(func() {
		cancel()
		w.http.CloseIdleConnections()
		running.Wait()
		w.desk.Close()
		conn.Close()
	})
	w.t.Cleanup(w.stop)
}

// slackHosts are where the test's Slack is: where the first webhook is.
func (w *world) slackHosts() []string {
	if len(w.spec.Spec.Webhooks) == 0 {
		return nil
	}
	address, err := os.ReadFile(w.spec.Spec.Webhooks[0].URLFrom.File)
	ok(w.t, err)
	u, err := url.Parse(strings.TrimSpace(string(address)))
	ok(w.t, err)
	return []string{u.Host}
}

// file writes a file and returns its path.
func (w *world) file(name, content string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	ok(w.t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// newID is an id as nodes make them.
func newID() string {
	var b [10]byte
	_, _ = rand.Read(b[:])
	return "a-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// request is one as a node writes it.
func request(change ...func(*approval.Request)) approval.Request {
	now := time.Now().UTC().Truncate(time.Second)
	r := approval.Request{
		ID: newID(), Cluster: "c1", Node: "n1", About: approval.AboutCommand, Session: "s-1",
		Principal: event.Principal{Subject: "nightly", Issuer: "corp", Groups: []string{"bots"}},
		Workload:  event.Workload{Name: "report", Job: "j-1", Kind: "run"},
		Target:    event.Target{Name: "orders-db", Protocol: "postgres", Host: "orders.corp.example", Address: "10.0.0.1:5432", Database: "orders"},
		Process:   event.Process{PID: 4242, UID: 1000, Comm: "psql", Executable: "/usr/bin/psql"},
		Text:      "DELETE FROM orders WHERE id = $1", Parameters: []string{"42"},
		Parsed: event.Parsed{Kinds: []string{"DELETE"}, Tables: []string{"public.orders"}},
		Digest: strings.Repeat("ab", 32), Policy: "orders", Rule: "writes", Why: "Writes to orders are looked at.", When: "!statement.readOnly", Revision: "r-1",
		From:  policy.PrincipalSelect{Groups: []string{"dba"}},
		Count: 1, Mode: policy.ModeHold, Created: now, Expires: now.Add(10 * time.Minute),
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

// put writes a request as its node does, and waits until the desk knows.
func (w *world) put(r approval.Request, state approval.State) approval.Request {
	w.t.Helper()
	w.write(r, state)
	eventually(w.t, "the desk knows "+r.ID, func() bool {
		for _, i := range w.desk.board.all() {
			if i.record.Request.ID == r.ID && i.record.State == state {
				return true
			}
		}
		return false
	})
	return r
}

func (w *world) write(r approval.Request, state approval.State) {
	w.t.Helper()
	value, err := json.Marshal(approval.Record{Request: r, State: state, Changed: time.Now().UTC()})
	ok(w.t, err)
	_, err = w.node.Put(w.t.Context(), approval.RecordKey(r.Cluster, r.Node, r.ID), value)
	ok(w.t, err)
}

// token is an ID token of a person, as the command line gets it.
func (w *world) token(subject string, groups ...string) string {
	return w.tokenOf(idp.TokenRequest{Subject: subject, Groups: groups, Audience: []string{"cli"}})
}

func (w *world) tokenOf(q idp.TokenRequest) string {
	w.t.Helper()
	token, err := w.idp.Token(q)
	ok(w.t, err)
	return token
}

// call asks the desk, and decodes the answer into what is given.
func (w *world) call(method, path, token string, body, into any, change ...func(*http.Request)) (int, api.Error) {
	w.t.Helper()
	var content io.Reader
	if text, raw := body.(string); raw {
		content = strings.NewReader(text)
	} else if body != nil {
		text, err := json.Marshal(body)
		ok(w.t, err)
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, content)
	ok(w.t, err)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, f := range change {
		f(r)
	}
	response, err := w.http.Do(r)
	ok(w.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	ok(w.t, err)
	var refused api.Error
	if response.StatusCode != http.StatusOK {
		_ = json.Unmarshal(text, &refused) // some answers are no JSON
	} else if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			w.t.Fatalf("%s %s: %v in %.200q", method, path, err, text)
		}
	}
	return response.StatusCode, refused
}

// vote is an answer to a request.
func vote(r approval.Request, v approval.Verdict) api.VoteRequest {
	return api.VoteRequest{Verdict: v, Digest: r.Digest}
}

// browser is a client with cookies that follows redirects, as a browser does.
func (w *world) browser() *http.Client {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	ok(w.t, err)
	return &http.Client{Transport: w.http.Transport, Jar: jar}
}

// login logs in at the provider's page; the result is where that ended.
func (w *world) login(b *http.Client, path, user, secret string) *http.Response {
	w.t.Helper()
	at, err := b.Get(w.url + path)
	ok(w.t, err)
	ok(w.t, at.Body.Close())
	response, err := b.PostForm(w.idp.Issuer()+"/login", url.Values{"request": {at.Request.URL.Query().Get("request")}, "username": {user}, "password": {secret}})
	ok(w.t, err)
	w.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

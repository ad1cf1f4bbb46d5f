package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/desk"
	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/lab/idp"
	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// deskWorld is a sink with a desk, on its socket in dir and at url, and the OpenID
// provider where people log in.
type deskWorld struct {
	dir, url, caFile string
	provider         *idp.Provider
	node             jetstream.KeyValue // requests, as a node writes them
}

func startDesk(t *testing.T) *deskWorld {
	t.Helper()
	w := &deskWorld{dir: t.TempDir()}
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(w.dir, "config"))
	t.Setenv(tokenVariable, "")
	server, err := bus.Embedded(t.Context(), bus.Options{Dir: w.dir, Cluster: "c1", Node: "n1", Log: zerolog.Nop()})
	ok(t, err)
	t.Cleanup(server.Shutdown)
	stream := func(r bus.Role) jetstream.JetStream {
		nc, err := server.Connect(r)
		ok(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		ok(t, err)
		return js
	}
	w.node, err = bus.BucketsOf(stream(bus.RoleNode)).Approvals.KV(t.Context())
	ok(t, err)

	ca, err := lab.NewCA()
	ok(t, err)
	w.caFile = filepath.Join(w.dir, "ca.pem")
	ok(t, os.WriteFile(w.caFile, ca.PEM(), 0o600))
	w.provider, err = idp.Start(t.Context(), idp.Options{CA: ca,
		Users:   []idp.User{{Subject: "ada", Name: "Ada L.", Groups: []string{"dba"}}, {Subject: "bob", Groups: []string{"dba"}}},
		Clients: []idp.Client{{ID: "cli", Redirects: []string{"http://127.0.0.1/callback"}, Device: true}}})
	ok(t, err)
	t.Cleanup(func() { ok(t, w.provider.Close()) })

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	w.url = "http://" + listener.Addr().String()
	signer, err := authority.NewSigner(nodeKey)
	ok(t, err)
	js := stream(bus.RoleSink)
	d, err := desk.Open(desk.Options{Buckets: bus.BucketsOf(js), Signer: signer, Log: zerolog.Nop(),
		Sink: &policy.Sink{Spec: policy.SinkSpec{Listen: listener.Addr().String(), URL: w.url,
			Login: policy.LoginSpec{Issuer: "corp", ClientID: "cli", Scopes: []string{"groups"}}}},
		Providers: []*policy.IdentityProvider{{Metadata: policy.Metadata{Name: "corp"},
			Spec: policy.IdentityProviderSpec{Issuer: w.provider.Issuer(), Audiences: []string{"cli"}, CAFile: w.caFile}}}})
	ok(t, err)
	s, err := sink.Open(t.Context(), sink.Options{Dir: filepath.Join(w.dir, "sink"), JetStream: js, Log: zerolog.Nop(),
		Keys: map[string]ed25519.PublicKey{"n1": nodeKey.Public().(ed25519.PublicKey)}})
	ok(t, err)

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	run := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
	web := &http.Server{Handler: d.Handler(), BaseContext: func(net.Listener) context.Context { return ctx }}
	run(func() error { return d.Run(ctx) })
	run(func() error { return web.Serve(listener) })
	run(func() error {
		return s.Serve(ctx, filepath.Join(w.dir, "sink.sock"), sink.Mount{Patterns: desk.LocalPatterns(), Handler: d.LocalHandler(func(ctx context.Context) (uint32, error) {
			peer, err := sink.PeerOf(ctx)
			return peer.UID, err
		})})
	})
	t.Cleanup(func() {
		cancel()
		ok(t, web.Close())
		wg.Wait()
		ok(t, s.Close())
		d.Close()
	})
	eventually(t, func() bool {
		c, err := net.Dial("unix", filepath.Join(w.dir, "sink.sock"))
		return err == nil && c.Close() == nil
	})
	return w
}

// eventually waits until something is so.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatal("it never happened")
		}
	}
}

// request is one as a node would write it, for root of this machine and people at the
// issuer to answer.
func request(id string, change ...func(*approval.Request)) approval.Request {
	now := time.Now().UTC().Truncate(time.Second)
	r := approval.Request{
		ID: id, Cluster: "c1", Node: "n1", About: approval.AboutCommand, Session: "s-1",
		Principal: event.Principal{Subject: "nightly", Issuer: "corp", Groups: []string{"bots"}},
		Workload:  event.Workload{Name: "report", Job: "j-1", Kind: "run"},
		Target:    event.Target{Name: "orders-db", Protocol: "postgres", Host: "orders.corp.example", Address: "10.0.0.1:5432", Database: "orders"},
		Process:   event.Process{PID: 12, UID: 1000, Comm: "psql", Executable: "/usr/bin/psql"},
		Text:      "DELETE FROM orders WHERE id = $1", Parameters: []string{"42"},
		Parsed: event.Parsed{Kinds: []string{"DELETE"}, Tables: []string{"public.orders"}, Functions: []string{"now"}},
		Digest: strings.Repeat("ab", 32), Policy: "orders", Rule: "writes", Why: "writes are looked at", When: "!statement.readOnly", Revision: "r-1",
		From:  policy.PrincipalSelect{Groups: []string{"dba"}, Subjects: []string{"root@local"}},
		Count: 1, Mode: policy.ModeHold, Standing: time.Hour, Created: now, Expires: now.Add(10 * time.Minute),
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

// put writes a request as its node does, and waits until the sink shows it so.
func (w *deskWorld) put(t *testing.T, r approval.Request, state approval.State) {
	t.Helper()
	value, err := json.Marshal(approval.Record{Request: r, State: state, Changed: r.Created})
	ok(t, err)
	_, err = w.node.Put(t.Context(), approval.RecordKey("c1", "n1", r.ID), value)
	ok(t, err)
	w.shows(t, r.ID, fmt.Sprintf(`"state": %q`, state), "-o", "json")
}

// shows waits until the sink shows something of a request: it hears of answers as of
// requests, through NATS.
func (w *deskWorld) shows(t *testing.T, id, text string, flags ...string) {
	t.Helper()
	eventually(t, func() bool {
		out, err := w.command(t, append([]string{"approvals", "show", id}, flags...)...)
		return err == nil && strings.Contains(out, text)
	})
}

// command runs one as the user of this process.
func (w *deskWorld) command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := w.start(t.Context(), strings.NewReader(""), &out, &out, args...)
	return out.String(), err
}

func (w *deskWorld) start(ctx context.Context, in, out, errs any, args ...string) error {
	root := &cobra.Command{Use: "chaperone", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(policyCommand())
	addDeskCommands(root, &w.dir)
	root.SetIn(in.(interface{ Read([]byte) (int, error) }))
	root.SetOut(out.(interface{ Write([]byte) (int, error) }))
	root.SetErr(errs.(interface{ Write([]byte) (int, error) }))
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// code is what the process would exit with.
func code(err error) int {
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return status.code
	}
	return 1
}

// screen is a terminal: what the person types, and what they see.
type screen struct {
	line   *os.File // the program's end
	person *os.File
	mu     sync.Mutex
	text   strings.Builder
	from   int
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	raw, err := person.SyscallConn()
	ok(t, err)
	var number uint32
	ok(t, raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN)
		}
	}))
	ok(t, err)
	line, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	ok(t, err)
	s := &screen{line: line, person: person}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4<<10)
		for {
			n, err := person.Read(buffer)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.text.Write(buffer[:n])
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		ok(t, line.Close())
		ok(t, person.Close())
		<-done
	})
	return s
}

// sees waits until the text is shown, behind what was seen before.
func (s *screen) sees(t *testing.T, text string) string {
	t.Helper()
	var seen string
	late := time.Now().Add(30 * time.Second)
	eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		all := s.text.String()[s.from:]
		if time.Now().After(late) {
			t.Fatalf("no %q in\n%s", text, all)
		}
		at := strings.Index(all, text)
		if at < 0 {
			return false
		}
		seen = all[:at+len(text)]
		s.from += len(seen)
		return true
	})
	return seen
}

func (s *screen) types(t *testing.T, text string) {
	t.Helper()
	_, err := s.person.WriteString(text)
	ok(t, err)
}

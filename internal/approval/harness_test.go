package approval_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// The people of the tests.
var (
	alice   = approval.Person{Subject: "alice", Issuer: "corp", Groups: []string{"dba"}}
	bob     = approval.Person{Subject: "bob", Issuer: "corp", Groups: []string{"dba"}}
	carol   = approval.Person{Subject: "carol", Issuer: "corp", Groups: []string{"managers"}}
	mallory = approval.Person{Subject: "mallory", Issuer: "corp", Groups: []string{"interns"}}
	planner = approval.Person{Subject: "planner", Issuer: "corp", Groups: []string{"dba"}}
)

// hands is a clock that the tests set: the wall clock and the time that has passed.
type hands struct {
	mu         sync.Mutex
	wall, true time.Duration // ahead of the machine's clock
}

func (h *hands) move(wall, elapsed time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wall, h.true = h.wall+wall, h.true+elapsed
}

func (h *hands) read() (wall, steady time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now().Round(0)
	return now.Add(h.wall), now.Add(h.true)
}

func (h *hands) Now() time.Time { wall, _ := h.read(); return wall }

func (h *hands) Latest() time.Time {
	wall, steady := h.read()
	if steady.After(wall) {
		return steady
	}
	return wall
}

func (h *hands) Earliest() time.Time {
	wall, steady := h.read()
	if steady.Before(wall) {
		return steady
	}
	return wall
}

// world is a server, the authority at it, and a node's broker.
type world struct {
	t      testing.TB
	server *bus.Server
	dir    string
	clock  *hands
	signer *authority.Signer
	keys   authority.Keys
	sink   jetstream.KeyValue
	admin  jetstream.JetStream
	node   *bus.Bucket
	conn   *nats.Conn // the node's

	broker *approval.Broker
	stop   func()
	events chan event.Data
	most   [2]int // MaxPending, MaxPerJob
}

func newSigner(t testing.TB) *authority.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := authority.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newWorld starts the server, and the broker unless the test does.
func newWorld(t testing.TB) *world {
	t.Helper()
	s, err := bus.Embedded(t.Context(), bus.Options{Dir: t.TempDir(), Cluster: "c1", Node: "n1", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	w := &world{t: t, server: s, dir: t.TempDir(), clock: &hands{}, signer: newSigner(t), events: make(chan event.Data, 4096)}
	w.keys = authority.Keys{w.signer.Public()}
	w.admin = w.connect(bus.RoleAdmin)
	if w.sink, err = bus.BucketsOf(w.connect(bus.RoleSink)).Approvals.KV(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.join()
	t.Cleanup(func() {
		if w.stop != nil {
			w.stop()
		}
	})
	return w
}

// join connects the node.
func (w *world) join() {
	w.t.Helper()
	js := w.connect(bus.RoleNode)
	w.conn, w.node = js.Conn(), bus.BucketsOf(js).Approvals
}

func (w *world) connect(r bus.Role) jetstream.JetStream {
	w.t.Helper()
	nc, err := w.server.Connect(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		w.t.Fatal(err)
	}
	return js
}

// open opens a broker that does not run yet.
func (w *world) open() *approval.Broker {
	w.t.Helper()
	b, err := approval.Open(approval.Options{
		KV: w.node, Keys: w.keys, Cluster: "c1", Node: "n1", Clock: w.clock, Dir: filepath.Join(w.dir, "state"), Log: zerolog.Nop(),
		Publish:    func(_, _ string, data event.Data) { w.events <- data },
		MaxPending: w.most[0], MaxPerJob: w.most[1],
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// start opens a broker and runs it; stop ends it.
func (w *world) start() *world {
	w.t.Helper()
	b := w.open()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	w.broker = b
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, b.Close()); err != nil {
			w.t.Error(err)
		}
	})
	return w
}

// restart ends the broker in good order, and starts one behind it.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// crash leaves the disk as it is at this moment, and goes on with a broker there.
// What the old one does on its way out reaches neither that disk nor the bucket.
func (w *world) crash() {
	w.t.Helper()
	content, err := os.ReadFile(filepath.Join(w.dir, "state", "approvals.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.conn.Close()
	w.stop()
	w.join()
	w.dir = w.t.TempDir()
	if err := os.MkdirAll(filepath.Join(w.dir, "state"), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "state", "approvals.db"), content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	for len(w.events) > 0 {
		<-w.events // the old one's last
	}
	w.start()
}

func question() approval.Question {
	return approval.Question{
		About: approval.AboutCommand, Session: "s-1",
		Principal: event.Principal{Subject: planner.Subject, Issuer: planner.Issuer},
		Workload:  event.Workload{Name: "nightly", Job: "j-1", Kind: "run"},
		Target:    event.Target{Name: "orders", Protocol: "postgres", Database: "orders"},
		Text:      "DELETE FROM orders WHERE id = 7", Digest: "d1",
		Policy: "orders", Rule: "write-needs-a-human", Kind: "DELETE orders",
		From: policy.PrincipalSelect{Groups: []string{"dba"}}, Count: 1, Within: 10 * time.Minute,
	}
}

// asked is a question that is held.
type asked struct {
	request approval.Request
	answer  chan approval.Answer
	cancel  context.CancelCauseFunc
}

// hold asks, and returns when people can see it.
func (w *world) hold(q approval.Question) *asked {
	w.t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	a := &asked{answer: make(chan approval.Answer, 1), cancel: cancel}
	seen := make(chan approval.Request, 1)
	failed := make(chan error, 1)
	go func() {
		answer, err := w.broker.Hold(ctx, q, func(r approval.Request) { seen <- r })
		if err != nil {
			failed <- err
		}
		a.answer <- answer
	}()
	w.t.Cleanup(func() { cancel(errors.New("the test is over")) })
	select {
	case a.request = <-seen:
	case err := <-failed:
		w.t.Fatal(err)
	}
	return a
}

// pending tells that the hold goes on.
func (w *world) pending(a *asked) {
	w.t.Helper()
	select {
	case answer := <-a.answer:
		w.t.Fatalf("it is over: %+v", answer)
	default:
	}
}

func (w *world) retry(q approval.Question, want approval.State) approval.Answer {
	w.t.Helper()
	a, err := w.broker.Retry(w.t.Context(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	if a.State != want {
		w.t.Fatalf("%s, want %s: %+v", a.State, want, a)
	}
	return a
}

// record reads what the node wrote.
func (w *world) record(id string) approval.Record {
	w.t.Helper()
	e, err := w.sink.Get(w.t.Context(), approval.RecordKey("c1", "n1", id))
	if err != nil {
		w.t.Fatal(err)
	}
	rec, err := approval.DecodeRecord(e.Value())
	if err != nil {
		w.t.Fatal(err)
	}
	return rec
}

// write writes a record as a bucket that was rolled back would have it.
func (w *world) write(rec approval.Record) {
	w.t.Helper()
	kv, err := w.node.KV(w.t.Context())
	if err == nil {
		_, err = kv.Put(w.t.Context(), approval.RecordKey("c1", "n1", rec.Request.ID), w.json(rec))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) json(v any) []byte {
	w.t.Helper()
	value, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return value
}

// known tells how many requests the broker knows.
func (w *world) known() int { return approval.Known(w.broker) }

// become waits until the bucket says so of the request.
func (w *world) become(id string, want approval.State) approval.Record {
	w.t.Helper()
	watch, err := w.sink.Watch(w.t.Context(), approval.RecordKey("c1", "n1", id))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = watch.Stop() }()
	for e := range watch.Updates() {
		if e == nil || e.Operation() != jetstream.KeyValuePut {
			continue
		}
		rec, err := approval.DecodeRecord(e.Value())
		if err != nil {
			w.t.Fatal(err)
		}
		if rec.State == want {
			return rec
		}
	}
	w.t.Fatalf("%s never became %s", id, want)
	return approval.Record{}
}

// vote is a good one of the person.
func (w *world) vote(r approval.Request, by approval.Person, verdict approval.Verdict) approval.Vote {
	return approval.Vote{
		Request: r.ID, Cluster: r.Cluster, Node: r.Node, Session: r.Session, Digest: r.Digest,
		Verdict: verdict, By: by, Via: approval.ViaTerminal, At: w.clock.Now().UTC(), Until: r.Expires,
	}
}

func (w *world) sign(v approval.Vote) authority.Signed {
	w.t.Helper()
	s, err := w.signer.Sign(approval.SignedVote, v)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// store writes votes as somebody would who may write the bucket, checking nothing.
func (w *world) store(id string, votes ...authority.Signed) {
	w.t.Helper()
	w.storeRaw(id, w.json(votes))
}

func (w *world) storeRaw(id string, value []byte) {
	w.t.Helper()
	if _, err := w.sink.Put(w.t.Context(), approval.VotesKey("c1", "n1", id), value); err != nil {
		w.t.Fatal(err)
	}
}

// cast votes as the authority does.
func (w *world) cast(r approval.Request, by approval.Person, verdict approval.Verdict) error {
	v := w.vote(r, by, verdict)
	_, err := approval.Cast(w.t.Context(), w.sink, w.signer, w.keys, v)
	return err
}

// next waits for the next event of the type.
func next[T event.Data](w *world) T {
	w.t.Helper()
	for {
		select {
		case e := <-w.events:
			if e, ok := e.(T); ok {
				return e
			}
		case <-time.After(30 * time.Second):
			w.t.Fatalf("no event %T", *new(T))
		}
	}
}

package lock_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/lock"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

var admin = approval.Person{Subject: "root", Issuer: "local"}

// hands is a clock that the tests set.
type hands struct {
	mu    sync.Mutex
	ahead time.Duration // of the machine's, by both the wall clock and the time that has passed
	wall  time.Duration // the wall clock's alone
}

func (h *hands) set(ahead, wall time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ahead, h.wall = ahead, wall
}

func (h *hands) Earliest() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Round(0).Add(h.ahead + min(0, h.wall))
}

// news is what a keeper tells.
type news struct {
	what string // "applied" or why it ended
	id   string
	by   *approval.Person
}

type world struct {
	t      testing.TB
	server *bus.Server
	signer *authority.Signer
	keys   authority.Keys
	sink   jetstream.KeyValue
	admin  jetstream.JetStream

	dir    string
	clock  *hands
	change func(*lock.Options)
	keeper *lock.Keeper
	told   chan news
	stop   func()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	s, err := bus.Embedded(t.Context(), bus.Options{Dir: t.TempDir(), Cluster: "c1", Node: "n1", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	signer, err := authority.OpenSigner(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, server: s, signer: signer, keys: authority.Keys{signer.Public()}, dir: t.TempDir(), clock: &hands{}, told: make(chan news, 4096), stop: func() {}}
	w.admin = w.connect(bus.RoleAdmin)
	if w.sink, err = bus.BucketsOf(w.connect(bus.RoleSink)).Locks.KV(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stop() })
	return w
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

// open opens a keeper that doesn't run yet.
func (w *world) open() *lock.Keeper {
	w.t.Helper()
	o := lock.Options{
		KV: bus.BucketsOf(w.connect(bus.RoleNode)).Locks, Keys: w.keys, Clock: w.clock, Dir: w.dir, Log: zerolog.Nop(),
		Applied: func(_ context.Context, l lock.Lock) { w.told <- news{"applied", l.ID, nil} },
		Ended:   func(l lock.Lock, why string, by *approval.Person) { w.told <- news{why, l.ID, by} },
	}
	if w.change != nil {
		w.change(&o)
	}
	k, err := lock.Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *world) start() *world {
	w.t.Helper()
	k := w.open()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	w.keeper = k
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	return w
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// next is what the keeper tells next.
func (w *world) next(what, id string) news {
	w.t.Helper()
	select {
	case n := <-w.told:
		if n.what != what || n.id != id {
			w.t.Fatalf("told %+v, want %s %s", n, what, id)
		}
		return n
	case <-time.After(30 * time.Second):
		w.t.Fatalf("never told %s %s", what, id)
	}
	return news{}
}

// job is a lock on a job for an hour.
func job(name string) lock.Lock {
	now := time.Now().UTC()
	return lock.Lock{ID: lock.NewID(), Workload: name, By: admin, Created: now, Expires: now.Add(time.Hour)}
}

func (w *world) put(l lock.Lock) lock.Lock {
	w.t.Helper()
	e, err := lock.Put(w.t.Context(), w.sink, w.signer, l)
	if err != nil {
		w.t.Fatal(err)
	}
	return e.Lock
}

func (w *world) release(id string) {
	w.t.Helper()
	if _, err := lock.Release(w.t.Context(), w.sink, w.signer, w.keys, id, admin, "found it", time.Now()); err != nil {
		w.t.Fatal(err)
	}
}

// store writes a value as somebody would who may write the bucket.
func (w *world) store(id string, value []byte) {
	w.t.Helper()
	if _, err := w.sink.Put(w.t.Context(), id, value); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(id string) []byte {
	w.t.Helper()
	e, err := w.sink.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return e.Value()
}

// sealed is the entry as another might sign it.
func sealed(t testing.TB, s *authority.Signer, kind string, e lock.Entry) []byte {
	t.Helper()
	signed, err := s.Sign(kind, e)
	if err != nil {
		t.Fatal(err)
	}
	value, err := json.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// after is a lock that comes behind what was stored before it, so that when it is in
// force all that was before has been looked at.
func (w *world) after() {
	w.t.Helper()
	l := w.put(job("the one after"))
	w.next("applied", l.ID)
	w.release(l.ID)
	w.next(lock.EndReleased, l.ID)
}

func (w *world) matches(name string, want bool) {
	w.t.Helper()
	if _, got := w.keeper.Match(lock.Facts{Workload: []string{name}}); got != want {
		w.t.Errorf("%s is locked: %t, want %t", name, got, want)
	}
}

func (w *world) file() string { return filepath.Join(w.dir, "locks.json") }

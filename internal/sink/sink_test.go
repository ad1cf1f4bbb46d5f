package sink_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a node's journal, NATS and a sink that serves on a socket.
type world struct {
	dir    string
	bus    *bus.Server
	node   jetstream.JetStream
	sink   *sink.Sink
	client *sink.Client
	stop   func()
}

func start(t testing.TB, dir string) *world {
	t.Helper()
	w := &world{dir: dir}
	var err error
	w.bus, err = bus.Embedded(t.Context(), bus.Options{Dir: dir, Cluster: "c1", Node: "n1", Log: zerolog.Nop()})
	must(t, err)
	js := func(r bus.Role) jetstream.JetStream {
		nc, err := w.bus.Connect(r)
		must(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		must(t, err)
		return js
	}
	w.node = js(bus.RoleNode)
	w.sink, err = sink.Open(t.Context(), sink.Options{Dir: filepath.Join(dir, "sink"), JetStream: js(bus.RoleSink), Keys: map[string]ed25519.PublicKey{"n1": public(key(1))}, Log: zerolog.Nop()})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.sink.Run(ctx); err != nil {
			t.Errorf("sink: %v", err)
		}
	})
	socket := filepath.Join(dir, "sink.sock")
	wg.Go(func() {
		if err := w.sink.Serve(ctx, socket); err != nil {
			t.Errorf("sink: %v", err)
		}
	})
	until(t, "the socket", func() bool { _, err := os.Stat(socket); return err == nil })
	w.client = sink.NewClient(socket)
	w.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		must(t, w.sink.Close())
		w.bus.Shutdown()
	})
	t.Cleanup(w.stop)
	return w
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-t.Context().Done():
			t.Fatalf("waiting for %s", what)
		case <-tick.C:
		}
	}
}

// record runs a node's journal while f records.
func (w *world) record(t testing.TB, f func(*journal.Journal)) {
	t.Helper()
	j, err := journal.Open(journal.Options{Dir: filepath.Join(w.dir, "journal"), Cluster: "c1", Node: "n1", Key: key(1), Log: zerolog.Nop(), KeepAcked: -1, BlockAge: 10 * time.Millisecond})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx, w.node) }()
	f(j)
	cancel()
	must(t, <-done)
	must(t, j.Close())
}

func session(t testing.TB, j *journal.Journal, id, principal string, commands int) {
	t.Helper()
	r := j.Session(id, event.Origin{Target: "orders-db"}, false)
	must(t, r.Started(event.SessionStarted{Principal: event.Principal{Subject: principal, Issuer: "local"}, Workload: event.Workload{Name: "nightly"}, Target: event.Target{Name: "orders-db"}, Credential: "chaperone_1"}))
	for i := range commands {
		c := &event.Command{Session: id, Seq: uint64(i + 1), Text: fmt.Sprintf("SELECT %d -- \"decision\":\"deny\"", i), Decision: "allow"}
		must(t, r.Command(c))
		c.Rows, c.Bytes = 2, 10
		must(t, r.Outcome(c))
	}
	must(t, r.Command(&event.Command{Session: id, Seq: uint64(commands + 1), Text: "DROP TABLE x", Decision: "deny"}))
	must(t, r.Ended(event.SessionEnded{Reason: event.ReasonClientClosed, BytesOut: 1}))
}

func (w *world) state(t testing.TB, id, state string) sink.Session {
	t.Helper()
	var s sink.Session
	until(t, "session "+id+" to be "+state, func() bool {
		var err error
		s, err = w.client.Session(t.Context(), id)
		if err != nil && !errors.Is(err, sink.ErrNotFound) {
			t.Fatal(err)
		}
		return s.State == state
	})
	return s
}

func (w *world) blocks(t testing.TB, id string) [][]byte {
	t.Helper()
	var blocks [][]byte
	must(t, w.client.Blocks(t.Context(), id, func(b []byte) error { blocks = append(blocks, b); return nil }))
	return blocks
}

func TestRecordedSessionsAreServed(t *testing.T) {
	w := start(t, t.TempDir())
	w.record(t, func(j *journal.Journal) {
		session(t, j, "s-1", "ann", 5)
		session(t, j, "s-2", "anna", 2000)
	})
	s := w.state(t, "s-2", sink.StateVerified)
	if s.Commands != 2001 || s.Denied != 1 || s.Rows != 4000 || s.BytesOut != 20000 || s.Principal != "anna@local" || s.Workload != "nightly" ||
		s.Target != "orders-db" || s.Node != "n1" || s.Reason != event.ReasonClientClosed || s.Ended == nil || s.Started.IsZero() {
		t.Errorf("%+v", s)
	}
	w.state(t, "s-1", sink.StateVerified)
	c, err := recording.NewCodec()
	must(t, err)
	r, err := c.Verify(w.blocks(t, "s-2"), public(key(1)))
	must(t, err)
	if r.Blocks != s.Blocks || r.Root.String() != s.Root || r.Frames != 4003 {
		t.Errorf("report %+v, index %+v", r, s)
	}
	for want, q := range map[string]sink.Query{
		"s-2 s-1": {}, "s-1": {Principal: "ann"}, "s-2": {Limit: 1}, "": {Target: "other"},
	} {
		list, err := w.client.Sessions(t.Context(), q)
		must(t, err)
		var ids []string
		for _, s := range list {
			ids = append(ids, s.ID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	for _, q := range []sink.Query{{Since: time.Now().Add(time.Hour)}, {Principal: "ann@other"}} {
		if list, err := w.client.Sessions(t.Context(), q); err != nil || len(list) != 0 {
			t.Errorf("%+v: %v, %v", q, list, err)
		}
	}
	if _, err := w.client.Session(t.Context(), "none"); !errors.Is(err, sink.ErrNotFound) {
		t.Error(err)
	}
	keys, err := w.client.Keys(t.Context())
	must(t, err)
	if !keys["n1"].Equal(public(key(1))) {
		t.Errorf("keys %v", keys)
	}
}

func TestEvents(t *testing.T) {
	w := start(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	followed := make(chan string, 100)
	following := make(chan error, 1)
	go func() {
		following <- w.client.Events(ctx, sink.EventQuery{Follow: true, Since: time.Now().Add(-time.Minute)}, func(e event.Event, _ []byte) error {
			followed <- e.ID
			return nil
		})
	}()
	w.record(t, func(j *journal.Journal) { session(t, j, "s-1", "ann", 2) })
	want := []string{"s-1/started", "s-1/1", "s-1/2", "s-1/3", "s-1/ended"}
	for _, id := range want {
		if got := <-followed; got != id {
			t.Fatalf("followed %s, want %s", got, id)
		}
	}
	cancel()
	must(t, <-following)
	for expect, q := range map[string]sink.EventQuery{
		strings.Join(want, " "): {},
		"s-1/1 s-1/2 s-1/3":     {Type: event.TypeCommand},
		"s-1/started s-1/1":     {Limit: 2},
		"":                      {Target: "other"},
		"s-1/started s-1/1 s-1/2 s-1/3 s-1/ended ": {Target: "orders-db"},
	} {
		var ids []string
		must(t, w.client.Events(t.Context(), q, func(e event.Event, _ []byte) error { ids = append(ids, e.ID); return nil }))
		if got := strings.Join(ids, " "); got != strings.TrimSpace(expect) {
			t.Errorf("%+v: %q, want %q", q, got, expect)
		}
	}
	if err := w.client.Events(t.Context(), sink.EventQuery{Type: "a.>"}, nil); err == nil || !strings.Contains(err.Error(), "type") {
		t.Errorf("wild card in a type: %v", err)
	}
}

// chain builds a recording as a node does.
func chain(t testing.TB, session string, n int, k ed25519.PrivateKey, salt string) [][]byte {
	t.Helper()
	c, err := recording.NewCodec()
	must(t, err)
	var prev recording.Hash
	var out [][]byte
	for i := range n {
		raw, err := recording.AppendFrame(nil, recording.Frame{Seq: uint64(i + 1), Time: 1_700_000_000_000_000_000, Kind: recording.KindCommand, Payload: []byte(`{"text":"` + salt + `"}`)})
		must(t, err)
		var last ed25519.PrivateKey
		if i == n-1 {
			last = k
		}
		b, err := recording.Build(session, uint64(i), prev, 1, raw, last)
		must(t, err)
		prev = b.Hash
		out = append(out, c.Encode(b))
	}
	return out
}

func (w *world) publish(t testing.TB, session string, blocks ...[]byte) {
	t.Helper()
	for _, b := range blocks {
		ack, err := w.node.PublishAsync(event.RecordingSubject("c1", session), b)
		must(t, err)
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			t.Fatal(err)
		}
	}
}

func TestWhatDoesNotFitIsSetAside(t *testing.T) {
	w := start(t, t.TempDir())
	good := chain(t, "x", 1, key(1), "a")
	for id, c := range map[string]struct {
		blocks   func(good, other [][]byte) [][]byte
		state    string
		fault    string
		rejected int
	}{
		"repeated":  {func(g, _ [][]byte) [][]byte { return [][]byte{g[0], g[0], g[1], g[2], g[1]} }, sink.StateVerified, "", 0},
		"late":      {func(g, _ [][]byte) [][]byte { return [][]byte{g[0], g[2], g[1]} }, sink.StateVerified, "", 0},
		"open":      {func(g, _ [][]byte) [][]byte { return g[:2] }, sink.StateOpen, "", 0},
		"two-faced": {func(g, o [][]byte) [][]byte { return [][]byte{g[0], o[0], g[1], g[2]} }, sink.StateFaulty, "stored already", 1},
		"replaced":  {func(g, o [][]byte) [][]byte { return [][]byte{g[0], o[1], g[1], g[2]} }, sink.StateFaulty, "chained to another", 1},
		"garbage":   {func(g, _ [][]byte) [][]byte { return [][]byte{g[0], []byte("no block"), g[1], g[2]} }, sink.StateFaulty, "no block starts here", 1},
	} {
		t.Run(id, func(t *testing.T) {
			g, o := chain(t, id, 3, key(1), "a"), chain(t, id, 3, key(1), "b")
			w.publish(t, id, c.blocks(g, o)...)
			wantBlocks := 3
			if c.state == sink.StateOpen {
				wantBlocks = 2
			}
			until(t, "the blocks", func() bool {
				s, err := w.client.Session(t.Context(), id)
				return err == nil && s.Blocks == uint64(wantBlocks) && s.State == c.state
			})
			if s := w.state(t, id, c.state); !strings.Contains(s.Fault, c.fault) || (s.Fault == "") != (c.fault == "") {
				t.Errorf("fault %q, want %q", s.Fault, c.fault)
			}
			if got := w.blocks(t, id); !equal(got, g[:wantBlocks]) {
				t.Errorf("stored blocks are not those of the good chain")
			}
			files, err := filepath.Glob(filepath.Join(w.dir, "sink", "rejected", id+"-*"))
			must(t, err)
			if len(files) != c.rejected {
				t.Errorf("%d rejected, want %d", len(files), c.rejected)
			}
		})
	}
	t.Run("foreign", func(t *testing.T) {
		w.publish(t, "foreign", good[0])
		if s := w.state(t, "foreign", sink.StateFaulty); s.Blocks != 0 || !strings.Contains(s.Fault, "another session") {
			t.Errorf("%+v", s)
		}
	})
	t.Run("bad signature", func(t *testing.T) {
		c, err := recording.NewCodec()
		must(t, err)
		forged := chain(t, "bad", 1, key(1), "a")
		b, err := c.Decode(forged[0])
		must(t, err)
		b.Signature[3] ^= 1
		w.publish(t, "bad", c.Encode(b))
		if s := w.state(t, "bad", sink.StateFaulty); !strings.Contains(s.Fault, "not signed") {
			t.Errorf("%+v", s)
		}
	})
}

func equal(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// A sink that died after it wrote to a file and before it noted so writes over
// it; one that is started again goes on.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	w := start(t, dir)
	g := chain(t, "s-1", 3, key(1), "a")
	w.publish(t, "s-1", g[0])
	w.state(t, "s-1", sink.StateOpen)
	w.stop()
	files, err := filepath.Glob(filepath.Join(dir, "sink", "recordings", "2023", "11", "s-1.rec"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("files %q", files)
	}
	f, err := os.OpenFile(files[0], os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("half a block")
	must(t, errors.Join(err, f.Close()))

	again := start(t, dir)
	again.publish(t, "s-1", g[1], g[2])
	again.state(t, "s-1", sink.StateVerified)
	if !equal(again.blocks(t, "s-1"), g) {
		t.Error("blocks are not those that were sent")
	}
}

func TestSocketIsForOwnerAndGroup(t *testing.T) {
	w := start(t, t.TempDir())
	until(t, "the socket's mode", func() bool {
		info, err := os.Stat(filepath.Join(w.dir, "sink.sock"))
		return err == nil && info.Mode().Perm() == 0o660
	})
	if err := w.sink.Serve(t.Context(), filepath.Join(w.dir, "sink.sock")); err == nil {
		t.Error("a second server took the socket")
	}
}

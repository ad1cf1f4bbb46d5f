package approval_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// The authority signs no vote that can't count, and says why.
func TestCastRefuses(t *testing.T) {
	w := newWorld(t).start()
	for name, c := range map[string]struct {
		change func(*approval.Vote)
		want   error
	}{
		"unknown":          {func(v *approval.Vote) { v.Request = "a-aaaaaaaaaaaaaaaa" }, approval.ErrNotFound},
		"no id":            {func(v *approval.Vote) { v.Request = "*" }, approval.ErrNotFound},
		"another node":     {func(v *approval.Vote) { v.Node = "n2" }, approval.ErrNotFound},
		"late":             {func(v *approval.Vote) { v.At = v.At.Add(11 * time.Minute) }, approval.ErrOver},
		"not asked":        {func(v *approval.Vote) { v.By = mallory }, approval.ErrNotAsked},
		"oneself":          {func(v *approval.Vote) { v.By = planner }, approval.ErrSelf},
		"something else":   {func(v *approval.Vote) { v.Digest = "d2" }, approval.ErrDigest},
		"stands":           {func(v *approval.Vote) { v.Standing = time.Minute }, approval.ErrStanding},
		"stands backwards": {func(v *approval.Vote) { v.Standing = -time.Minute }, approval.ErrStanding},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.hold(question())
			defer func() { a.cancel(errors.New("done")); <-a.answer }()
			v := w.vote(a.request, alice, approval.Yes)
			c.change(&v)
			if _, err := approval.Cast(t.Context(), w.sink, w.signer, w.keys, v); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if _, err := w.sink.Get(t.Context(), approval.VotesKey("c1", "n1", a.request.ID)); !errors.Is(err, jetstream.ErrKeyNotFound) {
				t.Errorf("votes were written: %v", err)
			}
		})
	}
}

func TestCastTellsWhoDecided(t *testing.T) {
	w := newWorld(t).start()
	a := w.hold(question())
	v := w.vote(a.request, alice, approval.No)
	v.At, v.Until, v.Session = time.Time{}, time.Time{}, "" // to be filled in
	votes, err := approval.Cast(t.Context(), w.sink, w.signer, w.keys, v)
	if err != nil || len(votes) != 1 || votes[0].Session != "s-1" || !votes[0].Until.Equal(a.request.Expires) || votes[0].At.IsZero() {
		t.Fatalf("%+v, %v", votes, err)
	}
	<-a.answer
	for _, before := range []bool{true, false} { // that the node has said so, and after
		var decided approval.ErrDecided
		if err := w.cast(a.request, bob, approval.Yes); !errors.As(err, &decided) || decided.Outcome != approval.StateDenied || decided.Error() != "already denied by alice@corp" {
			t.Errorf("%v", err)
		}
		if before {
			w.become(a.request.ID, approval.StateDenied)
		}
	}
}

// A request that a node wrote in the place of another's is none.
func TestCastOnMisplacedRequest(t *testing.T) {
	w := newWorld(t) // without a broker, which would put it right
	now := time.Now()
	rec := approval.Record{State: approval.StatePending, Request: approval.Request{
		ID: "a-aaaaaaaaaaaaaaaa", Cluster: "c1", Node: "n1", Digest: "d1", Count: 1, From: question().From,
		Created: now, Expires: now.Add(10 * time.Minute),
	}}
	for name, change := range map[string]func(*approval.Request){
		"id":      func(r *approval.Request) { r.ID = "a-bbbbbbbbbbbbbbbb" },
		"node":    func(r *approval.Request) { r.Node = "n2" },
		"cluster": func(r *approval.Request) { r.Cluster = "c2" },
	} {
		forged := rec
		change(&forged.Request)
		kv, err := w.node.KV(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(t.Context(), approval.RecordKey("c1", "n1", rec.Request.ID), w.json(forged)); err != nil {
			t.Fatal(err)
		}
		if err := w.cast(rec.Request, alice, approval.Yes); !errors.Is(err, approval.ErrNotFound) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	w.write(rec)
	if err := w.cast(rec.Request, alice, approval.Yes); err != nil {
		t.Errorf("in its own place: %v", err)
	}
}

// What is in the votes' place and can't be verified has no weight, and is in nobody's way.
func TestCastOverGarbage(t *testing.T) {
	w := newWorld(t).start()
	forged, err := newSigner(t).Sign(approval.SignedVote, approval.Vote{Verdict: approval.No})
	if err != nil {
		t.Fatal(err)
	}
	var many []authority.Signed
	for range 100 {
		many = append(many, forged)
	}
	for name, garbage := range map[string][]byte{"none": []byte("{"), "forged": w.json([]authority.Signed{forged}), "many": w.json(many)} {
		a := w.hold(question())
		w.storeRaw(a.request.ID, garbage)
		if err := w.cast(a.request, alice, approval.Yes); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := <-a.answer; got.State != approval.StateApproved {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// As many as there is room for answer at once, and each is counted.
func TestManyAnswerAtOnce(t *testing.T) {
	w := newWorld(t).start()
	q := question()
	q.Count = 8
	a := w.hold(q)
	var all sync.WaitGroup
	for i := range q.Count {
		all.Go(func() {
			p := approval.Person{Subject: string(rune('a' + i)), Issuer: "corp", Groups: []string{"dba"}}
			if err := w.cast(a.request, p, approval.Yes); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := <-a.answer; got.State != approval.StateApproved || len(got.By) != q.Count {
		t.Errorf("%+v", got)
	}
}

// What is held outlives a restart of NATS, and answers are heard again behind it.
func TestServerRestarts(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	serve := func(listen string) *bus.Server {
		t.Helper()
		s, err := bus.Embedded(t.Context(), bus.Options{Dir: dir, Cluster: "c1", Node: "n1", Listen: listen, Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Shutdown)
		w.server = s
		if w.sink, err = bus.BucketsOf(w.connect(bus.RoleSink)).Approvals.KV(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := serve("127.0.0.1:0")
	url := first.URL()
	nc, err := bus.Connect(bus.Remote{URL: url, Role: bus.RoleNode, SeedFile: bus.SeedFile(dir, bus.RoleNode)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	w.conn, w.node = nc, bus.BucketsOf(js).Approvals
	w.start()
	a := w.hold(question())
	first.Shutdown()
	if _, err := w.broker.Retry(t.Context(), question()); !errors.Is(err, approval.ErrUnavailable) {
		t.Errorf("asked while NATS is away: %v", err)
	}
	serve(strings.TrimPrefix(url, "nats://"))
	w.pending(a)
	if err := w.cast(a.request, alice, approval.Yes); err != nil {
		t.Fatal(err)
	}
	if got := <-a.answer; got.State != approval.StateApproved {
		t.Errorf("%+v", got)
	}
	w.become(a.request.ID, approval.StateUsed)
	t.Cleanup(w.stop)
}

package lock_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/lock"
	"github.com/nats-io/nats.go/jetstream"
)

// All that a lock gives must match.
func TestMatch(t *testing.T) {
	w := newWorld(t).start()
	facts := lock.Facts{Principal: "alice@corp", Workload: []string{"nightly", "j-1", "planner"}, Target: "orders", Session: "s-1"}
	for name, c := range map[string]struct {
		lock lock.Lock
		want bool
	}{
		"principal":             {lock.Lock{Principal: "alice@corp"}, true},
		"another principal":     {lock.Lock{Principal: "alice@local"}, false},
		"job's name":            {lock.Lock{Workload: "nightly"}, true},
		"job's id":              {lock.Lock{Workload: "j-1"}, true},
		"job's document":        {lock.Lock{Workload: "planner"}, true},
		"another job":           {lock.Lock{Workload: "night"}, false},
		"target":                {lock.Lock{Target: "orders"}, true},
		"another target":        {lock.Lock{Target: "billing"}, false},
		"session":               {lock.Lock{Session: "s-1"}, true},
		"another session":       {lock.Lock{Session: "s-2"}, false},
		"all":                   {lock.Lock{Principal: "alice@corp", Workload: "j-1", Target: "orders", Session: "s-1"}, true},
		"all but the target":    {lock.Lock{Principal: "alice@corp", Workload: "j-1", Target: "billing", Session: "s-1"}, false},
		"all but the principal": {lock.Lock{Principal: "bob@corp", Workload: "j-1", Target: "orders"}, false},
		"all but the workload":  {lock.Lock{Workload: "j-2", Target: "orders"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := job("")
			l.Principal, l.Workload, l.Target, l.Session = c.lock.Principal, c.lock.Workload, c.lock.Target, c.lock.Session
			w.put(l)
			w.next("applied", l.ID)
			got, ok := w.keeper.Match(facts)
			if ok != c.want || ok && got.ID != l.ID {
				t.Errorf("%+v, %t", got, ok)
			}
			if _, ok := w.keeper.Match(lock.Facts{}); ok {
				t.Error("it is on a connection of which nothing is known")
			}
			if list := w.keeper.List(); len(list) != 1 || list[0].ID != l.ID {
				t.Errorf("%+v", list)
			}
			w.release(l.ID)
			if n := w.next(lock.EndReleased, l.ID); n.by == nil || n.by.Subject != "root" {
				t.Errorf("%+v", n)
			}
			if _, ok := w.keeper.Match(facts); ok || len(w.keeper.List()) > 0 {
				t.Error("released, and in force")
			}
		})
	}
}

// A deleted key, a bucket that is purged or lost, and NATS that is away end nothing; neither does a restart.
func TestNothingElseReleases(t *testing.T) {
	w := newWorld(t).start()
	l := w.put(job("nightly"))
	w.next("applied", l.ID)
	if err := w.sink.Delete(t.Context(), l.ID); err != nil {
		t.Fatal(err)
	}
	w.after()
	w.matches("nightly", true)
	stream, err := w.admin.Stream(t.Context(), "KV_"+bus.BucketLocks)
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	w.after()
	w.matches("nightly", true)
	if err := w.admin.DeleteStream(t.Context(), "KV_"+bus.BucketLocks); err != nil {
		t.Fatal(err)
	}
	w.matches("nightly", true)
	w.restart() // without a bucket
	w.matches("nightly", true)
	w.next("applied", l.ID)
	if err := bus.Setup(t.Context(), w.admin, bus.Limits{}); err != nil {
		t.Fatal(err)
	}
	w.after()
	w.matches("nightly", true)
}

// Locks of the disk hold when Open returns, before anything is heard.
func TestOpenIsEnough(t *testing.T) {
	w := newWorld(t).start()
	l := w.put(job("nightly"))
	w.next("applied", l.ID)
	w.stop()
	w.keeper = w.open()
	w.matches("nightly", true)
	if len(w.told) > 0 {
		t.Errorf("told before Run: %+v", <-w.told)
	}
}

func TestDamagedDisk(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(w.file(), []byte(`[{"payload"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Open(lock.Options{Dir: w.dir, Clock: w.clock}); err == nil || !strings.Contains(err.Error(), w.file()) {
		t.Errorf("%v", err)
	}
	// One that the authority did not sign is left out, and the others hold.
	good := sealed(t, w.signer, lock.Signed, lock.Entry{Lock: job("good")})
	forged := strings.Replace(string(sealed(t, w.signer, lock.Signed, lock.Entry{Lock: job("forged")})), "forged", "fooled", 1)
	if err := os.WriteFile(w.file(), fmt.Appendf(nil, "[%s,%s]", forged, good), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.matches("good", true)
	w.matches("fooled", false)
}

func TestLocksThatAreNotTaken(t *testing.T) {
	w := newWorld(t).start()
	other, err := authority.OpenSigner(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	bad := job("bad")
	with := func(change func(*lock.Lock)) lock.Entry {
		l := bad
		change(&l)
		return lock.Entry{Lock: l}
	}
	none := func(*lock.Lock) {}
	for name, value := range map[string][]byte{
		"garbage":         []byte("{"),
		"not signed":      []byte(`{"payload":{"lock":{}},"key":"","signature":""}`),
		"another's":       sealed(t, other, lock.Signed, with(none)),
		"another kind":    sealed(t, w.signer, "approval.vote", with(none)),
		"altered":         []byte(strings.Replace(string(sealed(t, w.signer, lock.Signed, with(func(l *lock.Lock) { l.Workload = "dab" }))), `"dab"`, `"bad"`, 1)),
		"over":            sealed(t, w.signer, lock.Signed, with(func(l *lock.Lock) { l.Created, l.Expires = l.Created.Add(-2*time.Hour), l.Created.Add(-time.Hour) })),
		"for no time":     sealed(t, w.signer, lock.Signed, with(func(l *lock.Lock) { l.Expires = l.Created })),
		"on nothing":      sealed(t, w.signer, lock.Signed, with(func(l *lock.Lock) { l.Workload = "" })),
		"another's place": sealed(t, w.signer, lock.Signed, with(func(l *lock.Lock) { l.ID = lock.NewID() })),
		"released":        sealed(t, w.signer, lock.Signed, lock.Entry{Lock: bad, Released: &bad.Created}),
	} {
		t.Run(name, func(t *testing.T) {
			w.store(bad.ID, value)
			w.after()
			w.matches("bad", false)
			if list := w.keeper.List(); len(list) > 0 {
				t.Errorf("%+v", list)
			}
		})
	}
}

// What was released stays so, when an old copy of the lock comes back.
func TestReplayedLock(t *testing.T) {
	w := newWorld(t).start()
	l := w.put(job("nightly"))
	w.next("applied", l.ID)
	old := w.get(l.ID)
	w.release(l.ID)
	w.next(lock.EndReleased, l.ID)
	for range 2 {
		w.store(l.ID, old)
		w.after()
		w.matches("nightly", false)
		w.restart()
	}
	// A node that knew nothing of it takes the release, and nothing after it.
	w.stop()
	w.dir = t.TempDir()
	released := l
	now := time.Now()
	w.store(l.ID, sealed(t, w.signer, lock.Signed, lock.Entry{Lock: released, Released: &now, ReleasedBy: &admin}))
	w.start()
	w.after()
	w.store(l.ID, old)
	w.after()
	w.matches("nightly", false)
}

// A lock never changes: another one under its id neither shortens nor widens it.
func TestChangedLock(t *testing.T) {
	w := newWorld(t).start()
	l := w.put(job("nightly"))
	w.next("applied", l.ID)
	changed := l
	changed.Workload, changed.Expires = "other", l.Created.Add(time.Minute)
	w.store(l.ID, sealed(t, w.signer, lock.Signed, lock.Entry{Lock: changed}))
	w.after()
	w.matches("nightly", true)
	w.matches("other", false)
	w.clock.set(2*time.Minute, 0)
	w.after()
	w.matches("nightly", true)
}

// A lock ends when both clocks say so.
func TestExpiry(t *testing.T) {
	w := newWorld(t).start()
	l := w.put(job("nightly"))
	w.next("applied", l.ID)
	w.clock.set(0, 2*time.Hour) // the wall clock is set forward
	w.after()
	w.matches("nightly", true)
	w.clock.set(2*time.Hour, -3*time.Hour) // the time has passed, and the wall clock is behind
	w.after()
	w.matches("nightly", true)
	w.clock.set(2*time.Hour, 0)
	if n := w.next(lock.EndExpired, l.ID); n.by != nil {
		t.Errorf("%+v", n)
	}
	w.matches("nightly", false)
	w.restart()
	w.matches("nightly", false)
	if content, err := os.ReadFile(w.file()); err != nil || strings.Contains(string(content), l.ID) {
		t.Errorf("what is over stays on the disk: %s, %v", content, err)
	}
}

// The authority's own keeper writes again what the bucket has lost.
func TestRestore(t *testing.T) {
	w := newWorld(t)
	w.change = func(o *lock.Options) { o.KV, o.Restore = bus.BucketsOf(w.connect(bus.RoleSink)).Locks, true }
	w.start()
	l, gone := w.put(job("nightly")), w.put(job("other"))
	w.next("applied", l.ID)
	w.next("applied", gone.ID)
	w.release(gone.ID)
	w.next(lock.EndReleased, gone.ID)
	w.stop()
	if err := w.admin.DeleteStream(t.Context(), "KV_"+bus.BucketLocks); err != nil {
		t.Fatal(err)
	}
	if err := bus.Setup(t.Context(), w.admin, bus.Limits{}); err != nil {
		t.Fatal(err)
	}
	w.store(l.ID, []byte("an answer of the server"))
	w.start()
	watch, err := w.sink.WatchAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Stop() }()
	back := map[string]bool{}
	for e := range watch.Updates() {
		if e == nil || e.Operation() != jetstream.KeyValuePut {
			continue
		}
		if entry, err := lock.Decode(w.keys, e.Key(), e.Value()); err == nil {
			back[entry.Lock.ID] = entry.Released != nil
		}
		if len(back) == 2 {
			break
		}
	}
	if released, ok := back[l.ID]; !ok || released {
		t.Errorf("%v", back)
	}
	if !back[gone.ID] {
		t.Errorf("%v", back)
	}
	w.release(l.ID) // as its entry is there again
}

func TestPutAndRelease(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for name, change := range map[string]func(*lock.Lock){
		"nothing":      func(l *lock.Lock) { l.Workload = "" },
		"no time":      func(l *lock.Lock) { l.Expires = l.Created },
		"another id":   func(l *lock.Lock) { l.ID = "x" },
		"a longish id": func(l *lock.Lock) { l.ID += "a" },
		"long":         func(l *lock.Lock) { l.Reason = strings.Repeat("x", 2000) },
	} {
		l := job("nightly")
		change(&l)
		if _, err := lock.Put(ctx, w.sink, w.signer, l); !errors.Is(err, lock.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	old := job("nightly")
	old.ID, old.Created = "", time.Time{}
	e, err := lock.Put(ctx, w.sink, w.signer, old)
	if err != nil || e.Lock.ID == "" || e.Lock.Created.IsZero() {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := lock.Put(ctx, w.sink, w.signer, e.Lock); err == nil {
		t.Error("a lock was replaced")
	}
	newer := job("newer")
	newer.Created = newer.Created.Add(time.Minute)
	w.put(newer)
	w.store(lock.NewID(), []byte("{}"))
	all, err := lock.All(ctx, w.sink, w.keys)
	if err != nil || len(all) != 2 || all[0].Lock.ID != newer.ID {
		t.Errorf("%+v, %v", all, err)
	}
	for _, id := range []string{"", "x", ">", lock.NewID()} {
		if _, err := lock.Release(ctx, w.sink, w.signer, w.keys, id, admin, "", time.Now()); !errors.Is(err, lock.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := lock.Release(ctx, w.sink, w.signer, w.keys, newer.ID, admin, "", newer.Expires); !errors.Is(err, lock.ErrOver) {
		t.Errorf("when it is over: %v", err)
	}
	// Of those who release at once one does.
	results := make(chan error, 6)
	for range cap(results) {
		go func() {
			_, err := lock.Release(ctx, w.sink, w.signer, w.keys, newer.ID, admin, "found it", time.Now())
			results <- err
		}()
	}
	released := 0
	for range cap(results) {
		switch err := <-results; {
		case err == nil:
			released++
		case !errors.Is(err, lock.ErrOver):
			t.Error(err)
		}
	}
	if released != 1 {
		t.Errorf("released %d times", released)
	}
	all, err = lock.All(ctx, w.sink, w.keys)
	if err != nil || all[0].Released == nil || all[0].ReleasedBy.Subject != "root" || all[0].ReleaseReason != "found it" {
		t.Errorf("%+v, %v", all, err)
	}
	for keep, want := range map[time.Duration]bool{2 * time.Hour: false, 0: true} {
		done, err := lock.Remove(ctx, w.sink, all[0], keep, newer.Expires.Add(time.Second))
		if err != nil || done != want {
			t.Errorf("kept for %s: removed %t, %v", keep, done, err)
		}
	}
}

// A thousand locks hold, across a restart too.
func TestMany(t *testing.T) {
	w := newWorld(t)
	for i := range 1000 {
		w.store(put(t, w, i))
	}
	w.start()
	for n := range 1000 {
		select {
		case <-w.told:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of 1000", n)
		}
	}
	w.restart()
	for _, i := range []int{0, 1, 500, 999} {
		w.matches(fmt.Sprintf("job-%d", i), true)
	}
	w.matches("job-1000", false)
}

func put(t testing.TB, w *world, i int) (string, []byte) {
	l := job(fmt.Sprintf("job-%d", i))
	return l.ID, sealed(t, w.signer, lock.Signed, lock.Entry{Lock: l})
}

func BenchmarkMatch1000(b *testing.B) {
	w := newWorld(b)
	var all []authority.Signed
	for i := range 1000 {
		var s authority.Signed
		_, value := put(b, w, i)
		if err := json.Unmarshal(value, &s); err != nil {
			b.Fatal(err)
		}
		all = append(all, s)
	}
	content, err := json.Marshal(all)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(w.file(), content, 0o600); err != nil {
		b.Fatal(err)
	}
	k := w.open()
	if n := len(k.List()); n != 1000 {
		b.Fatalf("%d locks", n)
	}
	facts := lock.Facts{Principal: "alice@corp", Workload: []string{"nightly", "j-1", "planner"}, Target: "orders", Session: "s-1"}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := k.Match(facts); ok {
			b.Fatal("it matches")
		}
	}
}

// What is read from the bucket is the authority's, or is refused.
func FuzzDecode(f *testing.F) {
	signer, err := authority.OpenSigner(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	keys := authority.Keys{signer.Public()}
	l := job("nightly")
	good := sealed(f, signer, lock.Signed, lock.Entry{Lock: l})
	f.Add(l.ID, good)
	f.Add(lock.NewID(), good)
	f.Add(l.ID, []byte("null"))
	f.Add(l.ID, sealed(f, signer, "approval.vote", lock.Entry{Lock: l}))
	f.Fuzz(func(t *testing.T, id string, value []byte) {
		e, err := lock.Decode(keys, id, value)
		if err == nil && (id != l.ID || e.Lock.Workload != l.Workload || e.Released != nil) {
			t.Errorf("%q is taken for %+v", value, e)
		}
	})
}

package lock_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/lock"
)

// tells has the keepers that are opened from now on tell the channel.
func (w *world) tells(told chan news) {
	w.change = func(o *lock.Options) {
		o.Applied = func(_ context.Context, l lock.Lock) { told <- news{"applied", l.ID, nil} }
		o.Ended = func(l lock.Lock, why string, by *approval.Person) { told <- news{why, l.ID, by} }
	}
}

// drain goes on with the keeper, whose Run has returned, until the test calls what it returns.
func (w *world) drain(k *lock.Keeper) func() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Drain(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// A daemon that was taken over from follows what the next one writes.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	told, next := w.told, make(chan news, 4096)
	w.start()
	first := w.put(job("first"))
	w.next("applied", first.ID)
	w.stop()
	old := w.keeper
	stop := w.drain(old)

	w.tells(next)
	w.start()
	second := w.put(job("second"))
	w.next("applied", second.ID) // by the old one: the new one tells another channel
	w.release(first.ID)
	if n := w.next(lock.EndReleased, first.ID); n.by == nil || n.by.Subject != "root" {
		t.Errorf("%+v", n)
	}
	for name, want := range map[string]bool{"first": false, "second": true} {
		if _, got := old.Match(lock.Facts{Workload: []string{name}}); got != want {
			t.Errorf("%s is locked: %t, want %t", name, got, want)
		}
	}
	stop()
	if len(told) > 0 {
		t.Errorf("told twice: %+v", <-told)
	}
}

// The disk is the other keeper's: what ends while it is drained is not written, and
// a file that can't be read, or is gone, ends nothing.
func TestDrainNeverWrites(t *testing.T) {
	w := newWorld(t).start()
	l := job("short")
	l.Expires = l.Created.Add(time.Minute)
	short, long := w.put(l), w.put(job("long"))
	w.next("applied", short.ID)
	w.next("applied", long.ID)
	w.stop()
	before, err := os.Stat(w.file())
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(w.file())
	if err != nil {
		t.Fatal(err)
	}
	stop := w.drain(w.keeper)
	w.clock.set(2*time.Minute, 0)
	w.next(lock.EndExpired, short.ID)
	stop()
	after, err := os.Stat(w.file())
	if err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(w.file()); err != nil || !os.SameFile(before, after) || before.ModTime() != after.ModTime() || !bytes.Equal(now, content) {
		t.Errorf("the file was written: %v", err)
	}
	look := func() {
		t.Helper()
		done, cancel := context.WithCancel(t.Context())
		cancel() // Drain looks once before it sees that
		if err := w.keeper.Drain(done); err != nil {
			t.Error(err)
		}
		w.matches("long", true)
	}
	if err := os.WriteFile(w.file(), []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	look()
	if now, err := os.ReadFile(w.file()); err != nil || string(now) != "[" {
		t.Errorf("a damaged file was written: %q, %v", now, err)
	}
	if err := os.Remove(w.file()); err != nil {
		t.Fatal(err)
	}
	look()
	if _, err := os.Stat(w.file()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was gone was written: %v", err)
	}
}

// A daemon that starts before NATS can be reached has its locks from the disk, and tells of them.
func TestStartWithoutNATS(t *testing.T) {
	w := newWorld(t).start()
	l := w.put(job("nightly"))
	w.next("applied", l.ID)
	w.stop()
	js := w.connect(bus.RoleNode)
	js.Conn().Close()
	w.change = func(o *lock.Options) { o.KV = bus.BucketsOf(js).Locks }
	w.start()
	w.matches("nightly", true)
	w.next("applied", l.ID)
	w.clock.set(2*time.Hour, 0)
	w.next(lock.EndExpired, l.ID)
	w.matches("nightly", false)
}

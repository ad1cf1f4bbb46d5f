package journal_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/pkg/event"
)

// A daemon that hands over goes on writing its own journal; its successor publishes that
// once it is free, whole and once.
func TestAdopt(t *testing.T) {
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	base := filepath.Join(t.TempDir(), "journal")
	open := func() *journal.Journal {
		t.Helper()
		j, err := journal.OpenFree(options(base))
		must(t, err)
		return j
	}
	first := open()
	stop := publish(t, first, jet(t, s, bus.RoleNode))
	whole, cut := session(t, first, "s-whole", 3), session(t, first, "s-cut", 2)
	if n := first.Stats().Open; n != 2 {
		t.Errorf("%d sessions are open, want 2", n)
	}
	stop() // NATS is the successor's from here on

	second := open()
	if second.Dir() == first.Dir() {
		t.Fatal("two processes have one journal")
	}
	js := jet(t, s, bus.RoleNode)
	stopSecond := publish(t, second, js)
	ctx, cancel := context.WithCancel(t.Context())
	adopted := make(chan error, 1)
	go func() { adopted <- second.Adopt(ctx, base, js) }()
	must(t, session(t, second, "s-new", 1).Ended(event.SessionEnded{Reason: "client_closed"}))
	run(t, whole, "s-whole", 4)
	must(t, whole.Ended(event.SessionEnded{Reason: "client_closed"}))
	if _, err := os.Stat(first.Dir()); err != nil {
		t.Fatalf("the journal of a process that lives: %v", err)
	}
	run(t, cut, "s-cut", 3)
	must(t, first.Close()) // with a session open, as if it had died

	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(first.Dir()); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the journal that was left is still there")
		}
	}
	cancel()
	must(t, <-adopted)
	stopSecond()
	must(t, second.Close())
	p := streams(t, s)
	for id, frames := range map[string]int{"s-whole": 1 + 2*4 + 1, "s-cut": 1 + 2*3 + 1, "s-new": 1 + 2 + 1} {
		if report, _ := verify(t, p.blocks[id]); !report.Closed || int(report.Frames) != frames {
			t.Errorf("%s: %+v, want %d frames and an end", id, report, frames)
		}
	}
	seen := map[string]bool{}
	for _, id := range p.ids() {
		if seen[id] {
			t.Errorf("event %s came twice", id)
		}
		seen[id] = true
	}
}

// A publisher that was stopped goes on where it was, in the same process.
func TestRunAgain(t *testing.T) {
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	j := openJournal(t, options(t.TempDir()))
	r := session(t, j, "s-1", 3)
	for range 3 {
		stop := publish(t, j, jet(t, s, bus.RoleNode))
		stop()
	}
	run(t, r, "s-1", 4)
	must(t, r.Ended(event.SessionEnded{Reason: "client_closed"}))
	stop := publish(t, j, jet(t, s, bus.RoleNode))
	stop()
	must(t, j.Close())
	if report, _ := verify(t, streams(t, s).blocks["s-1"]); !report.Closed || report.Frames != 1+2*4+1 {
		t.Errorf("%+v", report)
	}
}

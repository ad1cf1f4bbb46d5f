package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
)

// snapshotDir is what a next daemon would find if this one died now.
func snapshotDir(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "journal")
	must(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

// The journal of a daemon that died while it wrote, cut within its last two
// records, gives a recording that verifies and holds all before. (That every
// single byte can be the cut is tested in package wal.)
func TestCrashWithinARecord(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, options(dir))
	r := session(t, j, "s-1", 2)
	must(t, r.Command(command("s-1", 3)))
	before := journalSize(t, dir)
	must(t, r.Outcome(command("s-1", 3)))
	must(t, r.Command(command("s-1", 4)))
	file, data := lastSegment(t, dir)
	must(t, j.Close())

	s := embedded(t, t.TempDir())
	defer func() { s.Shutdown() }()
	for n := before; n <= len(data); n += min(17, max(1, len(data)-n)) {
		cut := t.TempDir()
		must(t, os.WriteFile(filepath.Join(cut, filepath.Base(file)), data[:n], 0o600))
		j := openJournal(t, options(cut))
		stop := publish(t, j, jet(t, s, bus.RoleNode))
		stop()
		must(t, j.Close())
		p := streams(t, s)
		_, frames := verify(t, p.blocks["s-1"])
		want := 3
		if n == len(data) {
			want = 4
		}
		got := kinds(frames)
		if got[recording.KindCommand] != want || got[recording.KindOutcome] != want || got[recording.KindSessionEnded] != 1 {
			t.Fatalf("cut at %d of %d: %v", n, len(data), got)
		}
		last := p.events[len(p.events)-1]
		d, err := last.Payload()
		must(t, err)
		if e, ok := d.(*event.SessionEnded); !ok || e.Reason != event.ReasonTruncated || e.Commands != uint64(want) || e.RootHash == "" {
			t.Fatalf("cut at %d: last event %s", n, last.Data)
		}
		s.Shutdown()
		s = embedded(t, t.TempDir())
	}
}

func journalSize(t testing.TB, dir string) int {
	t.Helper()
	_, data := lastSegment(t, dir)
	return len(data)
}

func lastSegment(t testing.TB, dir string) (string, []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	must(t, err)
	data, err := os.ReadFile(files[len(files)-1])
	must(t, err)
	return files[len(files)-1], data
}

// A daemon that dies again and again, at any point between sealing a block and
// its acknowledgement, leaves neither a hole nor a copy.
func TestDeathOfThePublisher(t *testing.T) {
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	dir := t.TempDir()
	j := openJournal(t, options(dir))
	stop := publish(t, j, jet(t, s, bus.RoleNode))
	long := session(t, j, "long", 5)
	short := session(t, j, "short", 3)
	must(t, short.Ended(event.SessionEnded{Reason: event.ReasonClientClosed}))
	var copies []string
	for i := range 8 {
		for n := range 300 {
			run(t, long, "long", uint64(6+i*300+n))
		}
		// While blocks are on their way.
		copies = append(copies, snapshotDir(t, dir))
	}
	must(t, long.Ended(event.SessionEnded{Reason: event.ReasonClientClosed}))
	stop()
	must(t, j.Close())
	want := streams(t, s)
	verify(t, want.blocks["long"])
	verify(t, want.blocks["short"])

	for i, dir := range copies {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			fresh := embedded(t, t.TempDir())
			defer fresh.Shutdown()
			// Every start but the last dies without a last checkpoint: its
			// folder is put back to a copy from while it ran.
			for range 2 {
				j := openJournal(t, options(dir))
				stop := publish(t, j, jet(t, fresh, bus.RoleNode))
				until(t, "the journal to be read", func() bool { st := j.Stats(); return st.Unread == 0 && st.InFlight == 0 })
				again := snapshotDir(t, dir)
				stop()
				must(t, j.Close())
				dir = again
			}
			j := openJournal(t, options(dir))
			stop := publish(t, j, jet(t, fresh, bus.RoleNode))
			stop()
			must(t, j.Close())
			p := streams(t, fresh)
			if len(p.blocks["long"]) == 0 {
				t.Fatal("nothing published")
			}
			for _, id := range []string{"long"} {
				_, frames := verify(t, p.blocks[id])
				if k := kinds(frames); k[recording.KindCommand] < 5 || k[recording.KindCommand] != k[recording.KindOutcome] {
					t.Errorf("%v", k)
				}
			}
			seen := map[string]bool{}
			for _, id := range p.ids() {
				if seen[id] {
					t.Errorf("event %s twice", id)
				}
				seen[id] = true
			}
		})
	}
}

// The same streams, before and after the crash: what was acknowledged already
// is continued, block for block.
func TestCrashContinuesTheChain(t *testing.T) {
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	dir := t.TempDir()
	j := openJournal(t, options(dir))
	r := session(t, j, "s-1", 0)
	stop := publish(t, j, jet(t, s, bus.RoleNode))
	seq := uint64(0)
	for round := range 5 {
		for range 20 {
			seq++
			run(t, r, "s-1", seq)
		}
		until(t, "all to be acknowledged", func() bool {
			st := j.Stats()
			return st.Unread == 0 && st.InFlight == 0 && st.Published >= seq+uint64(round)+2
		})
	}
	stop()
	open := command("s-1", seq+1)
	must(t, r.Command(open))
	crashed := snapshotDir(t, dir)

	again := openJournal(t, options(crashed))
	stopAgain := publish(t, again, jet(t, s, bus.RoleNode))
	stopAgain()
	must(t, again.Close())
	p := streams(t, s)
	_, frames := verify(t, p.blocks["s-1"])
	if k := kinds(frames); k[recording.KindCommand] != 101 || k[recording.KindOutcome] != 101 {
		t.Errorf("%v", k)
	}
	var unfinished int
	for _, e := range p.events {
		if d, err := e.Payload(); err == nil {
			if c, ok := d.(*event.Command); ok && c.Unfinished {
				unfinished++
				if c.Text != open.Text || c.Seq != open.Seq {
					t.Errorf("unfinished command %+v", c)
				}
			}
		}
	}
	if unfinished != 1 {
		t.Errorf("%d unfinished commands, want 1", unfinished)
	}
	must(t, j.Close())
}

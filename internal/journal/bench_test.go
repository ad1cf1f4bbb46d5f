package journal_test

import (
	"testing"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/event"
)

// What a command costs its session: one Command and one Outcome.
func BenchmarkRecorder(b *testing.B) {
	j := openJournal(b, options(b.TempDir()))
	defer j.Close()
	r := j.Session("0197b0c2-7a51-7000-8000-3f6d8f6c1e55", event.Origin{Target: "orders-db"}, false)
	must(b, r.Started(event.SessionStarted{}))
	c := decided("0197b0c2-7a51-7000-8000-3f6d8f6c1e55", 1, firstRevision)
	b.ReportAllocs()
	for b.Loop() {
		if r.Command(c) != nil || r.Outcome(c) != nil {
			b.StopTimer()
			must(b, j.Close())
			j = openJournal(b, options(b.TempDir()))
			r = j.Session(c.Session, event.Origin{Target: "orders-db"}, false)
			must(b, r.Started(event.SessionStarted{}))
			b.StartTimer()
		}
		c.Seq++
	}
}

// What a command costs in all, up to its acknowledgement by the embedded
// server: recorded, sealed, derived, published, stored.
func BenchmarkPublish(b *testing.B) {
	s := embedded(b, b.TempDir())
	defer s.Shutdown()
	j := openJournal(b, options(b.TempDir()))
	defer j.Close()
	stop := publish(b, j, jet(b, s, bus.RoleNode))
	defer stop()
	r := session(b, j, "s-1", 0)
	seq := uint64(0)
	for b.Loop() {
		seq++
		c := decided("s-1", seq, firstRevision)
		must(b, r.Command(c))
		c.Rows, c.Bytes, c.Tag = seq, 10*seq, "SELECT 1"
		must(b, r.Outcome(c))
		if seq%4096 == 0 {
			until(b, "room", func() bool { return j.Stats().Unread < 8<<20 })
		}
	}
	until(b, "all to be acknowledged", func() bool { st := j.Stats(); return st.Unread == 0 && st.InFlight == 0 })
}

package journal_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

func nodeKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

func options(dir string) journal.Options {
	return journal.Options{Dir: dir, Cluster: "c1", Node: "n1", Key: nodeKey(), Log: zerolog.Nop(), KeepAcked: -1, BlockAge: 20 * time.Millisecond}
}

func openJournal(t testing.TB, o journal.Options) *journal.Journal {
	t.Helper()
	j, err := journal.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func embedded(t testing.TB, dir string) *bus.Server {
	t.Helper()
	s, err := bus.Embedded(t.Context(), bus.Options{Dir: dir, Cluster: "c1", Node: "n1", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func jet(t testing.TB, s *bus.Server, r bus.Role) jetstream.JetStream {
	t.Helper()
	nc, err := s.Connect(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// publish runs the publisher until stop is called.
func publish(t testing.TB, j *journal.Journal, js jetstream.JetStream) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx, js) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("publisher: %v", err)
		}
	})
}

func session(t testing.TB, j *journal.Journal, id string, commands int) *journal.Recorder {
	t.Helper()
	r := j.Session(id, event.Origin{Target: "orders-db", Subject: id}, false)
	must(t, r.Started(event.SessionStarted{Principal: event.Principal{Subject: "ann", Issuer: "local"}, Target: event.Target{Name: "orders-db"}}))
	for i := range commands {
		run(t, r, id, uint64(i+1))
	}
	return r
}

func run(t testing.TB, r *journal.Recorder, id string, seq uint64) {
	t.Helper()
	c := command(id, seq)
	must(t, r.Command(c))
	c.Rows, c.Bytes, c.Tag, c.Duration = seq, 10*seq, "SELECT 1", time.Duration(seq)
	must(t, r.Outcome(c))
}

func command(id string, seq uint64) *event.Command {
	return &event.Command{Session: id, Seq: seq, Text: fmt.Sprintf("SELECT abalance FROM accounts WHERE aid = %d", seq),
		Digest: strings.Repeat("ab", 32), Parsed: event.Parsed{Kinds: []string{"SELECT"}, ReadOnly: true, Tables: []string{"accounts"}},
		Decision: "allow", Policy: "orders", Rule: "read"}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// published is what stands in the streams: events in order, blocks by session.
type published struct {
	events []event.Event
	blocks map[string][][]byte
}

func (p published) ids() []string {
	var ids []string
	for _, e := range p.events {
		ids = append(ids, e.ID)
	}
	return ids
}

// streams reads all that the streams hold.
func streams(t testing.TB, s *bus.Server) published {
	t.Helper()
	js := jet(t, s, bus.RoleSink)
	p := published{blocks: map[string][][]byte{}}
	for _, stream := range []string{bus.StreamEvents, bus.StreamRecordings} {
		c, err := js.CreateConsumer(t.Context(), stream, jetstream.ConsumerConfig{Name: "test", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
		must(t, err)
		info, err := c.Info(t.Context())
		must(t, err)
		for left := info.NumPending; left > 0; {
			batch, err := c.Fetch(int(min(left, 500)))
			must(t, err)
			for m := range batch.Messages() {
				left--
				if stream == bus.StreamEvents {
					e, err := event.Decode(m.Data())
					must(t, err)
					p.events = append(p.events, e)
					continue
				}
				id := m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:]
				p.blocks[id] = append(p.blocks[id], m.Data())
			}
			must(t, batch.Error())
		}
		must(t, js.DeleteConsumer(t.Context(), stream, "test"))
	}
	return p
}

// until waits for a condition of the journal or the streams.
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

// verify checks a session's recording and returns its frames.
func verify(t testing.TB, blocks [][]byte) (recording.Report, []recording.Frame) {
	t.Helper()
	c, err := recording.NewCodec()
	must(t, err)
	report, err := c.Verify(blocks, nodeKey().Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatalf("recording of %d blocks: %v", len(blocks), err)
	}
	var frames []recording.Frame
	for _, data := range blocks {
		b, err := c.Decode(data)
		must(t, err)
		for f, err := range b.Frames() {
			must(t, err)
			frames = append(frames, f)
		}
	}
	return report, frames
}

func kinds(frames []recording.Frame) (counts map[recording.Kind]int) {
	counts = map[recording.Kind]int{}
	for _, f := range frames {
		counts[f.Kind]++
	}
	return counts
}

func TestSessionIsPublished(t *testing.T) {
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	j := openJournal(t, options(t.TempDir()))
	defer j.Close()
	stop := publish(t, j, jet(t, s, bus.RoleNode))
	defer stop()

	must(t, j.Event(event.Origin{Target: "orders-db", Subject: "g-1"}, &event.CredentialIssued{Grant: "g-1", Name: "chaperone_1"}))
	r := session(t, j, "s-1", 2)
	must(t, r.Masked(event.MaskApplied{Seq: 2, Columns: []event.MaskColumn{{Column: "card", Rule: "people: *", Count: 2}}}))
	denied := command("s-1", 3)
	denied.Decision, denied.Text, denied.SQLState = "deny", "DROP TABLE accounts", "42501"
	must(t, r.Command(denied))
	long := command("s-1", 4)
	long.Text = "SELECT '" + strings.Repeat("ä", event.MaxText) + "'"
	long.Parsed.Kinds = slices.Repeat([]string{"SELECT"}, 100_000)
	long.Parsed.Tables = []string{strings.Repeat("t", 10_000)}
	must(t, r.Command(long))
	must(t, r.Outcome(long))
	must(t, r.Ended(event.SessionEnded{Reason: event.ReasonClientClosed, Commands: 4, Denied: 1}))
	stop()

	p := streams(t, s)
	ids := p.ids()
	if want := []string{ids[0], "s-1/started", "s-1/1", "s-1/2", "s-1/mask/6", "s-1/3", "s-1/4", "s-1/ended"}; !slices.Equal(ids, want) {
		t.Fatalf("events %q, want %q", ids, want)
	}
	report, frames := verify(t, p.blocks["s-1"])
	if report.Frames != 10 || !report.Closed {
		t.Errorf("%+v", report)
	}
	for i, check := range map[int]func(event.Data) bool{
		0: func(d event.Data) bool { return d.(*event.CredentialIssued).Name == "chaperone_1" },
		2: func(d event.Data) bool {
			c := d.(*event.Command)
			return c.Rows == 1 && c.Rule == "read" && c.Duration == 1 && c.Text == command("s-1", 1).Text
		},
		5: func(d event.Data) bool {
			c := d.(*event.Command)
			return c.Decision == "deny" && c.SQLState == "42501"
		},
		6: func(d event.Data) bool {
			c := d.(*event.Command)
			return c.Cut && len(c.Text) <= event.MaxText && len(c.Text) > event.MaxText-4 && len(c.Parsed.Kinds) == 256 && len(c.Parsed.Tables[0]) == 256
		},
		7: func(d event.Data) bool {
			e := d.(*event.SessionEnded)
			return e.RootHash == report.Root.String() && e.Recording == report.Blocks && e.Denied == 1
		},
	} {
		d, err := p.events[i].Payload()
		must(t, err)
		if !check(d) {
			t.Errorf("event %d: %s", i, p.events[i].Data)
		}
	}
	if n := len(frames[7].Payload); n <= 2*event.MaxText {
		t.Errorf("the recording holds %d bytes of the long command", n)
	}
	if bytes.Contains(frames[1].Payload, []byte(`"rows"`)) {
		t.Errorf("a command's frame knows how it went: %s", frames[1].Payload)
	}
}

func TestRecorderRefusesWhatIsOutOfOrder(t *testing.T) {
	j := openJournal(t, options(t.TempDir()))
	defer j.Close()
	r := j.Session("s-1", event.Origin{}, false)
	if err := r.Command(command("s-1", 1)); !errors.Is(err, journal.ErrNotOpen) {
		t.Errorf("before the start: %v", err)
	}
	must(t, r.Started(event.SessionStarted{}))
	if err := r.Started(event.SessionStarted{}); !errors.Is(err, journal.ErrNotOpen) {
		t.Errorf("second start: %v", err)
	}
	must(t, r.Ended(event.SessionEnded{}))
	for what, err := range map[string]error{"command": r.Command(command("s-1", 1)), "outcome": r.Outcome(command("s-1", 1)),
		"mask": r.Masked(event.MaskApplied{}), "end": r.Ended(event.SessionEnded{})} {
		if !errors.Is(err, journal.ErrNotOpen) {
			t.Errorf("%s after the end: %v", what, err)
		}
	}
	for _, id := range []string{"", "a.b", "a b", "*", "../a", strings.Repeat("x", recording.MaxSession+1)} {
		if err := j.Session(id, event.Origin{}, false).Started(event.SessionStarted{}); err == nil {
			t.Errorf("session id %q was taken", id)
		}
	}
}

func TestFullJournalRefusesCommandsAndTakesOutcomes(t *testing.T) {
	o := options(t.TempDir())
	o.MaxBytes = 1 << 20
	var warned [][2]int64
	o.OnDegraded = func(used, limit int64) { warned = append(warned, [2]int64{used, limit}) }
	j := openJournal(t, o)
	defer j.Close()
	r := session(t, j, "s-1", 0)
	var full error
	n := uint64(0)
	for full == nil {
		n++
		c := command("s-1", n)
		if full = r.Command(c); full == nil {
			must(t, r.Outcome(c))
		}
	}
	if !errors.Is(full, journal.ErrFull) {
		t.Fatal(full)
	}
	if len(warned) != 1 || warned[0][0] < 1<<20/5*4 || warned[0][0] > 1<<20 || warned[0][1] != 1<<20 {
		t.Errorf("warned with %v", warned)
	}
	if err := j.Event(event.Origin{}, &event.NodeDegraded{}); !errors.Is(err, journal.ErrFull) {
		t.Errorf("event: %v", err)
	}
	must(t, r.Outcome(command("s-1", n-1)))
	must(t, r.Ended(event.SessionEnded{}))

	// With NATS there, it empties, and takes commands again.
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	stop := publish(t, j, jet(t, s, bus.RoleNode))
	defer stop()
	until(t, "the journal to empty", func() bool { return j.Stats().Bytes < 1<<19 })
	must(t, session(t, j, "s-2", 3).Ended(event.SessionEnded{}))
	stop()
	verify(t, streams(t, s).blocks["s-2"])
}

// A session that is open and says nothing for long keeps no file from being
// removed, and goes on with its chain: in the same daemon, and in the next.
func TestIdleSessionDoesNotHoldTheJournal(t *testing.T) {
	s := embedded(t, t.TempDir())
	defer s.Shutdown()
	o := options(t.TempDir())
	o.MaxBytes = 1 << 20
	j := openJournal(t, o)
	stop := publish(t, j, jet(t, s, bus.RoleNode))
	idle, silent := session(t, j, "idle", 2), session(t, j, "silent", 2)
	must(t, silent.Command(command("silent", 3)))
	busy := session(t, j, "busy", 0)
	for seq := uint64(1); seq <= 8000; seq++ {
		c := command("busy", seq)
		until(t, "room", func() bool {
			err := busy.Command(c)
			if err != nil && !errors.Is(err, journal.ErrFull) {
				t.Fatal(err)
			}
			return err == nil
		})
		must(t, busy.Outcome(c))
	}
	must(t, busy.Ended(event.SessionEnded{}))
	run(t, idle, "idle", 3)
	must(t, idle.Ended(event.SessionEnded{}))
	stop()
	must(t, j.Close())

	next := openJournal(t, o)
	stop = publish(t, next, jet(t, s, bus.RoleNode))
	stop()
	must(t, next.Close())
	p := streams(t, s)
	for id, want := range map[string]int{"busy": 8000, "idle": 3, "silent": 3} {
		_, frames := verify(t, p.blocks[id])
		if k := kinds(frames); k[recording.KindCommand] != want || k[recording.KindOutcome] != want || k[recording.KindSessionEnded] != 1 {
			t.Errorf("%s: %v", id, k)
		}
	}
	if last := p.ids()[len(p.events)-2:]; !slices.Equal(last, []string{"silent/3", "silent/ended"}) {
		t.Errorf("last events %q", last)
	}
}

func TestNATSDownAndUpAgain(t *testing.T) {
	dir := t.TempDir()
	s := embedded(t, dir)
	defer func() { s.Shutdown() }()
	remote, url := remoteNode(t, &s, dir)
	j := openJournal(t, options(t.TempDir()))
	defer j.Close()
	stop := publish(t, j, remote)
	defer stop()
	r := session(t, j, "s-1", 10)
	until(t, "the first events", func() bool { return j.Stats().Published >= 10 })
	s.Shutdown()
	for seq := range uint64(2000) {
		run(t, r, "s-1", 11+seq)
	}
	must(t, r.Ended(event.SessionEnded{Reason: event.ReasonClientClosed}))
	until(t, "the outage to be noticed", func() bool { return j.Stats().Resent > 0 || j.Stats().Lag > 0 })
	s = listening(t, dir, url)
	until(t, "all to arrive", func() bool {
		st := j.Stats()
		return st.Unread == 0 && st.InFlight == 0 && st.Lag == 0 && st.Published >= 2013
	})
	stop()
	p := streams(t, s)
	verify(t, p.blocks["s-1"])
	var want []string
	want = append(want, "s-1/started")
	for i := range 2010 {
		want = append(want, fmt.Sprintf("s-1/%d", i+1))
	}
	want = append(want, "s-1/ended")
	if got := p.ids(); !slices.Equal(got, want) {
		t.Fatalf("%d events, want %d in order; first %q", len(got), len(want), got[:min(5, len(got))])
	}
}

func listening(t testing.TB, dir, addr string) *bus.Server {
	t.Helper()
	s, err := bus.Embedded(t.Context(), bus.Options{Dir: dir, Cluster: "c1", Node: "n1", Log: zerolog.Nop(), Listen: addr})
	must(t, err)
	return s
}

// remoteNode restarts the server as one that listens and connects to it as a
// node does that has no server of its own.
func remoteNode(t testing.TB, s **bus.Server, dir string) (jetstream.JetStream, string) {
	t.Helper()
	(*s).Shutdown()
	*s = listening(t, dir, "127.0.0.1:0")
	nc, err := bus.Connect(bus.Remote{URL: (*s).URL(), Role: bus.RoleNode, SeedFile: filepath.Join(dir, "nats", "node.nk")})
	must(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	must(t, err)
	return js, strings.TrimPrefix((*s).URL(), "nats://")
}

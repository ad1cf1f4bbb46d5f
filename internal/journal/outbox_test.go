package journal

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/journal/wal"
)

// A block whose seal could be lost with the machine must not be known to
// anybody: it stays, and all behind it, until the journal is synced that far.
func TestBlockWaitsForItsSeal(t *testing.T) {
	server, err := bus.Embedded(t.Context(), bus.Options{Dir: t.TempDir(), Cluster: "c1", Node: "n1", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	conn, err := server.Connect(bus.RoleNode)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader, err := server.Connect(bus.RoleSink)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	js, err := jetstream.New(reader)
	if err != nil {
		t.Fatal(err)
	}
	o, err := newOutbox(conn, zerolog.Nop(), &counters{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	o.put([]message{
		{subject: "chaperone.event.c1.n1._.command", id: "before", body: []byte("{}")},
		{subject: "chaperone.recording.c1.s-1", id: "block", body: []byte("x"), needs: 100},
		{subject: "chaperone.event.c1.n1._.command", id: "behind", body: []byte("{}")},
	})
	arrived := func(stream string) uint64 {
		s, err := js.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.Msgs
	}
	// settle waits until all that was sent is acknowledged.
	settle := func() {
		for o.sent > 0 {
			<-o.acks.arrived
			o.collect(time.Now(), func(*message) {})
		}
	}
	for _, step := range []struct {
		synced         wal.LSN
		blocks, events uint64
	}{{0, 0, 1}, {99, 0, 1}, {100, 1, 2}} {
		o.send(time.Now(), step.synced)
		settle()
		if blocks, events := arrived(bus.StreamRecordings), arrived(bus.StreamEvents); blocks != step.blocks || events != step.events {
			t.Errorf("synced up to %d: %d blocks and %d events arrived, want %d and %d", step.synced, blocks, events, step.blocks, step.events)
		}
	}
}

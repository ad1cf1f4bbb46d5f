package documents_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/documents"
)

// The sink may publish, and a node may follow, with what their roles are allowed.
func TestWithTheRolesOfTheBus(t *testing.T) {
	s, err := bus.Embedded(t.Context(), bus.Options{Dir: t.TempDir(), Cluster: "c1", Node: "n1", Log: zerolog.Nop()})
	ok(t, err)
	t.Cleanup(s.Shutdown)
	as := func(r bus.Role) *bus.Bucket {
		nc, err := s.Connect(r)
		ok(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		ok(t, err)
		return bus.NewBucket(js, documents.Bucket)
	}
	sink, err := as(bus.RoleSink).KV(t.Context())
	ok(t, err)
	w := newWorld(t, publishedNode)
	w.start(as(bus.RoleNode), 10*time.Millisecond)
	w.settled("a")
	publish(t, sink, map[string]string{"b.yaml": target("b")})
	w.changed("ann@corp", "a", "b")
	publish(t, sink, map[string]string{"b.yaml": target("c")})
	w.changed("ann@corp", "a", "c")
}

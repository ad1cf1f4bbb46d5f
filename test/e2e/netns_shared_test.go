package e2e

import (
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// routed is a namespace from which the node's addresses can be reached.
func routed(t *testing.T) *lab.Netns {
	t.Helper()
	return newNetns(t, lab.NetnsOptions{
		Inside: prefixes("10.30.0.2/24"), Outside: prefixes("10.30.0.1/24"), Gateways: []netip.Addr{netip.MustParseAddr("10.30.0.1")},
	})
}

// countDatagrams counts what arrives at an address of the node, until the test ends.
func countDatagrams(t *testing.T, address string) *atomic.Int64 {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	var arrived atomic.Int64
	var counting sync.WaitGroup
	counting.Go(func() {
		buffer := make([]byte, 64)
		for {
			if _, _, err := conn.ReadFrom(buffer); err != nil {
				return
			}
			arrived.Add(1)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		counting.Wait()
	})
	return &arrived
}

// A namespace stays guarded as long as any planner lives in it, and no longer: what is sent
// there by others than its planners' own sockets can't reach a target either.
func TestNamespacesOfSeveralJobsStayGuarded(t *testing.T) {
	w := setUp(t, stage.Options{})
	ns := routed(t)
	const target = stage.Address + ":5432"
	arrived := countDatagrams(t, target)
	// A process that is no planner's stands for a packet that no socket hook sees.
	send := func() {
		t.Helper()
		if err := ns.Do(func() error {
			conn, err := net.Dial("udp", target)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("hello"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	stopped := func() (n int) {
		for _, e := range w.events() {
			var data event.Bypass
			if e.Kind() == event.TypeBypass && json.Unmarshal(e.Data, &data) == nil && data.Hook == "interface" {
				n++
			}
		}
		return n
	}
	// passes tells whether what is sent now arrives, or else is stopped.
	passes := func() bool {
		t.Helper()
		before, stops := arrived.Load(), stopped()
		send()
		w.until("a datagram that arrives or is stopped", func() bool { return arrived.Load() > before || stopped() > stops })
		return arrived.Load() > before
	}
	if !passes() {
		t.Fatal("nothing arrives although no planner lives there")
	}
	first, second := w.remote(home{net: ns}, "nightly-first"), w.remote(home{net: ns}, "nightly-second")
	first.ask("session")
	second.ask("session")
	if passes() {
		t.Fatal("a packet from a planners' namespace reached a target")
	}
	w.leave(second)
	if passes() {
		t.Error("a packet from a namespace that one of two planners left reached a target")
	}
	first.ask("session")
	w.leave(first)
	if !passes() {
		t.Error("the namespace is guarded although no planner lives there any more")
	}
}

// leave has a job end, and waits until the daemon knows.
func (w *world) leave(planner *remote) {
	w.t.Helper()
	job := planner.ask("env", "CHAPERONE_JOB")
	planner.end()
	ended := `"job":"` + job + `","why":"job_ended"`
	w.until("an end of the job "+job, func() bool { return strings.Contains(w.log.String(), ended) })
}

// Jobs of one namespace have each its own way out.
func TestJobsOfOneNamespaceHaveTheirOwnEgress(t *testing.T) {
	const free = `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: free}
spec:
  select:
    run: {name: "free-*"}
`
	w, _, away := egressWorld(t, stage.Options{Documents: map[string]string{
		"workload.yaml": egressDocument(allowed), "free.yaml": free,
	}})
	for _, order := range [][2]string{{"free-one", "nightly-one"}, {"nightly-two", "free-two"}} {
		t.Run(strings.Join(order[:], " then "), func(t *testing.T) {
			w := w.in(t)
			planners := map[bool]*remote{}
			for _, name := range order {
				planner := w.remote(away, name)
				planner.ask("session") // so that it is there before the next
				planners[strings.HasPrefix(name, "free")] = planner
			}
			for _, planner := range planners {
				planner.ask("tcp", inRange+":8080")
			}
			planners[true].ask("tcp", outOfRange+":8080")
			planners[false].refused("EPERM", "tcp", outOfRange+":8080")
		})
	}
}

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// Places that planners would like to go to, at the node.
const (
	llm        = "10.20.8.1" // api.llm.internal
	llmMoved   = "10.20.8.2"
	inRange    = "10.20.9.7"  // of the range that is allowed
	outOfRange = "10.20.10.7" // and of none
)

// egressDocument selects the jobs of [world.planner]; allow is a YAML list.
func egressDocument(allow string) string {
	return `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: nightly-planner}
spec:
  select:
    run: {name: "nightly-*"}
  egress: {default: deny, allow: ` + allow + `}
`
}

const allowed = `["api.llm.internal:8443", "10.20.9.0/24:8080"]`

// greeter serves a word at an address of the node, until the test ends.
func greeter(t *testing.T, address, word string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { greet(l, word) })
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
}

// egressWorld is a stage whose planners may go to what is listed only, and the places. The
// planner's namespace has a route to all of them.
func egressWorld(t *testing.T, options stage.Options) (*world, *lab.DNS, home) {
	t.Helper()
	addAddresses(t, llm, llmMoved, inRange, outOfRange)
	for _, address := range []string{llm, llmMoved} {
		greeter(t, address+":8443", "llm at "+address)
		greeter(t, address+":9443", "another port")
	}
	for _, address := range []string{inRange, outOfRange} {
		greeter(t, address+":8080", "service at "+address)
		greeter(t, address+":8081", "another port")
	}
	w, server := setUpDNS(t, options, "api.llm A "+llm, "other.llm A "+outOfRange)
	pair := lab.NetnsOptions{
		Inside: prefixes("10.30.0.2/24"), Outside: prefixes("10.30.0.1/24"), Gateways: []netip.Addr{netip.MustParseAddr("10.30.0.1")},
	}
	return w, server, home{net: newNetns(t, pair)}
}

func TestEgressIsWhatTheDocumentLists(t *testing.T) {
	w, server, away := egressWorld(t, stage.Options{Documents: map[string]string{"workload.yaml": egressDocument(allowed)}})
	for where, h := range map[string]home{"in the node's namespace": {}, "in a namespace": away} {
		t.Run(where, func(t *testing.T) {
			w := w.in(t)
			planner := w.remote(h, "nightly-egress")
			job := planner.ask("env", "CHAPERONE_JOB")
			says := func(word, address string) {
				t.Helper()
				if got := planner.ask("tcp", address); got != word {
					t.Errorf("%s says %q, want %q", address, got, word)
				}
			}
			// By name, at the address that the name has now, and by range.
			says("llm at "+llm, "api.llm.internal:8443")
			says("llm at "+llm, llm+":8443")
			says("service at "+inRange, inRange+":8080")
			planner.ask("udp", inRange+":8080")
			// Everything else, whatever it is sent with.
			for _, address := range []string{
				llmMoved + ":8443", "api.llm.internal:9443", llm + ":9443",
				inRange + ":8081", outOfRange + ":8080", "203.0.113.9:443", "[2001:db8::9]:443",
			} {
				planner.refused("EPERM", "tcp", address)
			}
			for _, address := range []string{outOfRange + ":8080", inRange + ":8081", "203.0.113.9:443"} {
				planner.refused("EPERM", "udp", address)
				planner.refused("EPERM", "udp", address, "unconnected")
			}
			w.event(event.TypeBypass, func(data map[string]any) bool {
				return data["job"] == job && data["hook"] == "connect" && data["socketType"] == "tcp" && data["destination"] == outOfRange+":8080"
			})
			w.event(event.TypeBypass, func(data map[string]any) bool {
				return data["job"] == job && data["hook"] == "sendmsg" && data["socketType"] == "udp" && data["destination"] == outOfRange+":8080"
			})
			// Names that aren't listed don't exist, and lead nowhere out.
			for _, name := range []string{"other.llm.internal", "secrets.exfiltrated.example", "sub.api.llm.internal"} {
				planner.refused("NXDOMAIN", "lookup", name)
			}
			planner.ask("lookup", stage.Host)
			// Targets are where they were, and loopback is the planner's.
			planner.ask("session")
			port := planner.ask("serve", "127.0.0.1:0")
			says("planner", port)

			// A name that moves takes its permission along; the old address keeps it a while.
			if err := server.Set(t.Context(), "orders.db A "+stage.Address, "api.llm A "+llmMoved); err != nil {
				t.Fatal(err)
			}
			says("llm at "+llmMoved, "api.llm.internal:8443")
			if err := server.Set(t.Context(), "orders.db A "+stage.Address, "api.llm A "+llm); err != nil {
				t.Fatal(err)
			}
		})
		// What one planner learnt is allowed to all of its document: the next has none of it.
		w.restart()
	}
}

// restart has the daemon forget what it learnt of names.
func (w *world) restart() {
	w.t.Helper()
	if err := w.daemon.Stop(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.up()
}

// Who connects to a planner is answered, wherever he is.
func TestEgressLeavesServersOfPlannersAlone(t *testing.T) {
	w, _, away := egressWorld(t, stage.Options{Documents: map[string]string{"workload.yaml": egressDocument(allowed)}})
	planner := w.remote(away, "nightly-server")
	address := planner.ask("serve", "10.30.0.2:7000")
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	var word string
	if _, err := fmt.Fscanln(conn, &word); err != nil || word != "planner" {
		t.Fatalf("the planner's server says %q, %v", word, err)
	}
	// The other way is closed still.
	planner.refused("EPERM", "tcp", conn.LocalAddr().String())
}

func TestEgressChangesForRunningJobs(t *testing.T) {
	w, _, away := egressWorld(t, stage.Options{})
	planner := w.remote(away, "nightly-running")
	load := func(document string) {
		t.Helper()
		if err := w.WriteDocument("workload.yaml", document); err != nil {
			t.Fatal(err)
		}
		before := strings.Count(w.log.String(), "documents in force")
		if err := w.daemon.Reload(); err != nil {
			t.Fatal(err)
		}
		w.until("other documents", func() bool { return strings.Count(w.log.String(), "documents in force") > before })
	}
	may := func(addresses ...string) {
		t.Helper()
		for _, address := range addresses {
			planner.ask("tcp", address)
		}
	}
	mayNot := func(addresses ...string) {
		t.Helper()
		for _, address := range addresses {
			planner.refused("EPERM", "tcp", address)
		}
	}
	may("api.llm.internal:8443", inRange+":8080", outOfRange+":8080", "other.llm.internal:8080")
	load(egressDocument(allowed))
	may("api.llm.internal:8443", inRange+":8080")
	mayNot(outOfRange + ":8080")
	planner.refused("NXDOMAIN", "lookup", "other.llm.internal")
	load(egressDocument(`["10.20.10.0/24:8080"]`))
	may(outOfRange + ":8080")
	mayNot(llm+":8443", inRange+":8080")
	planner.refused("NXDOMAIN", "lookup", "api.llm.internal")
	load(egressDocument(`[]`))
	mayNot(llm+":8443", inRange+":8080", outOfRange+":8080")
	planner.ask("session")
	load(stage.Documents()["workload.yaml"])
	may("api.llm.internal:8443", inRange+":8080", outOfRange+":8080")
}

func TestEgressOutlivesTheDaemon(t *testing.T) {
	w, _, away := egressWorld(t, stage.Options{Documents: map[string]string{"workload.yaml": egressDocument(allowed)}})
	planner := w.remote(away, "nightly-orphan")
	look := func() {
		t.Helper()
		planner.ask("tcp", llm+":8443")
		planner.ask("tcp", inRange+":8080")
		planner.ask("udp", inRange+":8080")
		planner.refused("EPERM", "tcp", llm+":9443")
		planner.refused("EPERM", "tcp", outOfRange+":8080")
		planner.refused("EPERM", "udp", outOfRange+":8080")
		planner.refused("EPERM", "udp", outOfRange+":8080", "unconnected")
	}
	planner.ask("lookup", "api.llm.internal")
	look()
	if err := w.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	look()
	planner.refused("ECONNREFUSED", "session", "host="+stage.Address, "sslmode=disable")
	w.up()
	look()
	planner.ask("tcp", "api.llm.internal:8443")
	planner.ask("session")
}

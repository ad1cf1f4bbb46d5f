package intercept

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// A planner that connects to what is captured gets here, whatever way it connects,
// and sees the peer that it asked for.
func TestPlannerIsDiverted(t *testing.T) {
	w := newWorld(t)
	w.capture(
		Capture{Addr: netip.MustParseAddr(target4), Port: capturedPort, Action: Redirect, Protocol: 7, Target: 70},
		Capture{Addr: netip.MustParseAddr(target6), Port: capturedPort, Action: Redirect},
		Capture{Addr: netip.MustParseAddr("127.0.0.1"), Port: capturedPort, Action: Redirect},
		Capture{Addr: netip.MustParseAddr("::1"), Port: capturedPort, Action: Redirect},
	)
	nested := filepath.Join(w.job, "a", "b")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, action, cgroup, to string
		destination, peer        string
	}{
		{"IPv4", "tcp", w.job, at(target4, capturedPort), "", ""},
		{"IPv6", "tcp", w.job, at(target6, capturedPort), "", ""},
		{"IPv4 in IPv6", "mapped", w.job, at(target4, capturedPort), "", "[::ffff:10.77.0.1]:5999"},
		{"unspecified IPv4", "tcp", w.job, "0.0.0.0:5999", "127.0.0.1:5999", "127.0.0.1:5999"},
		{"unspecified IPv6", "tcp", w.job, "[::]:5999", "[::1]:5999", "[::1]:5999"},
		{"unspecified IPv4 in IPv6", "mapped", w.job, "0.0.0.0:5999", "127.0.0.1:5999", "[::ffff:127.0.0.1]:5999"},
		{"Fast Open", "tfo", w.job, at(target4, capturedPort), "", ""},
		{"nested cgroup", "tcp", nested, at(target4, capturedPort), "", ""},
		{"nested cgroup, IPv6", "tcp", nested, at(target6, capturedPort), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.destination == "" {
				c.destination = c.to
			}
			if c.peer == "" {
				c.peer = c.to
			}
			got := w.run(c.cgroup, c.action, c.to)
			wantSaid(t, got, "PROXY "+c.destination)
			if got.Peer != c.peer {
				t.Errorf("client sees peer %s, want %s", got.Peer, c.peer)
			}
		})
	}
	checkBridgeEmpty(t, w)
}

// The origin tells who connected.
func TestOriginIdentity(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	nested := filepath.Join(w.job, "inner")
	if err := os.Mkdir(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	cg, err := stat(nested)
	if err != nil {
		t.Fatal(err)
	}
	cmd, run := w.client(nested, "tcp", at(target4, capturedPort))
	wantSaid(t, run(), "PROXY")
	o := w.lastOrigin()
	if o.Workload != w.jobID || o.Cgroup != cg.id {
		t.Errorf("workload %d in cgroup %d, want %d in %d", o.Workload, o.Cgroup, w.jobID, cg.id)
	}
	if o.Process.PID != uint32(cmd.Process.Pid) || o.Process.UID != 0 || o.Process.GID != 0 {
		t.Errorf("process %+v, want %d of root", o.Process, cmd.Process.Pid)
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if o.Process.Executable != self {
		t.Errorf("executable %q, want %q", o.Process.Executable, self)
	}
	if o.Process.Comm != "exe" {
		t.Errorf("comm %q, want %q", o.Process.Comm, "exe")
	}
	if o.Protocol != 7 || o.Target != 70 {
		t.Errorf("protocol %d and target %d, want those of the capture, 7 and 70", o.Protocol, o.Target)
	}
	if want := netip.MustParseAddrPort(at(target4, capturedPort)); o.Destination != want {
		t.Errorf("destination %s, want %s", o.Destination, want)
	}
}

// A port captured on all addresses is captured on those nobody thought of.
func TestPortOnAnyAddress(t *testing.T) {
	w := newWorld(t)
	w.capture(Capture{Port: capturedPort, Action: Redirect})
	for _, to := range []string{target4, alias4, target6, "127.0.0.2", "0.0.0.0", "203.0.113.5"} {
		wantSaid(t, w.run(w.job, "tcp", at(to, capturedPort)), "PROXY")
	}
	wantSaid(t, w.run(w.job, "tcp", at(alias4, otherPort)), "REAL")
}

// All ports of an address, loopback included, can be captured; the way to the
// listener, which is on loopback, stays open to what is diverted.
func TestAnyPortOfAddress(t *testing.T) {
	w := newWorld(t)
	w.capture(
		Capture{Addr: netip.MustParseAddr(target4), Action: Redirect},
		Capture{Addr: netip.MustParseAddr("127.0.0.1"), Action: Redirect},
	)
	wantSaid(t, w.run(w.job, "tcp", at(target4, 1)), "PROXY "+at(target4, 1))
	wantSaid(t, w.run(w.job, "tcp", at("127.0.0.1", otherPort)), "PROXY")
	wantSaid(t, w.run(w.job, "tcp", at(alias4, otherPort)), "REAL")
}

// Who is no planner, and what is not captured, goes its way.
func TestOthersPass(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	for _, c := range []struct{ name, cgroup, to string }{
		{"outside, captured", w.outside, at(target4, capturedPort)},
		{"outside, captured, IPv6", w.outside, at(target6, capturedPort)},
		{"planner, another port", w.job, at(target4, otherPort)},
		{"planner, another address", w.job, at(alias4, capturedPort)},
		{"planner, IPv6, another port", w.job, at(target6, otherPort)},
		{"stranger, not captured", w.stranger, at(alias4, capturedPort)},
		{"daemon, captured", w.i.own.path, at(target4, capturedPort)},
		{"daemon, captured, IPv6", w.i.own.path, at(target6, capturedPort)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.run(c.cgroup, "tcp", c.to)
			wantSaid(t, got, "REAL "+c.to)
			if got.Peer != c.to {
				t.Errorf("client sees peer %s, want %s", got.Peer, c.to)
			}
		})
	}
}

// One socket, used again, carries nothing of its first connection to the second.
func TestReconnectedSocket(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	captured, free := at(target4, capturedPort), at(target4, otherPort)
	got := w.run(w.job, "reconnect", captured, free)
	wantSaid(t, got, "REAL "+free)
	if got.Peer != free {
		t.Errorf("client sees peer %s, want %s", got.Peer, free)
	}
	wantSaid(t, w.run(w.job, "reconnect", free, captured), "PROXY "+captured)
}

// A source port that is used again, and two threads that connect one socket, never
// lead to another connection's destination.
func TestRaces(t *testing.T) {
	w := newWorld(t)
	w.capture(
		Capture{Addr: netip.MustParseAddr(target4), Port: capturedPort, Action: Redirect},
		Capture{Addr: netip.MustParseAddr(alias4), Port: capturedPort, Action: Redirect},
	)
	got := w.run(w.job, "reused", at(target4, capturedPort), at(alias4, capturedPort))
	if got.Counts["wrong"] != 0 || got.Counts["right"] == 0 {
		t.Errorf("one source port: %v, want none wrong and some right", got.Counts)
	}
	got = w.run(w.job, "race", at(target4, capturedPort), at(target4, otherPort))
	if got.Counts["wrong"]+got.Counts["bypassed"] != 0 || got.Counts["right"] == 0 {
		t.Errorf("two threads: %v, want none wrong or bypassed and some right", got.Counts)
	}
	checkBridgeEmpty(t, w)
}

// A planner that floods a daemon which doesn't accept is bounded, by itself, and leaves
// nothing in the kernel.
func TestFlood(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	for _, l := range w.proxy {
		l.SetDeadline(w.lastMoment()) // nobody accepts any more
	}
	w.serving.Wait()
	got := w.run(w.job, "hold", at(target4, capturedPort), "10000")
	if got.Error != "" || got.Counts["started"] == 0 || got.Counts["refused"] == 0 {
		t.Errorf("of 10000 connections %v, error %q; want some started and some refused", got.Counts, got.Error)
	}
	if n := w.stats()[RefusedBusy]; n != uint64(got.Counts["refused"]) {
		t.Errorf("%d were counted as too many, the client had %d refused", n, got.Counts["refused"])
	}
	checkBridgeEmpty(t, w)
	second := filepath.Join(w.jobs, "two")
	if err := os.Mkdir(second, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := w.i.Enroll(second); err != nil {
		t.Fatal(err)
	}
	if got := w.run(second, "hold", at(target4, capturedPort), "1"); got.Counts["started"] != 1 {
		t.Errorf("another planner: %v, want its connection started", got.Counts)
	}
}

// checkBridgeEmpty fails when an origin is left behind in the kernel, or
// a planner's account isn't even.
func checkBridgeEmpty(t *testing.T, w *world) {
	t.Helper()
	left, err := bridgeEntries(w.i)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("%d origins are left between sockets: %s", len(left), fmt.Sprint(left[0]))
	}
	pending, err := w.i.pending(w.jobID)
	if err != nil {
		t.Fatal(err)
	}
	if pending != 0 {
		t.Errorf("the planner's account of pending connections is %d, want 0", pending)
	}
}

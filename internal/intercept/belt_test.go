package intercept

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// wholeMachineVar is set where tests may attach programs at the root of the hierarchy: in
// a virtual machine of their own. Elsewhere a mistake would cut the machine off, and the
// test's own cgroup stands for the root.
const wholeMachineVar = "CHAPERONE_TEST_WHOLE_MACHINE"

// With the node's belt nothing on the node reaches what is known to be a target's but the
// daemon and what is exempt, and all else goes its way.
func TestNodeBelt(t *testing.T) {
	w := newWorldWith(t, func(o *Options) {
		o.NodeBelt = true
		if os.Getenv(wholeMachineVar) == "" {
			o.BeltCgroup = filepath.Dir(o.Ancestor)
		}
	})
	w.capture(Capture{Port: capturedPort, Action: Redirect})
	if err := w.i.Protect([]netip.Addr{netip.MustParseAddr(target4), netip.MustParseAddr(target6)}); err != nil {
		t.Fatal(err)
	}
	r := w.watch()
	protected, elsewhere := at(target4, capturedPort), at(alias4, capturedPort)
	for _, to := range []string{protected, at(target6, capturedPort)} {
		wantError(t, w.run(w.outside, "tcp", to), "EPERM")
		if b := r.next(t, RefusedStranger); b.Workload != 0 || b.Destination != netip.MustParseAddrPort(to) {
			t.Errorf("report %+v, want one of an outsider to %s", b, to)
		}
		wantSaid(t, w.run(w.job, "tcp", to), "PROXY "+to)
	}
	wantError(t, w.run(w.outside, "udp", protected), "EPERM")
	wantError(t, w.run(w.outside, "raw", protected, "plain"), "EPERM")
	wantError(t, w.run(w.outside, "raw", at(target4, otherPort), "fragment"), "EPERM")
	// What is not known to be a target's is free, but for planners and who may be one.
	wantSaid(t, w.run(w.outside, "tcp", elsewhere), "REAL")
	wantSaid(t, w.run(w.outside, "tcp", at(target4, otherPort)), "REAL")
	wantError(t, w.run(w.outside, "raw", at(alias4, otherPort), "fragment"), "")
	wantSaid(t, w.run(w.job, "tcp", elsewhere), "PROXY")
	wantError(t, w.run(w.stranger, "tcp", elsewhere), "EPERM")
	// A bystander is as good as an outsider.
	if _, err := w.i.Pass(w.stranger); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.run(w.stranger, "tcp", protected), "EPERM")
	wantSaid(t, w.run(w.stranger, "tcp", elsewhere), "REAL")
	// Leaving the planner's cgroup, or using a socket from before, is of no use.
	wantError(t, w.run(w.job, "leave", w.outside, protected), "EPERM")
	wantError(t, w.run(w.outside, "premade", w.job, "udp", protected), "EPERM")

	id, err := w.i.Exempt(w.outside)
	if err != nil {
		t.Fatal(err)
	}
	wantSaid(t, w.run(w.outside, "tcp", protected), "REAL")
	if err := w.i.Withdraw(id); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.run(w.outside, "tcp", protected), "EPERM")

	// It stays when the daemon is gone, and is taken over.
	w.stop()
	wantError(t, w.run(w.outside, "tcp", protected), "EPERM")
	wantError(t, w.run(w.job, "tcp", protected), "ECONNREFUSED")
	w.start()
	wantError(t, w.run(w.outside, "tcp", protected), "EPERM")
	wantSaid(t, w.run(w.job, "tcp", protected), "PROXY")
}

package intercept

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Without the daemon a planner is refused, whatever it tries and whoever took the
// listener's port, and so is what appears meanwhile.
func TestDaemonGone(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	w.stop()
	to := at(target4, capturedPort)

	wantError(t, w.run(w.job, "tcp", to), "ECONNREFUSED")
	wantError(t, w.run(w.job, "tcp", at(target6, capturedPort)), "ECONNREFUSED")
	wantError(t, w.run(w.job, "udp", to), "EPERM")
	wantError(t, w.run(w.job, "bind", at("127.0.0.1", listenerPort)), "EPERM")
	wantSaid(t, w.run(w.job, "tcp", at(target4, otherPort)), "REAL")

	late := filepath.Join(w.jobs, "late")
	if err := os.Mkdir(late, 0o755); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.run(late, "tcp", to), "EPERM")

	home, err := mustRoot(t).ownPath()
	if err != nil {
		t.Fatal(err)
	}
	if err := join(w.outside); err != nil {
		t.Fatal(err)
	}
	squatter, err := net.Listen("tcp", at("127.0.0.1", listenerPort))
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	if err := join(home); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.run(w.job, "tcp", to), "ECONNREFUSED")
}

func mustRoot(t *testing.T) cgroupRoot {
	t.Helper()
	root, err := findCgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// The next daemon takes over the same links, with planners, captures and counts.
func TestTakeOver(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	to := at(target4, capturedPort)
	wantSaid(t, w.run(w.job, "tcp", to), "PROXY")
	links, diverted := linkIDs(t, w), w.stats()[Diverted]
	gone := filepath.Join(w.jobs, "gone")
	if err := os.Mkdir(gone, 0o755); err != nil {
		t.Fatal(err)
	}
	goneID, err := w.i.Enroll(gone)
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	w.start()

	wantSaid(t, w.run(w.job, "tcp", to), "PROXY "+to)
	if o := w.lastOrigin(); o.Workload != w.jobID || o.Protocol != 7 {
		t.Errorf("origin %+v, want workload %d and protocol 7 of before", o, w.jobID)
	}
	if now := linkIDs(t, w); !slices.Equal(now, links) {
		t.Errorf("links are %v, want those of before, %v", now, links)
	}
	if n := w.stats()[Diverted]; n <= diverted {
		t.Errorf("%d diverted, want more than the %d of before", n, diverted)
	}
	if _, err := w.i.pending(goneID); err == nil {
		t.Error("a planner whose cgroup was removed is still enrolled")
	}
}

// linkIDs are those of the links that can be given another program.
func linkIDs(t *testing.T, w *world) []link.ID {
	t.Helper()
	var ids []link.ID
	for _, l := range w.i.links[:len(hooks(&w.i.objects))] {
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.ID)
	}
	return ids
}

// A link that is pinned but attached to a cgroup that is no more is replaced.
func TestAncestorWasReplaced(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	w.stop()
	if err := join(w.outside); err != nil {
		t.Fatal(err)
	}
	removeCgroups(t, w.options.Ancestor)
	if err := os.MkdirAll(w.job, 0o755); err != nil {
		t.Fatal(err)
	}
	w.start()
	for _, h := range hooks(&w.i.objects) {
		l, err := link.LoadPinnedLink(filepath.Join(w.i.pins.links(), h.name), nil)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := attachedTo(l); err != nil || id != w.i.ancestor.id {
			t.Errorf("link %s is attached to cgroup %d (%v), want %d", h.name, id, err, w.i.ancestor.id)
		}
		l.Close()
	}
	to := at(target4, capturedPort)
	wantError(t, w.run(w.job, "tcp", to), "EPERM")
	if _, err := w.i.Enroll(w.job); err != nil {
		t.Fatal(err)
	}
	wantSaid(t, w.run(w.job, "tcp", to), "PROXY "+to)
}

// Pins have one holder, and are removed only when it has let go of them.
func TestDetach(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	to := at(target4, capturedPort)
	if _, err := Open(context.Background(), w.options); !errors.Is(err, ErrRunning) {
		t.Errorf("a second daemon: %v, want ErrRunning", err)
	}
	if err := Detach(w.options.PinDir); !errors.Is(err, ErrRunning) {
		t.Errorf("detach from a running daemon: %v, want ErrRunning", err)
	}
	wantSaid(t, w.run(w.job, "tcp", to), "PROXY")
	w.stop()
	if err := Detach(w.options.PinDir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(w.options.PinDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pins' folder is still there: %v", err)
	}
	wantSaid(t, w.run(w.job, "tcp", to), "REAL")
}

// Open fails when connections don't get here, and what it has attached refuses.
func TestCanary(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	w.stop()
	options := w.options
	for _, probe := range [][]string{{"/bin/true"}, {"/bin/false"}, {"/bin/echo"}, {"/does/not/exist"}} {
		options.Probe = probe
		if i, err := Open(context.Background(), options); err == nil {
			t.Errorf("%v passed for a probe", probe)
			i.Close()
		}
		wantError(t, w.run(w.job, "tcp", at(target4, capturedPort)), "ECONNREFUSED")
	}
	for _, change := range []func(*Options){
		func(o *Options) { o.Ancestor = "" },
		func(o *Options) { o.Port = 0 },
		func(o *Options) { o.Probe = nil },
	} {
		options := w.options
		change(&options)
		if _, err := Open(context.Background(), options); !errors.Is(err, ErrOptions) {
			t.Errorf("options %+v: %v, want ErrOptions", options, err)
		}
	}
	options = w.options
	options.PinDir = t.TempDir() // on no bpffs
	if _, err := Open(context.Background(), options); !errors.Is(err, ErrPins) {
		t.Errorf("pins on no bpffs: %v, want ErrPins", err)
	}
}

// Pins at the usual place get the bpffs that they need.
func TestMountsBPFFS(t *testing.T) {
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.BPF_FS_MAGIC { // the host's; only this mount namespace loses it
		if err := unix.Unmount(bpffs, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	p, err := openPinDir(bpffs + "/chaperone-test")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.remove(), p.close(), unix.Unmount(bpffs, 0)); err != nil {
		t.Error(err)
	}
}

// A planner's cgroup is below the ancestor, is in no other's, and doesn't hold the
// daemon.
func TestEnroll(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	deep := w.jobs + strings.Repeat("/d", 16)
	inner := filepath.Join(w.job, "inner")
	for _, d := range []string{deep, inner} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{
		w.options.Ancestor, w.outside, w.i.own.path, inner, deep, w.job + "/../../../outside",
		filepath.Join(w.jobs, "missing"), t.TempDir(), "relative", string(mustRoot(t)),
	} {
		if _, err := w.i.Enroll(path); !errors.Is(err, ErrCgroup) {
			t.Errorf("enroll %s: %v, want ErrCgroup", path, err)
		}
	}
	if id, err := w.i.Enroll(w.job); err != nil || id != w.jobID {
		t.Errorf("enrolled again: %d, %v, want %d", id, err, w.jobID)
	}
	to := at(target4, capturedPort)
	wantSaid(t, w.run(w.job, "tcp", to), "PROXY")
	for range 2 {
		if err := w.i.Withdraw(w.jobID); err != nil {
			t.Fatal(err)
		}
		wantError(t, w.run(w.job, "tcp", to), "EPERM")
	}
}

// A set of captures replaces the one before.
func TestCaptureReplaces(t *testing.T) {
	w := newWorld(t)
	one := Capture{Addr: netip.MustParseAddr(target4), Port: capturedPort, Action: Redirect}
	two := Capture{Addr: netip.MustParseAddr(target4), Port: otherPort, Action: Redirect}
	toOne, toTwo := at(target4, capturedPort), at(target4, otherPort)
	for _, step := range []struct {
		set      []Capture
		one, two string
	}{
		{nil, "REAL", "REAL"},
		{[]Capture{one}, "PROXY", "REAL"},
		{[]Capture{one, two}, "PROXY", "PROXY"},
		{[]Capture{two}, "REAL", "PROXY"},
		{[]Capture{{Port: capturedPort, Action: Redirect}}, "PROXY", "REAL"},
		{nil, "REAL", "REAL"},
	} {
		w.capture(step.set...)
		wantSaid(t, w.run(w.job, "tcp", toOne), step.one)
		wantSaid(t, w.run(w.job, "tcp", toTwo), step.two)
	}
	w.capture(one)
	for _, bad := range []Capture{
		{},
		{Action: Redirect},
		{Port: 1},
		{Port: 1, Action: 9},
		{Port: listenerPort, Action: Redirect},
		{Addr: netip.MustParseAddr("::"), Port: 1, Action: Redirect},
		{Addr: netip.MustParseAddr("0.0.0.0"), Port: 1, Action: Deny},
		{Addr: netip.MustParseAddr("::ffff:0.0.0.0"), Port: 1, Action: Deny},
	} {
		if err := w.i.Capture([]Capture{two, bad}); !errors.Is(err, ErrCapture) {
			t.Errorf("capture %+v: %v, want ErrCapture", bad, err)
		}
	}
	if err := w.i.Capture([]Capture{one, one}); !errors.Is(err, ErrCapture) {
		t.Errorf("captured twice: %v, want ErrCapture", err)
	}
	wantSaid(t, w.run(w.job, "tcp", toOne), "PROXY")
	wantSaid(t, w.run(w.job, "tcp", toTwo), "REAL")
}

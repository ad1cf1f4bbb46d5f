package intercept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/bpf"
)

func inspect(t *testing.T, w *world) (AncestorState, PinState) {
	t.Helper()
	a, err := InspectAncestor(w.options.Ancestor)
	if err != nil {
		t.Fatal(err)
	}
	pins, err := InspectPins(w.options.PinDir, a)
	if err != nil {
		t.Fatal(err)
	}
	return a, pins
}

func wantWhole(t *testing.T, pins PinState) {
	t.Helper()
	if len(pins.Links) != len(hooks(&bpf.InterceptObjects{})) || len(pins.Missing)+len(pins.Astray)+len(pins.Foreign) > 0 ||
		pins.Port != listenerPort || pins.Mode != 0o700 {
		t.Errorf("pins %+v", pins)
	}
}

func TestInspectSeesWhatADaemonPinned(t *testing.T) {
	w := newWorld(t)
	a, pins := inspect(t, w)
	if !a.Exists() || a.Path != w.options.Ancestor || a.Nearest != a.Path || a.Depth != 2 {
		t.Errorf("ancestor %+v", a)
	}
	wantWhole(t, pins)
	others, err := OtherPrograms(a, w.options.PinDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range others {
		if strings.HasPrefix(o.Cgroup, filepath.Dir(a.Path)) {
			t.Errorf("%+v is ours", o)
		}
	}

	w.stop()
	_, pins = inspect(t, w)
	wantWhole(t, pins)

	t.Run("other ancestor", func(t *testing.T) {
		other, err := InspectAncestor(w.outside)
		if err != nil {
			t.Fatal(err)
		}
		pins, err := InspectPins(w.options.PinDir, other)
		if err != nil || len(pins.Astray) != len(pins.Links) || len(pins.Links) == 0 {
			t.Errorf("%+v, %v", pins, err)
		}
	})
	t.Run("other build", func(t *testing.T) {
		left := filepath.Join(w.options.PinDir, "v0")
		if err := os.Mkdir(left, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(left)
		if _, pins := inspect(t, w); !slices.Equal(pins.Foreign, []string{left}) {
			t.Errorf("foreign %q", pins.Foreign)
		}
	})
	t.Run("other layout", func(t *testing.T) {
		at := filepath.Join(pins.Dir, "maps", "config")
		kept, err := ebpf.LoadPinnedMap(at, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		other, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		repin(t, at, kept, other)
		defer repin(t, at, other, kept)
		if _, pins := inspect(t, w); !slices.Equal(pins.Foreign, []string{at}) {
			t.Errorf("foreign %q", pins.Foreign)
		}
	})
	t.Run("link gone", func(t *testing.T) {
		if err := os.Remove(filepath.Join(pins.Dir, "links", "connect4")); err != nil {
			t.Fatal(err)
		}
		if _, pins := inspect(t, w); !slices.Equal(pins.Missing, []string{"connect4"}) {
			t.Errorf("missing %q", pins.Missing)
		}
		w.start()
		_, pins := inspect(t, w)
		wantWhole(t, pins)
	})
}

func repin(t *testing.T, at string, from, to *ebpf.Map) {
	t.Helper()
	if err := from.Unpin(); err != nil {
		t.Fatal(err)
	}
	if err := to.Pin(at); err != nil {
		t.Fatal(err)
	}
}

func TestInspectMakesNothing(t *testing.T) {
	root, err := CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("chaperone-test-%d-none/below", os.Getpid())
	a, err := InspectAncestor(name)
	if err != nil || a.Exists() || a.Nearest != root || a.Path != filepath.Join(root, name) || a.Depth != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	dir := filepath.Join(t.TempDir(), "pins")
	if _, err := InspectPins(dir, a); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pins: %v", err)
	}
	for _, path := range []string{dir, filepath.Join(root, filepath.Dir(name))} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if a, err := InspectAncestor("../outside"); !errors.Is(err, ErrCgroup) {
		t.Errorf("outside of the hierarchy: %+v, %v", a, err)
	}
}

func TestTryLoadAttachesNothing(t *testing.T) {
	names, err := TryLoad()
	if err != nil || !slices.Contains(names, "connect4") {
		t.Errorf("%q, %v", names, err)
	}
}

// What is said to refuse ours is what the kernel refuses them beside.
func TestOtherPrograms(t *testing.T) {
	root, err := findCgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "somebodys", Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for name, test := range map[string]struct {
		above   bool
		flags   uint32
		sharing Sharing
		refuses bool
	}{
		"shared":            {false, unix.BPF_F_ALLOW_MULTI, Shared, false},
		"overridable":       {false, unix.BPF_F_ALLOW_OVERRIDE, Overridable, true},
		"exclusive":         {false, 0, Exclusive, true},
		"shared above":      {true, unix.BPF_F_ALLOW_MULTI, Shared, false},
		"overridable above": {true, unix.BPF_F_ALLOW_OVERRIDE, Overridable, false},
		"exclusive above":   {true, 0, Exclusive, true},
	} {
		t.Run(name, func(t *testing.T) {
			base, err := os.MkdirTemp(string(root), fmt.Sprintf("chaperone-test-%d-", os.Getpid()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { removeCgroups(t, base) })
			ancestor := filepath.Join(base, "ancestor")
			if err := os.Mkdir(ancestor, 0o755); err != nil {
				t.Fatal(err)
			}
			at := ancestor
			if test.above {
				at = base
			}
			dir, err := os.Open(at)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			attach := link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: program, Attach: ebpf.AttachCGroupInetEgress, Flags: test.flags}
			if err := link.RawAttachProgram(attach); err != nil {
				t.Fatal(err)
			}
			a, err := InspectAncestor(ancestor)
			if err != nil {
				t.Fatal(err)
			}
			all, err := OtherPrograms(a, filepath.Join(t.TempDir(), "pins"))
			if err != nil {
				t.Fatal(err)
			}
			// The machine may have programs at its root.
			mine := slices.DeleteFunc(all, func(o OtherProgram) bool { return !strings.HasPrefix(o.Cgroup, base) })
			if len(mine) != 1 {
				t.Fatalf("%+v", mine)
			}
			got := mine[0]
			if got.Hook != "egress" || got.Cgroup != at || got.Name != "somebodys" || got.Sharing != test.sharing || got.Refuses != test.refuses {
				t.Errorf("%+v", got)
			}
			target, err := os.Open(ancestor)
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(target.Fd()), Program: program, Attach: ebpf.AttachCGroupInetEgress})
			if refused := errors.Is(err, unix.EPERM); refused != test.refuses || err != nil && !refused {
				t.Errorf("attaching beside it: %v", err)
			}
			if err == nil {
				l.Close()
			}
		})
	}
}

package intercept

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is not pinned any more is pinned again, so that a daemon that is killed later
// leaves refusal behind.
func TestKeepPinned(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, w *world){
		"the bpffs is unmounted": func(t *testing.T, w *world) {
			mount := filepath.Dir(w.options.PinDir)
			if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("bpf", mount, "bpf", 0, "mode=700"); err != nil {
				t.Fatal(err)
			}
		},
		"a link's pin is removed": func(t *testing.T, w *world) {
			if err := os.Remove(filepath.Join(w.i.pins.links(), "connect4")); err != nil {
				t.Fatal(err)
			}
		},
		"a map's pin is removed": func(t *testing.T, w *world) {
			if err := os.Remove(filepath.Join(w.i.pins.maps(), "captures")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.captureTarget()
			to := at(target4, capturedPort)
			if err := w.i.GuardUplink(1); err != nil { // lo, of the test's own namespace
				t.Fatal(err)
			}
			// Before Linux 6.6 a guard stays by itself.
			_, unguarded := os.Stat(guardEgress().pin(w.i.pins, 1))
			if err := w.i.unpinned(); err != nil {
				t.Fatalf("before anything was lost: %v", err)
			}
			lose(t, w)
			ctx, cancel := context.WithCancel(context.Background())
			var lost, failed error
			if err := w.i.KeepPinned(ctx, func(l, f error) { lost, failed = l, f; cancel() }); err != nil {
				t.Fatal(err)
			}
			if !errors.Is(lost, ErrUnpinned) || failed != nil {
				t.Fatalf("told %v, %v", lost, failed)
			}
			if err := w.i.unpinned(); err != nil {
				t.Errorf("after all was pinned again: %v", err)
			}
			if _, err := os.Stat(guardEgress().pin(w.i.pins, 1)); err != nil && unguarded == nil {
				t.Errorf("the guard of an interface: %v", err)
			}
			if _, err := Open(context.Background(), w.options); !errors.Is(err, ErrRunning) {
				t.Errorf("a second daemon: %v, want ErrRunning", err)
			}
			w.stop()
			wantError(t, w.run(w.job, "tcp", to), "ECONNREFUSED")
			w.start()
			wantSaid(t, w.run(w.job, "tcp", to), "PROXY "+to)
		})
	}
}

// Without a place to pin to, the daemon is told, and goes on.
func TestCannotKeepPinned(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	mount := filepath.Dir(w.options.PinDir)
	if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	lost, failed := w.i.unpinned(), w.i.repin()
	if !errors.Is(lost, ErrUnpinned) || !errors.Is(failed, ErrPins) {
		t.Errorf("told %v, %v", lost, failed)
	}
	to := at(target4, capturedPort)
	wantSaid(t, w.run(w.job, "tcp", to), "PROXY "+to)
	if err := unix.Mount("bpf", mount, "bpf", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	if err := w.i.repin(); err != nil {
		t.Errorf("with a bpffs mounted again: %v", err)
	}
}

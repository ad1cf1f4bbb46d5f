package cgroupwatch

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// event is one struct inotify_event as the kernel writes it.
func event(watch int32, mask uint32, name string, padding int) []byte {
	size := len(name) + padding
	b := make([]byte, unix.SizeofInotifyEvent, unix.SizeofInotifyEvent+size)
	binary.NativeEndian.PutUint32(b, uint32(watch))
	binary.NativeEndian.PutUint32(b[4:], mask)
	binary.NativeEndian.PutUint32(b[12:], uint32(size))
	return append(append(b, name...), make([]byte, padding)...)
}

func TestParse(t *testing.T) {
	b := event(1, unix.IN_CREATE|unix.IN_ISDIR, "x.service", 7)
	b = append(b, event(2, unix.IN_DELETE_SELF, "", 0)...)
	b = append(b, event(-1, unix.IN_Q_OVERFLOW, "", 0)...)
	got := parse(b)
	want := []notice{{watch: 1, name: "x.service"}, {watch: 2}, {watch: -1, overflow: true}}
	if len(got) != len(want) {
		t.Fatalf("read %+v, want %+v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("notice %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(event(1, unix.IN_CREATE, "x.service", 7))
	f.Add(event(-1, unix.IN_Q_OVERFLOW, "", 0)[:15])
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := parse(b); len(got) > len(b)/unix.SizeofInotifyEvent {
			t.Errorf("%d notices in %d bytes", len(got), len(b))
		}
	})
}

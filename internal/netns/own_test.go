package netns

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// own is the tests' namespace, which all of their threads are in but the first.
var own ID

// TestMain leaves the first thread in another namespace, as a goroutine does that
// enters one on it and is not unlocked from it: such a thread is thrown away, but for
// the first one, which goes on to be what /proc/self shows.
func TestMain(m *testing.M) {
	runtime.LockOSThread()
	var err error
	if own, err = idAt("/proc/self/ns/net"); err != nil {
		panic(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		panic(err)
	}
	code := make(chan int)
	go func() { code <- m.Run() }()
	os.Exit(<-code)
}

func TestOwnIsThatOfAllThreads(t *testing.T) {
	if id, err := Own(); err != nil || id != own {
		t.Errorf("own is %s, %v; want %s", id, err, own)
	}
}

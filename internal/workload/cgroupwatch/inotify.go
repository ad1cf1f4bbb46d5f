package cgroupwatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// notice says that something happened to a name in a watched folder.
type notice struct {
	watch    int32
	name     string
	overflow bool // notices were lost
}

// inotify is the kernel's notices of folders (inotify(7)). It is used without
// a library in between because of folders that are removed and made again: a
// watch is of an inode and known by its number, and libraries know it by the
// path, so that the end of the old one is taken for the end of the new one.
type inotify struct {
	file    *os.File
	fd      int
	batches chan []notice // closed at the end; then Err tells why
	stop    chan struct{}
	err     error
}

func openInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w; raise the sysctl fs.inotify.max_user_instances if it is EMFILE", err)
	}
	n := &inotify{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, batches: make(chan []notice), stop: make(chan struct{})}
	go n.read()
	return n, nil
}

// Add watches the folder. A folder that is watched already keeps its watch.
func (n *inotify) Add(path string) (int32, error) {
	watch, err := unix.InotifyAddWatch(n.fd, path, unix.IN_CREATE|unix.IN_DELETE|unix.IN_DELETE_SELF|unix.IN_ONLYDIR)
	if errors.Is(err, unix.ENOSPC) {
		return 0, fmt.Errorf("inotify: no more watches; raise the sysctl fs.inotify.max_user_watches: %w", err)
	}
	if err != nil {
		return 0, fmt.Errorf("inotify: %s: %w", path, err)
	}
	return int32(watch), nil
}

// Remove ends a watch. The kernel may have ended it with the folder.
func (n *inotify) Remove(watch int32) {
	_, _ = unix.InotifyRmWatch(n.fd, uint32(watch))
}

// Err is why batches was closed.
func (n *inotify) Err() error { return n.err }

// Close ends all watches and waits for the reading goroutine.
func (n *inotify) Close() {
	close(n.stop)
	n.file.Close()
	for range n.batches { // closed by the goroutine as its last act
	}
}

func (n *inotify) read() {
	defer close(n.batches)
	buf := make([]byte, 64<<10)
	for {
		size, err := n.file.Read(buf)
		if err != nil {
			n.err = fmt.Errorf("inotify: %w", err)
			return
		}
		select {
		case n.batches <- parse(buf[:size]):
		case <-n.stop:
			return
		}
	}
}

// parse reads struct inotify_event, one after the other.
func parse(b []byte) []notice {
	var notices []notice
	for len(b) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(b[4:])
		size := binary.NativeEndian.Uint32(b[12:])
		notice := notice{watch: int32(binary.NativeEndian.Uint32(b)), overflow: mask&unix.IN_Q_OVERFLOW != 0}
		b = b[unix.SizeofInotifyEvent:]
		if uint64(size) > uint64(len(b)) {
			break
		}
		name, _, _ := bytes.Cut(b[:size], []byte{0})
		notice.name = string(name)
		notices = append(notices, notice)
		b = b[size:]
	}
	return notices
}

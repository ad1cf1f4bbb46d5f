package resolver

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// watched is a file's content, read again when the file changed. It is looked at
// with each query, so a change holds from the next one on.
type watched[T any] struct {
	path  string
	limit int64
	parse func([]byte) T
	log   zerolog.Logger

	mu      sync.Mutex
	stamp   stamp
	settled bool // whether an equal stamp means an equal content
	value   T
	problem string // the last that was logged
}

// stamp tells one state of a file from another. The zero one is that of no file.
type stamp struct {
	device, inode    uint64
	size             int64
	modified, change syscall.Timespec
}

// tick is more than the time in which two writes of a file can get the same
// time stamp.
const tick = 50 * time.Millisecond

// get returns the content as it is now. A file that can't be read is
// as it was last.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	problem := ""
	if err := w.refreshLocked(); err != nil {
		problem = err.Error()
	}
	if problem != "" && problem != w.problem {
		w.log.Error().Str("path", w.path).Str("error", problem).Msg("can't read a file that names are resolved by; its last content is used")
	}
	w.problem = problem
	return w.value
}

func (w *watched[T]) refresh() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refreshLocked()
}

func (w *watched[T]) refreshLocked() error {
	var now stamp
	info, err := os.Stat(w.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		now = stampOf(info)
	}
	if w.settled && now == w.stamp {
		return nil
	}
	var content []byte
	if now != (stamp{}) {
		if content, now, err = w.read(); err != nil {
			return err
		}
	}
	w.value = w.parse(content)
	w.stamp = now
	w.settled = time.Since(time.Unix(now.change.Unix())) > tick
	return nil
}

// read returns the content and the stamp from before it was read.
func (w *watched[T]) read() ([]byte, stamp, error) {
	// Non-blocking: what has taken the file's place may be a pipe.
	f, err := os.OpenFile(w.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, stamp{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, stamp{}, fmt.Errorf("%s is no regular file", w.path)
	}
	content, err := io.ReadAll(io.LimitReader(f, w.limit+1))
	if err != nil {
		return nil, stamp{}, err
	}
	if int64(len(content)) > w.limit {
		return nil, stamp{}, fmt.Errorf("%s has more than %d bytes", w.path, w.limit)
	}
	return content, stampOf(info), nil
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode, s.modified, s.change = uint64(st.Dev), st.Ino, st.Mtim, st.Ctim
	}
	return s
}

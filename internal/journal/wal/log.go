package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Log is an open log. Its methods are safe for concurrent use.
type Log struct {
	opts Options
	dir  *os.File // locked
	torn int64    // bytes that Open cut

	mu       sync.Mutex // never held during an fsync
	flushed  sync.Cond  // of mu: a batch is done
	segs     []segment
	file     *os.File // of the last segment
	buf      []byte   // records that are not in the file yet
	written  LSN      // end of what is in the file
	end      LSN      // end of what was appended
	batch    *batch   // of those who wait for the next write; nil: nobody does
	older    []*os.File
	newFiles bool
	failed   error // once set, nothing is appended any more

	syncing sync.Mutex // held by whoever runs fsync
	synced  atomic.Uint64

	dirty   chan struct{} // something was appended since the last sync
	changed chan struct{} // something was written since the last read
	stop    chan struct{}
	stopped chan struct{}
}

// bufferLimit is how many bytes may wait for the next write.
const bufferLimit = 64 << 10

// batch is what one write is for. The first who needs it makes it; the others
// whose records are in it wait for its outcome.
type batch struct {
	first int // where in the buffer its records begin
	done  bool
	err   error
}

// Append adds a record and returns the position behind it. Callers at the same
// time share one write. With lazy the record may stay in memory until the next
// Append or Sync: at most SyncEvery, and lost if the process dies before that.
// A failed Append adds nothing.
func (l *Log) Append(payload []byte, lazy bool) (LSN, error) {
	if len(payload) == 0 || len(payload) > MaxRecord {
		return 0, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(payload), MaxRecord)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return 0, l.failed
	}
	if int64(l.end-l.segs[len(l.segs)-1].base) >= l.opts.SegmentBytes {
		if err := l.flush(); err != nil {
			return 0, err
		}
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	mine, held := l.batch, len(l.buf)
	l.buf = appendRecord(l.buf, l.end, LSN(l.synced.Load()), payload)
	l.end += LSN(len(l.buf) - held)
	end := l.end
	signal(l.dirty)
	switch {
	case mine == nil && lazy && len(l.buf) < bufferLimit:
		return end, nil
	case mine == nil:
		mine = &batch{first: held}
		l.batch = mine
		// Whoever can append right now shares the write.
		l.mu.Unlock()
		runtime.Gosched()
		l.mu.Lock()
	case len(l.buf) < bufferLimit:
		for !mine.done {
			l.flushed.Wait()
		}
	}
	if !mine.done {
		_ = l.flush() // its outcome is the batch's
	}
	if mine.err != nil {
		return 0, mine.err
	}
	return end, nil
}

// flush writes what waits, and tells those who wait. On failure the file is as
// it was before, and what nobody waits for stays in the buffer.
func (l *Log) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	err := l.failed
	if err == nil {
		err = l.write()
	}
	if b := l.batch; b != nil {
		if err != nil {
			l.buf = l.buf[:b.first]
			l.end = l.written + LSN(b.first)
		}
		b.done, b.err = true, err
		l.batch = nil
		l.flushed.Broadcast()
	}
	return err
}

// write moves the buffer to the file.
func (l *Log) write() error {
	if _, err := l.file.Write(l.buf); err != nil {
		at := segmentHeader + int64(l.written-l.segs[len(l.segs)-1].base)
		if undo := errors.Join(l.file.Truncate(at), seek(l.file, at)); undo != nil {
			l.failed = fmt.Errorf("journal: a failed write could not be undone, nothing more is accepted: %w", undo)
		}
		return fmt.Errorf("journal: %w", err)
	}
	l.written = l.end
	if cap(l.buf) > 4*bufferLimit {
		l.buf = nil
	}
	l.buf = l.buf[:0]
	signal(l.changed)
	return nil
}

// rotate begins a new segment file. The old one is synced and closed by the
// next Sync.
func (l *Log) rotate() error {
	path := filepath.Join(l.opts.Dir, segmentName(l.end))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if _, err := f.Write(appendSegmentHeader(nil, l.end)); err != nil {
		return fmt.Errorf("journal: %w", errors.Join(err, f.Close(), os.Remove(path)))
	}
	if l.file != nil {
		l.older = append(l.older, l.file)
	}
	l.file, l.newFiles = f, true
	l.segs = append(l.segs, segment{l.end, path})
	return nil
}

// Sync returns when everything appended so far is on the disk. Callers that
// wait at the same time share one fsync.
func (l *Log) Sync() error {
	l.mu.Lock()
	upTo := l.end
	l.mu.Unlock()
	return l.SyncTo(upTo)
}

// SyncTo is [Log.Sync] for what stands before a position that Append returned.
// A failed fsync is final: what the kernel then holds can't be known, so the
// log accepts nothing more.
func (l *Log) SyncTo(upTo LSN) error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if LSN(l.synced.Load()) >= upTo {
		return nil
	}
	l.mu.Lock()
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.failed
	}
	if err := l.flush(); err != nil {
		l.mu.Unlock()
		return err
	}
	files := append(l.older, l.file)
	newFiles, end := l.newFiles, l.end
	l.older, l.newFiles = nil, false
	l.mu.Unlock()

	var err error
	for i, f := range files {
		err = errors.Join(err, f.Sync())
		if i < len(files)-1 {
			err = errors.Join(err, f.Close())
		}
	}
	if newFiles {
		err = errors.Join(err, l.dir.Sync())
	}
	if err != nil {
		err = fmt.Errorf("journal: fsync failed, nothing more is accepted until the daemon is started again: %w", err)
		l.mu.Lock()
		l.failed = err
		l.mu.Unlock()
		return err
	}
	l.synced.Store(uint64(end))
	return nil
}

// Synced is the position up to which the log is on the disk.
func (l *Log) Synced() LSN { return LSN(l.synced.Load()) }

// syncLoop syncs SyncEvery after the first append that is not synced yet.
func (l *Log) syncLoop() {
	defer close(l.stopped)
	for {
		select {
		case <-l.stop:
			return
		case <-l.dirty:
		}
		timer := time.NewTimer(l.opts.SyncEvery)
		select {
		case <-l.stop:
			timer.Stop()
			return
		case <-timer.C:
			// The error is kept, or meets the next Append; a full disk is
			// tried again.
			if l.Sync() != nil {
				signal(l.dirty)
			}
		}
	}
}

// Trim removes the files that hold nothing behind a position.
func (l *Log) Trim(upTo LSN) error {
	l.mu.Lock()
	n := 0
	for n+1 < len(l.segs) && l.segs[n+1].base <= upTo {
		n++
	}
	gone := l.segs[:n:n]
	l.segs = l.segs[n:]
	l.mu.Unlock()
	for _, s := range gone {
		if err := os.Remove(s.path); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		// One by one, lest a power failure brings back a file and not the
		// one behind it.
		if err := l.dir.Sync(); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

// Changed is signalled after records have become readable. One signal may
// stand for many.
func (l *Log) Changed() <-chan struct{} { return l.changed }

// Bounds returns the first position that is kept and the one behind the last
// record.
func (l *Log) Bounds() (first, end LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segs[0].base, l.end
}

// Torn is how many bytes of an unfinished end Open cut off.
func (l *Log) Torn() int64 { return l.torn }

// Close syncs and closes the log. Readers fail from then on.
func (l *Log) Close() error {
	l.mu.Lock()
	if errors.Is(l.failed, ErrClosed) {
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	close(l.stop)
	<-l.stopped
	err := l.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = ErrClosed
	for _, f := range l.older {
		err = errors.Join(err, f.Close())
	}
	return errors.Join(err, l.file.Close(), l.dir.Close())
}

func seek(f *os.File, at int64) error {
	_, err := f.Seek(at, 0)
	return err
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

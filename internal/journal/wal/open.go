package wal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Options of [Open].
type Options struct {
	Dir          string        // made when missing, mode 0700
	SegmentBytes int64         // size from which on a new file is begun; 0: 16 MiB
	SyncEvery    time.Duration // longest time that a record is not synced; 0: 100 ms
	// Visit, if set, is given every record that Open finds, in order: its
	// position, that behind it, and its payload, valid during the call. Its
	// error ends Open.
	Visit func(at, next LSN, payload []byte) error
}

// Open opens or makes a log, checks all of it, and cuts a torn end. The
// returned Log runs one goroutine until Close.
func Open(o Options) (*Log, error) {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 16 << 20
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = 100 * time.Millisecond
	}
	if o.Visit == nil {
		o.Visit = func(LSN, LSN, []byte) error { return nil }
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal folder: %w", err)
	}
	dir, err := os.Open(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("journal folder: %w", err)
	}
	l := &Log{opts: o, dir: dir, dirty: make(chan struct{}, 1), changed: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
	l.flushed.L = &l.mu
	if err := l.recover(); err != nil {
		if l.file != nil {
			err = errors.Join(err, l.file.Close())
		}
		return nil, errors.Join(err, dir.Close())
	}
	go l.syncLoop()
	return l, nil
}

// recover locks the folder, checks every segment and opens the last one.
func (l *Log) recover() error {
	if err := unix.Flock(int(l.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%w: %s", ErrLocked, l.opts.Dir)
		}
		return fmt.Errorf("lock %s: %w", l.opts.Dir, err)
	}
	segs, err := listSegments(l.opts.Dir)
	if err != nil {
		return fmt.Errorf("journal folder: %w", err)
	}
	for i, s := range segs {
		if i > 0 && s.base != l.end {
			return fmt.Errorf("%w: %s should go on at position %d: a file between it and %s is missing or cut",
				ErrCorrupt, s.path, l.end, filepath.Base(segs[i-1].path))
		}
		l.end = s.base
		if err := l.checkSegment(s, i == len(segs)-1); err != nil {
			return err
		}
	}
	l.segs = segs
	if n := len(segs); n > 0 {
		last := segs[n-1]
		if l.end > last.base || l.headerGood(last) {
			l.file, err = os.OpenFile(last.path, os.O_RDWR, 0)
			if err != nil {
				return fmt.Errorf("journal: %w", err)
			}
			if _, err := l.file.Seek(segmentHeader+int64(l.end-last.base), 0); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
		} else {
			l.segs = segs[:n-1]
		}
	}
	l.written = l.end
	if l.file == nil {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := l.dir.Sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	l.newFiles = false
	l.synced.Store(uint64(l.end))
	return nil
}

func (l *Log) headerGood(s segment) bool {
	info, err := os.Stat(s.path)
	return err == nil && info.Size() >= segmentHeader
}

// checkSegment visits the records of one segment and moves l.end behind them.
// The end of the last segment may be torn; it is cut off. The file is read
// whole: it is as long as SegmentBytes and one record.
func (l *Log) checkSegment(s segment, last bool) error {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if len(data) < segmentHeader || !bytes.Equal(data[:segmentHeader], appendSegmentHeader(nil, s.base)) {
		body := data[min(len(data), segmentHeader):]
		if _, found := lastSynced(body, s.base); !last || found {
			return fmt.Errorf("%w: %s has no valid header; restore the file, or move the folder away to begin anew (what it holds is then lost)", ErrCorrupt, s.path)
		}
		l.torn += int64(len(data))
		if err := os.Truncate(s.path, 0); err != nil {
			return fmt.Errorf("journal: cut torn file: %w", err)
		}
		return nil
	}
	data = data[segmentHeader:]
	for off := 0; off < len(data); {
		payload, _, ok := parseRecord(data[off:], l.end)
		if !ok {
			return l.cut(s, data, off, last)
		}
		next := l.end + recordHeader + LSN(len(payload))
		if err := l.opts.Visit(l.end, next, payload); err != nil {
			return err
		}
		l.end = next
		off += recordHeader + len(payload)
	}
	return nil
}

// cut removes the end of the last segment from a bad record on, unless that
// record had been synced.
func (l *Log) cut(s segment, data []byte, off int, last bool) error {
	mark, found := lastSynced(data[off:], l.end)
	if !last || found && mark > l.end {
		return fmt.Errorf("%w: %s, byte %d: the record there is not what was written; restore the file, or move the folder away to begin anew (what it holds is then lost)",
			ErrCorrupt, s.path, segmentHeader+off)
	}
	l.torn += int64(len(data) - off)
	if err := os.Truncate(s.path, int64(segmentHeader+off)); err != nil {
		return fmt.Errorf("journal: cut torn end: %w", err)
	}
	return nil
}

// lastSynced looks for whole records anywhere in data, whose first byte stands
// at a position, and returns the highest synced position that they tell.
func lastSynced(data []byte, at LSN) (mark LSN, found bool) {
	for off := 0; off+recordHeader < len(data); {
		payload, synced, ok := parseRecord(data[off:], at+LSN(off))
		if !ok {
			off++
			continue
		}
		mark, found = max(mark, synced), true
		off += recordHeader + len(payload)
	}
	return mark, found
}

package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Reader reads records in order from a position on, also those that are
// appended meanwhile. It is for one goroutine; several readers may read a log.
type Reader struct {
	log  *Log
	next LSN
	file *os.File
	seg  segment
	buf  []byte // bytes of the file from next on
	mem  []byte
}

// NewReader starts at a position that Visit, Append or a Reader gave. Close it
// when done.
func (l *Log) NewReader(at LSN) *Reader { return &Reader{log: l, next: at} }

// Next returns the next record and the position behind it. The payload is valid
// until the next call. It returns io.EOF when nothing more is written yet, and
// may be called again; see [Log.Changed].
func (r *Reader) Next() (payload []byte, at, next LSN, err error) {
	for {
		payload, _, ok := parseRecord(r.buf, r.next)
		if ok {
			size := recordHeader + len(payload)
			at = r.next
			r.next += LSN(size)
			r.buf = r.buf[size:]
			return payload, at, r.next, nil
		}
		if err := r.fill(); err != nil {
			return nil, r.next, r.next, err
		}
	}
}

// fill reads more of the log into the buffer. It fails with io.EOF when there
// is no more, and with ErrCorrupt when there is and still no record.
func (r *Reader) fill() error {
	l := r.log
	l.mu.Lock()
	end, failed := l.written, l.failed
	seg, segEnd := l.locate(r.next)
	l.mu.Unlock()
	switch {
	case errors.Is(failed, ErrClosed):
		return failed
	case r.next >= end:
		return io.EOF
	case seg.path == "":
		return fmt.Errorf("%w: position %d is not kept any more", ErrCorrupt, r.next)
	}
	if r.seg != seg {
		if err := r.open(seg); err != nil {
			return err
		}
	}
	avail := int64(min(segEnd, end) - r.next)
	want := min(int64(256<<10), avail)
	if len(r.buf) >= recordHeader {
		want = min(avail, max(want, recordHeader+int64(binary.LittleEndian.Uint32(r.buf[4:]))))
	}
	if want <= int64(len(r.buf)) {
		return fmt.Errorf("%w: %s, byte %d: the record there is not what was written",
			ErrCorrupt, seg.path, segmentHeader+int64(r.next-seg.base))
	}
	if int64(cap(r.mem)) < want || cap(r.mem) > 1<<20 && want <= 256<<10 {
		r.mem = make([]byte, want)
	}
	r.buf = r.mem[:want]
	if _, err := r.file.ReadAt(r.buf, segmentHeader+int64(r.next-seg.base)); err != nil {
		r.buf = nil
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func (r *Reader) open(s segment) error {
	if err := r.Close(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	r.file, r.seg, r.buf = f, s, nil
	return nil
}

// Close releases the reader's file.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file, r.seg, r.buf = nil, segment{}, nil
	return f.Close()
}

// locate returns the segment that holds a position, and where it ends.
func (l *Log) locate(at LSN) (segment, LSN) {
	for i := len(l.segs) - 1; i >= 0; i-- {
		if at < l.segs[i].base {
			continue
		}
		if i+1 < len(l.segs) {
			return l.segs[i], l.segs[i+1].base
		}
		return l.segs[i], l.end
	}
	return segment{}, 0
}

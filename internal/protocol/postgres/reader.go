package postgres

import (
	"encoding/binary"
	"errors"
	"io"
)

// Sizes of a direction's buffer. It starts at restBuffer, which is enough for
// most sessions, and doubles up to busyBuffer when reads fill it. One big
// message makes it grow beyond that, as its bytes arrive, and it shrinks again
// after.
const (
	restBuffer = 16 << 10
	busyBuffer = 64 << 10
)

// errMessageLength is a length field that no message can have.
var errMessageLength = errors.New("a message's length field is out of range")

// reader cuts a stream of messages into frames, in place. A frame is valid
// until the next call of a method of the reader that reads.
type reader struct {
	src io.Reader
	// beforeRead is called before each read from src and before the buffer
	// moves: whoever holds frames of the buffer must let go of them.
	beforeRead func() error
	buf        []byte
	r, w       int // what was read and not yet taken is buf[r:w]
	total      uint64
}

func newReader(src io.Reader, beforeRead func() error) *reader {
	return &reader{src: src, beforeRead: beforeRead, buf: make([]byte, restBuffer)}
}

// header looks at the next message's type and whole size, header included,
// without taking it. io.EOF means the stream ended between messages.
func (r *reader) header() (typ byte, size int, err error) {
	if r.w-r.r < headerSize {
		if err := r.fill(headerSize); err != nil {
			return 0, 0, err
		}
	}
	n := binary.BigEndian.Uint32(r.buf[r.r+1:])
	if n < 4 || n > 1<<31-2 {
		return r.buf[r.r], 0, errMessageLength
	}
	return r.buf[r.r], int(n) + 1, nil
}

// frame takes the next message, of a size that header told, as one slice.
func (r *reader) frame(size int) ([]byte, error) {
	if r.w-r.r < size {
		if err := r.fill(size); err != nil {
			return nil, err
		}
	}
	f := r.buf[r.r : r.r+size]
	r.r += size
	return f, nil
}

// chunk takes as much as there is of the next n bytes, at least one.
func (r *reader) chunk(n int) ([]byte, error) {
	if r.r == r.w {
		if err := r.fill(1); err != nil {
			return nil, err
		}
	}
	return r.frame(min(n, r.w-r.r))
}

// discard takes the next n bytes and drops them.
func (r *reader) discard(n int) error {
	for n > 0 {
		piece, err := r.chunk(n)
		if err != nil {
			return err
		}
		n -= len(piece)
	}
	return nil
}

// fits reports whether a frame of that size can be had without the buffer
// growing for it alone.
func (r *reader) fits(size int) bool { return size <= busyBuffer || r.w-r.r >= size }

// fill reads until n bytes are there.
func (r *reader) fill(n int) error {
	if err := r.beforeRead(); err != nil {
		return err
	}
	r.makeRoom()
	for r.w-r.r < n {
		if r.w == len(r.buf) {
			r.grow(n)
		}
		got, err := r.src.Read(r.buf[r.w:])
		r.w += got
		r.total += uint64(got)
		if err != nil && r.w-r.r < n {
			if err == io.EOF && r.w > r.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// makeRoom moves what is left to the front, of a larger buffer when the last
// read filled this one, and of a small one after a big message.
func (r *reader) makeRoom() {
	left := r.buf[r.r:r.w]
	switch {
	case len(r.buf) > busyBuffer && len(left) < restBuffer:
		r.buf = make([]byte, restBuffer)
	case r.w == len(r.buf) && len(r.buf) < busyBuffer:
		r.buf = make([]byte, 2*len(r.buf))
	}
	copy(r.buf, left)
	r.r, r.w = 0, len(left)
}

// grow doubles the buffer, up to what n bytes need. So a length field alone
// never makes memory grow: its bytes must come first.
func (r *reader) grow(n int) {
	size := min(2*len(r.buf), max(n, restBuffer))
	buf := make([]byte, max(size, len(r.buf)+1))
	r.w = copy(buf, r.buf[r.r:r.w])
	r.r = 0
	r.buf = buf
}

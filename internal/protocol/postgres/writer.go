package postgres

import (
	"io"
	"sync"
)

// flushAt is how many bytes may wait to be written.
const flushAt = 64 << 10

// writer gathers frames for one direction so that many leave in one write.
// Frames that go on unchanged stay where they are, in the reader's buffer, as
// long as they follow each other there.
type writer struct {
	// mu is held while messages are written, from the first byte of one to the last
	// of one, so that inject comes between two.
	mu  sync.Mutex
	dst io.Writer
	run []byte // waits in the reader's buffer
	out []byte // waits here, never together with run
	// middle is true while a part of a message was written, or a write
	// failed: nothing can be said to the other side any more.
	middle bool
	failed bool // a write failed
	total  uint64
}

// pass queues a frame unchanged. The frame must stay valid until the flush.
func (w *writer) pass(frame []byte) error {
	switch {
	case len(w.out) > 0:
		if len(w.out)+len(frame) <= flushAt {
			w.out = append(w.out, frame...)
			return nil
		}
		if err := w.flush(); err != nil {
			return err
		}
		w.run = frame
	case len(w.run) == 0:
		w.run = frame
	case cap(w.run)-len(w.run) == cap(frame):
		// Both end with the reader's buffer, so frame begins where run ends.
		w.run = w.run[:len(w.run)+len(frame)]
	default:
		if err := w.flush(); err != nil {
			return err
		}
		w.run = frame
	}
	return nil
}

// room returns the buffer to append made messages to; give it back to made.
func (w *writer) room() ([]byte, error) {
	if len(w.run) > flushAt {
		return w.out, w.flush()
	}
	if len(w.run) > 0 {
		w.out = append(w.out, w.run...)
		w.run = nil
	}
	return w.out, nil
}

// made queues what was appended to the buffer that room gave.
func (w *writer) made(out []byte) error {
	w.out = out
	if len(w.out) > flushAt {
		return w.flush()
	}
	return nil
}

// flush writes what waits, in one write.
func (w *writer) flush() error {
	waiting := w.run
	if len(waiting) == 0 {
		waiting = w.out
	}
	if len(waiting) == 0 {
		return nil
	}
	w.mu.Lock()
	err := w.write(waiting)
	w.mu.Unlock()
	w.run = nil
	if w.out = w.out[:0]; cap(w.out) > 2*flushAt {
		w.out = nil // one wide row doesn't hold memory for ever
	}
	return err
}

func (w *writer) write(p []byte) error {
	n, err := w.dst.Write(p)
	w.total += uint64(n)
	if err != nil {
		w.middle, w.failed = true, true
	}
	return err
}

// inject writes messages at once, ahead of what waits. Unlike all other methods it
// may be called by a goroutine that the writer isn't of.
func (w *writer) inject(messages []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.middle {
		return io.ErrClosedPipe // a write has failed
	}
	return w.write(messages)
}

// stream sends the next message of r, of the given size, in pieces.
func (w *writer) stream(r *reader, size int) error {
	if err := w.flush(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.middle = true
	for size > 0 {
		piece, err := r.chunk(size)
		if err != nil {
			return err
		}
		size -= len(piece)
		if err := w.write(piece); err != nil {
			return err
		}
	}
	w.middle = false
	return nil
}

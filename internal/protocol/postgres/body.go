package postgres

import (
	"bytes"
	"encoding/binary"
)

// body reads a message's body from the front. After a read past the end bad is
// set, and everything read from then on is zero.
type body struct {
	rest []byte
	bad  bool
}

func (b *body) take(n int) []byte {
	if n < 0 || n > len(b.rest) {
		b.bad, b.rest = true, nil
		return nil
	}
	v := b.rest[:n:n]
	b.rest = b.rest[n:]
	return v
}

func (b *body) byte() byte {
	if v := b.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (b *body) uint16() uint16 {
	if v := b.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (b *body) uint32() uint32 {
	if v := b.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// cstring is the bytes up to the next zero, which is consumed.
func (b *body) cstring() []byte {
	i := bytes.IndexByte(b.rest, 0)
	if i < 0 {
		b.bad, b.rest = true, nil
		return nil
	}
	v := b.rest[:i:i]
	b.rest = b.rest[i+1:]
	return v
}

// whole reports whether the body was read to its end and not beyond.
func (b *body) whole() bool { return !b.bad && len(b.rest) == 0 }

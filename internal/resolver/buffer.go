package resolver

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/miekg/dns"
)

const (
	// maxDatagram bounds a query, and the answer over UDP that is asked for. It
	// is the largest size that name servers offer; a query has no use for it.
	maxDatagram = 4096
	maxMessage  = dns.MaxMsgSize
	headerSize  = 12
)

// buffer holds one message, behind room for the length that goes before it on TCP.
type buffer struct {
	bytes []byte
	n     int
}

// space is what a message may be read into.
func (b *buffer) space() []byte { return b.bytes[2:] }

func (b *buffer) message() []byte { return b.bytes[2 : 2+b.n] }

// framed is the message as it goes over TCP.
func (b *buffer) framed() []byte {
	binary.BigEndian.PutUint16(b.bytes, uint16(b.n))
	return b.bytes[:2+b.n]
}

// buffers keeps them for reuse: those for datagrams, and those for any message.
type buffers struct {
	small, large sync.Pool
}

// get returns a buffer with space for n bytes; n is at most maxMessage.
func (p *buffers) get(n int) *buffer {
	// One byte more than a datagram may have tells a longer one from one that fits.
	pool, size := &p.small, maxDatagram+1
	if n > size {
		pool, size = &p.large, maxMessage
	}
	if b, ok := pool.Get().(*buffer); ok {
		b.n = 0
		return b
	}
	return &buffer{bytes: make([]byte, 2+size)}
}

// put takes back a buffer that nobody uses any more; nil is none.
func (p *buffers) put(b *buffer) {
	switch {
	case b == nil:
	case len(b.bytes) > 2+maxDatagram+1:
		p.large.Put(b)
	default:
		p.small.Put(b)
	}
}

// pack returns the message in a buffer.
func (p *buffers) pack(m *dns.Msg) (*buffer, error) {
	b := p.get(min(m.Len(), maxMessage))
	packed, err := m.PackBuffer(b.space())
	if err == nil && len(packed) > len(b.space()) {
		err = fmt.Errorf("%d bytes are more than a message has", len(packed))
	}
	if err != nil {
		p.put(b)
		return nil, err
	}
	b.n = copy(b.space(), packed) // onto itself, unless PackBuffer wanted more room
	return b, nil
}

package recording

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
)

// Hash is a SHA-256 in the chain. The zero Hash is the one before the first
// block.
type Hash [sha256.Size]byte

// String returns the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// KeyID names a public key: the first bytes of its SHA-256.
type KeyID [8]byte

// String returns the id in hex.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// IDOf returns the id of a public key.
func IDOf(key ed25519.PublicKey) KeyID {
	sum := sha256.Sum256(key)
	return KeyID(sum[:len(KeyID{})])
}

// Block is one link of a recording's chain.
type Block struct {
	Session  string
	Index    uint64 // counts from 0
	Previous Hash
	Count    uint32 // frames
	Raw      []byte // bytes of the frames, see [AppendFrame]
	Last     bool
	Hash     Hash // as carried; [Block.Sum] says what it must be

	// Of the last block only.
	Key       KeyID
	Signature []byte
}

// ValidSession says whether id may name a session: 1 to [MaxSession] letters,
// digits, "-" and "_". So it can be a file's name and a NATS subject's token.
func ValidSession(id string) bool {
	if id == "" || len(id) > MaxSession {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

const (
	magic       = "CHRB"
	version     = 1
	flagLast    = 1
	domainBlock = "chaperone recording block v1\x00"
	domainRoot  = "chaperone recording root v1\x00"
)

// Build makes a block of count frames whose bytes are raw, which it keeps.
// With a key it is the last of its recording, and is signed.
func Build(session string, index uint64, previous Hash, count uint32, raw []byte, key ed25519.PrivateKey) (*Block, error) {
	if !ValidSession(session) {
		return nil, fmt.Errorf("%w: session id %q", ErrFormat, session)
	}
	if len(raw) > MaxRaw {
		return nil, fmt.Errorf("%w: block of %d bytes, the limit is %d", ErrFormat, len(raw), MaxRaw)
	}
	b := &Block{Session: session, Index: index, Previous: previous, Count: count, Raw: raw, Last: key != nil}
	b.Hash = b.Sum()
	if key != nil {
		b.Key = IDOf(key.Public().(ed25519.PublicKey))
		b.Signature = ed25519.Sign(key, b.rootMessage())
	}
	return b, nil
}

// Sum computes the hash that the block must carry.
func (b *Block) Sum() Hash {
	head := make([]byte, 0, 256)
	head = append(head, domainBlock...)
	head = append(head, b.flags(), byte(len(b.Session)))
	head = append(head, b.Session...)
	head = binary.BigEndian.AppendUint64(head, b.Index)
	head = append(head, b.Previous[:]...)
	head = binary.BigEndian.AppendUint32(head, b.Count)
	h := sha256.New()
	h.Write(head)
	h.Write(b.Raw)
	return Hash(h.Sum(head[:0]))
}

func (b *Block) flags() byte {
	if b.Last {
		return flagLast
	}
	return 0
}

// rootMessage is what the signature of a last block is over.
func (b *Block) rootMessage() []byte {
	m := append(make([]byte, 0, 256), domainRoot...)
	m = append(append(m, byte(len(b.Session))), b.Session...)
	m = binary.BigEndian.AppendUint64(m, b.Index+1)
	return append(m, b.Hash[:]...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the bytes of the block. They are the same for the same block
// only as long as the same version of the compressor is used; the hash doesn't
// depend on it.
func (c *Codec) Encode(b *Block) []byte {
	out := make([]byte, 0, len(b.Raw)/2+256)
	out = append(append(out, magic...), version, b.flags(), byte(len(b.Session)))
	out = append(out, b.Session...)
	out = binary.BigEndian.AppendUint64(out, b.Index)
	out = append(append(out, b.Previous[:]...), b.Hash[:]...)
	out = binary.BigEndian.AppendUint32(out, b.Count)
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.Raw)))
	at := len(out)
	out = append(out, 0, 0, 0, 0)
	out = c.enc.EncodeAll(b.Raw, out)
	binary.BigEndian.PutUint32(out[at:], uint32(len(out)-at-4))
	if b.Last {
		out = append(append(out, b.Key[:]...), b.Signature...)
	}
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// Decode reads one block that fills data. It checks form, limits and checksum,
// not the hash, the chain or the signature: that is the [Verifier]'s work. The
// block doesn't alias data. Errors wrap [ErrFormat].
func (c *Codec) Decode(data []byte) (*Block, error) {
	if len(data) > MaxEncoded {
		return nil, fmt.Errorf("%w: block of %d bytes, the limit is %d", ErrFormat, len(data), MaxEncoded)
	}
	r := cursor{rest: data}
	if string(r.next(len(magic))) != magic {
		return nil, fmt.Errorf("%w: no block starts here", ErrFormat)
	}
	if v := r.u8(); v != version && !r.short {
		return nil, fmt.Errorf("%w: block of version %d, this program reads %d", ErrFormat, v, version)
	}
	b := new(Block)
	flags := r.u8()
	if flags&^flagLast != 0 {
		return nil, fmt.Errorf("%w: unknown flags %#x", ErrFormat, flags)
	}
	b.Last = flags&flagLast != 0
	b.Session = string(r.next(int(r.u8())))
	b.Index = r.u64()
	copy(b.Previous[:], r.next(len(b.Previous)))
	copy(b.Hash[:], r.next(len(b.Hash)))
	b.Count = r.u32()
	size := r.u32()
	packed := r.next(int(r.u32()))
	if b.Last {
		copy(b.Key[:], r.next(len(b.Key)))
		b.Signature = append([]byte(nil), r.next(ed25519.SignatureSize)...)
	}
	summed := len(data) - len(r.rest)
	sum := r.u32()
	switch {
	case r.short:
		return nil, fmt.Errorf("%w: block is cut", ErrFormat)
	case len(r.rest) > 0:
		return nil, fmt.Errorf("%w: %d bytes behind the block", ErrFormat, len(r.rest))
	case sum != crc32.Checksum(data[:summed], castagnoli):
		return nil, fmt.Errorf("%w: checksum of block %d is wrong: its bytes were damaged", ErrFormat, b.Index)
	case !ValidSession(b.Session):
		return nil, fmt.Errorf("%w: session id %q", ErrFormat, b.Session)
	case size > MaxRaw:
		return nil, fmt.Errorf("%w: block %d claims %d bytes, the limit is %d", ErrFormat, b.Index, size, MaxRaw)
	}
	var err error
	if b.Raw, err = c.unpack(packed, int(size)); err != nil {
		return nil, fmt.Errorf("%w: block %d: %w", ErrFormat, b.Index, err)
	}
	return b, nil
}

// cursor takes bytes off a buffer. After one read too many every read yields
// zeros, and short is set.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) next(n int) []byte {
	if n < 0 || n > len(c.rest) {
		c.rest, c.short = nil, true
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) u8() byte {
	if b := c.next(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.next(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.next(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

package recording

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Limits of the format. A writer keeps to them, a reader refuses what exceeds
// them before it has allocated anything of that size.
const (
	MaxPayload = 2 << 20 // bytes of one frame's payload
	MaxRaw     = 6 << 20 // bytes of one block's frames before compression
	MaxEncoded = 7 << 20 // bytes of one block as it is stored
	MaxSession = 128     // bytes of a session's id
)

// ErrFormat is wrapped by every error that says that bytes are no block or
// frame of this format, or exceed its limits.
var ErrFormat = errors.New("not a recording")

// Kind says what a frame tells. The payload of each is the JSON object of the
// named type of package event, unless another form is given.
type Kind uint8

// The kinds. Numbers are part of the format and are never used again.
const (
	KindSessionStarted Kind = 1 // event.SessionStarted
	KindCommand        Kind = 2 // event.Command, without its outcome, before it goes upstream
	KindOutcome        Kind = 3 // the outcome's fields of event.Command
	KindMaskApplied    Kind = 4 // event.MaskApplied
	KindSessionEnded   Kind = 5 // event.SessionEnded, without root hash
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindSessionStarted:
		return "session.started"
	case KindCommand:
		return "command"
	case KindOutcome:
		return "outcome"
	case KindMaskApplied:
		return "mask.applied"
	case KindSessionEnded:
		return "session.ended"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Direction says which way the bytes of a frame went, for the kinds that have
// one.
type Direction uint8

// The directions.
const (
	DirectionNone Direction = 0
	ToTarget      Direction = 1
	ToClient      Direction = 2
)

// Frame is one thing that happened in a session.
type Frame struct {
	Seq       uint64 // counts from 1 through the whole recording
	Time      int64  // Unix nanoseconds, by the node's clock
	Kind      Kind
	Direction Direction
	Payload   []byte
}

// At returns the frame's time.
func (f Frame) At() time.Time { return time.Unix(0, f.Time).UTC() }

// AppendFrame appends the bytes of a frame, as they stand in a block before
// compression. It fails when the payload exceeds [MaxPayload].
func AppendFrame(raw []byte, f Frame) ([]byte, error) {
	if len(f.Payload) > MaxPayload {
		return raw, fmt.Errorf("%w: frame %d holds %d bytes, the limit is %d", ErrFormat, f.Seq, len(f.Payload), MaxPayload)
	}
	raw = binary.AppendUvarint(raw, f.Seq)
	raw = binary.BigEndian.AppendUint64(raw, uint64(f.Time))
	raw = append(raw, byte(f.Kind), byte(f.Direction))
	raw = binary.AppendUvarint(raw, uint64(len(f.Payload)))
	return append(raw, f.Payload...), nil
}

// nextFrame reads the frame at the start of raw and returns what follows it.
// The payload aliases raw.
func nextFrame(raw []byte) (Frame, []byte, error) {
	var f Frame
	seq, n := binary.Uvarint(raw)
	if n <= 0 || len(raw) < n+10 {
		return f, nil, fmt.Errorf("%w: frame header is cut", ErrFormat)
	}
	f.Seq, raw = seq, raw[n:]
	f.Time = int64(binary.BigEndian.Uint64(raw))
	f.Kind, f.Direction, raw = Kind(raw[8]), Direction(raw[9]), raw[10:]
	size, n := binary.Uvarint(raw)
	if n <= 0 || size > MaxPayload || size > uint64(len(raw)-n) {
		return f, nil, fmt.Errorf("%w: frame %d is cut or too long", ErrFormat, f.Seq)
	}
	end := n + int(size)
	f.Payload = raw[n:end:end]
	return f, raw[end:], nil
}

// Frames yields the block's frames in order. It stops at the first error,
// which wraps [ErrFormat]. Payloads alias the block and must not be changed.
func (b *Block) Frames() iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		for raw := b.Raw; len(raw) > 0; {
			f, rest, err := nextFrame(raw)
			if !yield(f, err) || err != nil {
				return
			}
			raw = rest
		}
	}
}

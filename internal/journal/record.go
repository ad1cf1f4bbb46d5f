package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
)

// recordType says what a record of the log is.
type recordType byte

const (
	recFrame      recordType = 1 // one frame of a session
	recOpen       recordType = 2 // its first frame, with the session's origin
	recTruncate   recordType = 3 // the session was open when the daemon died
	recEvent      recordType = 4 // an event of the node, complete
	recSeal       recordType = 5 // where a block ends
	recCheckpoint recordType = 6 // where a start begins to read
)

// Flags of a frame.
const (
	flagDone = 1 << iota // a command that gets no outcome: it was refused
	flagLong             // its text is longer than an event carries
)

// errRecord: a record passed its checksum and still makes no sense.
var errRecord = errors.New("unreadable journal record")

// frame is a record of type recFrame, recOpen or recTruncate:
//
//	type:u8 kind:u8 flags:u8 len:u8 session time:u64 seq:uvarint rows:uvarint
//	if recOpen: len:uvarint target len:uvarint subject
//	payload to the end
//
// seq and rows spare the publisher from reading the payload.
type frame struct {
	Type            recordType
	Kind            recording.Kind
	Flags           byte
	Session         string
	Time            int64
	Seq             uint64 // the command's, 0 if it is about none
	Rows            uint64
	Target, Subject string
	Payload         []byte
}

// appendHeader appends all of a frame but its payload.
func (f *frame) appendHeader(b []byte) []byte {
	b = append(b, byte(f.Type), byte(f.Kind), f.Flags, byte(len(f.Session)))
	b = append(b, f.Session...)
	b = binary.BigEndian.AppendUint64(b, uint64(f.Time))
	b = binary.AppendUvarint(b, f.Seq)
	b = binary.AppendUvarint(b, f.Rows)
	if f.Type == recOpen {
		b = append(binary.AppendUvarint(b, uint64(len(f.Target))), f.Target...)
		b = append(binary.AppendUvarint(b, uint64(len(f.Subject))), f.Subject...)
	}
	return b
}

// parseFrame reads a frame. The payload aliases rec.
func parseFrame(rec []byte) (frame, error) {
	var f frame
	if len(rec) < 4 || len(rec) < 4+int(rec[3])+8 {
		return f, fmt.Errorf("%w: frame of %d bytes", errRecord, len(rec))
	}
	f.Type, f.Kind, f.Flags = recordType(rec[0]), recording.Kind(rec[1]), rec[2]
	n := 4 + int(rec[3])
	f.Session = string(rec[4:n])
	f.Time = int64(binary.BigEndian.Uint64(rec[n:]))
	rest, ok := rec[n+8:], true
	number := func() (v uint64) {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			ok = false
			return 0
		}
		rest = rest[n:]
		return v
	}
	text := func() string {
		size := number()
		if size > uint64(len(rest)) {
			ok = false
			return ""
		}
		s := string(rest[:size])
		rest = rest[size:]
		return s
	}
	f.Seq, f.Rows = number(), number()
	if f.Type == recOpen {
		f.Target, f.Subject = text(), text()
	}
	if !ok || f.Session == "" {
		return f, fmt.Errorf("%w: frame of session %q is cut", errRecord, f.Session)
	}
	f.Payload = rest
	return f, nil
}

// nodeEvent is a record of type recEvent, in JSON behind the type byte.
type nodeEvent struct {
	Target string      `json:"target,omitempty"`
	Event  event.Event `json:"event"`
}

// seal is a record of type recSeal, likewise.
type seal struct {
	Session string `json:"session"`
	Index   uint64 `json:"index"`
	UpTo    uint64 `json:"upTo"` // position behind the block's last record
	Hash    string `json:"hash"`
}

// checkpoint is a record of type recCheckpoint, likewise.
type checkpoint struct {
	From     uint64       `json:"from"` // everything before is done with
	Sessions []chainState `json:"sessions,omitempty"`
}

// chainState is where a session's recording stands behind its last
// acknowledged block.
type chainState struct {
	Session  string                     `json:"session"`
	Target   string                     `json:"target,omitempty"`
	Subject  string                     `json:"subject,omitempty"`
	Next     uint64                     `json:"next"` // index of the next block
	Previous []byte                     `json:"previous"`
	Frames   uint64                     `json:"frames"`
	UpTo     uint64                     `json:"upTo"` // records before are in a block
	Started  int64                      `json:"started"`
	Revision string                     `json:"revision,omitempty"` // of the policies that decided last
	Commands uint64                     `json:"commands"`
	Denied   uint64                     `json:"denied"`
	Rows     uint64                     `json:"rows"`
	Open     map[uint64]json.RawMessage `json:"open,omitempty"` // commands under way
	Over     bool                       `json:"over,omitempty"` // its last block is acknowledged
}

// encodeJSON makes a record of the types that are kept in JSON.
func encodeJSON(t recordType, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte{byte(t)}, body...), nil
}

func decodeJSON(rec []byte, v any) error {
	if err := json.Unmarshal(rec[1:], v); err != nil {
		return fmt.Errorf("%w: type %d: %w", errRecord, rec[0], err)
	}
	return nil
}

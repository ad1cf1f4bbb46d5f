package sink

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
	"github.com/nats-io/nats.go/jetstream"
)

// maxEarly is how often a block is put back since the one before it has not
// come. A node resends in order, so this ends by itself, or never.
const maxEarly = 60

// errUnknownKey: no configured node has the key that a block is signed with.
var errUnknownKey = errors.New("signed with a key of no known node")

// take stores a batch of messages and acknowledges them. On an error nothing
// is acknowledged.
func (s *Sink) take(ctx context.Context, msgs []jetstream.Msg) error {
	work := map[string]*file{}
	var done, early []jetstream.Msg
	for _, m := range msgs {
		id := m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:]
		err := s.block(ctx, work, id, m.Data())
		var bad *recording.Fault
		switch {
		case err == nil:
		case errors.Is(err, recording.ErrMissing) && delivered(m) < maxEarly:
			early = append(early, m)
			continue
		case errors.Is(err, errUnknownKey):
			s.opts.Log.Error().Str("session", id).Err(err).Msg("a recording can't be closed until its node's key is configured; it stays in the stream")
			early = append(early, m)
			continue
		case errors.As(err, &bad):
			if err := s.reject(ctx, work, id, m.Data(), bad); err != nil {
				return err
			}
		default:
			return err
		}
		done = append(done, m)
	}
	if err := s.store(ctx, work); err != nil {
		return err
	}
	var err error
	for _, m := range done {
		err = errors.Join(err, m.Ack())
	}
	for _, m := range early {
		err = errors.Join(err, m.NakWithDelay(time.Second))
	}
	if err != nil {
		s.opts.Log.Warn().Err(err).Msg("blocks were stored and could not be acknowledged; they come again, which changes nothing")
	}
	return nil
}

func delivered(m jetstream.Msg) uint64 {
	meta, err := m.Metadata()
	if err != nil {
		return 0
	}
	return meta.NumDelivered
}

// block checks one block against its chain and adds it to what is stored. Its
// error is a [*recording.Fault] if the block is at fault.
func (s *Sink) block(ctx context.Context, work map[string]*file, id string, data []byte) error {
	b, err := s.codec.Decode(data)
	if err != nil {
		return &recording.Fault{Err: err}
	}
	if b.Session != id {
		return &recording.Fault{Block: b.Index, Err: recording.ErrForeign, Detail: fmt.Sprintf("it came as one of session %q", id)}
	}
	f, err := s.file(ctx, work, id)
	if err != nil {
		return err
	}
	key, node := s.keyOf(b)
	if b.Last && key == nil {
		return fmt.Errorf("%w: key id %s", errUnknownKey, b.Key)
	}
	v := recording.ResumeVerifier(f.report(), key)
	err = v.Add(b)
	if b.Index < f.blocks {
		same, scanErr := s.stored(f, b)
		if scanErr != nil {
			return scanErr
		}
		if same {
			return nil
		}
		return &recording.Fault{Block: b.Index, Err: recording.ErrChanged, Detail: "another block with this number is stored already"}
	}
	if err != nil {
		return err
	}
	f.add(b, data, v.Report(), node)
	return nil
}

// keyOf is the public key that a block claims to be signed by, and its node.
// A block that is not the last one is not signed; then the node is known only
// if there is but one.
func (s *Sink) keyOf(b *recording.Block) (ed25519.PublicKey, string) {
	node := s.keys[b.Key]
	if !b.Last && len(s.opts.Keys) == 1 {
		for only := range s.opts.Keys {
			node = only
		}
	}
	return s.opts.Keys[node], node
}

// file returns the session's file within a batch.
func (s *Sink) file(ctx context.Context, work map[string]*file, id string) (*file, error) {
	if f := work[id]; f != nil {
		return f, nil
	}
	c, err := s.load(ctx, id)
	if errors.Is(err, ErrNotFound) {
		c, err = &chain{row: Session{ID: id, State: StateOpen}}, nil
	}
	if err != nil {
		return nil, err
	}
	f := &file{chain: c}
	work[id] = f
	return f, nil
}

// add takes a verified block into the chain.
func (f *file) add(b *recording.Block, data []byte, r recording.Report, node string) {
	f.pending = appendBlock(f.pending, data)
	f.blocks, f.frames, f.root, f.closed = r.Blocks, r.Frames, append([]byte(nil), r.Root[:]...), r.Closed
	f.first, f.last = r.First.UnixNano(), r.Last.UnixNano()
	f.changed = true
	if node != "" {
		f.row.Node = node
	}
	for fr, err := range b.Frames() {
		if err == nil {
			f.summarise(fr)
		}
	}
	if r.Closed {
		at := r.Last
		f.row.Ended = &at
		if f.row.State == StateOpen {
			f.row.State = StateVerified
		}
	}
	if f.row.Started.IsZero() {
		f.row.Started = r.First
	}
}

// summarise counts a frame into the session's row.
func (f *file) summarise(fr recording.Frame) {
	row := &f.row
	switch fr.Kind {
	case recording.KindSessionStarted:
		var e event.SessionStarted
		if json.Unmarshal(fr.Payload, &e) == nil {
			row.Principal = e.Principal.Subject + "@" + e.Principal.Issuer
			row.Workload, row.Target = e.Workload.Name, e.Target.Name
			row.Credential, row.Application = e.Credential, e.Application
		}
		row.Started = fr.At()
	case recording.KindCommand:
		row.Commands++
		// A quote inside a JSON string is escaped: this is the member.
		if bytes.Contains(fr.Payload, []byte(`"decision":"deny"`)) {
			row.Denied++
		}
	case recording.KindOutcome:
		row.Rows += member(fr.Payload, `,"rows":`)
		row.BytesOut += member(fr.Payload, `,"bytes":`)
	case recording.KindSessionEnded:
		var e event.SessionEnded
		if json.Unmarshal(fr.Payload, &e) == nil {
			row.Reason = e.Reason
			row.BytesOut = max(row.BytesOut, e.BytesOut)
		}
	}
}

// member reads the number that follows name in a JSON object, or 0.
func member(object []byte, name string) uint64 {
	_, rest, ok := bytes.Cut(object, []byte(name))
	if !ok {
		return 0
	}
	n := 0
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(string(rest[:n]), 10, 64)
	if err != nil {
		return 0
	}
	return v
}

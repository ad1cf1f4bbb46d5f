package journal

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
)

// MaxText is the longest command text, in bytes, that a recording holds. A
// longer one is cut, and marked so; its digest is that of the whole.
const MaxText = 1 << 20

// maxWords bounds what the other side of a connection can put into an
// outcome: error text and tags.
const maxWords = 16 << 10

// Recorder writes down one session. Its methods are safe for concurrent use;
// the order in which they return is that of the recording.
type Recorder struct {
	j      *Journal
	id     string
	origin event.Origin
	strict bool
	state  atomic.Int32
	bufs   sync.Pool
}

const (
	stateNew int32 = iota
	stateOpen
	stateEnded
)

// Session returns the recorder of a session. The id is one that
// [recording.ValidSession] accepts, and is never used again. With strict every command is on the disk, not only in the
// file, when Command returns.
func (j *Journal) Session(id string, o event.Origin, strict bool) *Recorder {
	return &Recorder{j: j, id: id, origin: o, strict: strict, bufs: sync.Pool{New: func() any { return new([]byte) }}}
}

// Started opens the recording. It comes first, once.
func (r *Recorder) Started(s event.SessionStarted) error {
	if !recording.ValidSession(r.id) {
		return fmt.Errorf("session id %q can't be used as a name", r.id)
	}
	if !r.state.CompareAndSwap(stateNew, stateOpen) {
		return fmt.Errorf("session %s: %w", r.id, ErrNotOpen)
	}
	s.Session = r.id
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("session %s: %w", r.id, err)
	}
	f := frame{Type: recOpen, Kind: recording.KindSessionStarted, Target: r.origin.Target, Subject: r.origin.Subject}
	if err := r.write(&f, classNew, false, r.strict, func(b []byte) []byte { return append(b, body...) }); err != nil {
		r.state.Store(stateNew)
		return err
	}
	r.j.stats.open.Add(1)
	return nil
}

// Command writes a command down before it goes upstream. When it returns nil
// the command survives the daemon's death, and with strict the machine's. A
// command that was not allowed is complete with this call and gets no Outcome.
func (r *Recorder) Command(c *event.Command) error {
	if r.state.Load() != stateOpen {
		return fmt.Errorf("session %s: %w", r.id, ErrNotOpen)
	}
	f := frame{Type: recFrame, Kind: recording.KindCommand, Seq: c.Seq}
	if len(c.Text) > event.MaxText || len(c.Message) > maxWords || len(c.Error) > maxWords || manyNames(c) {
		f.Flags |= flagLong
		short := *c
		c = &short
		cutText(c, MaxText)
	}
	if c.Decision == "allow" {
		return r.write(&f, classNew, false, r.strict, c.AppendRequestJSON)
	}
	f.Flags |= flagDone
	return r.write(&f, classNew, false, r.strict, c.AppendJSON)
}

// Outcome writes down how an allowed command went. It may be written through
// with the next record only, at most 100 ms later.
func (r *Recorder) Outcome(c *event.Command) error {
	if r.state.Load() != stateOpen {
		return fmt.Errorf("session %s: %w", r.id, ErrNotOpen)
	}
	if len(c.Error) > maxWords || len(c.Tag) > maxWords {
		short := *c
		short.Error, short.Tag = cut(c.Error, maxWords), cut(c.Tag, maxWords)
		c = &short
	}
	f := frame{Type: recFrame, Kind: recording.KindOutcome, Seq: c.Seq, Rows: c.Rows}
	return r.write(&f, classFollow, true, false, c.AppendOutcomeJSON)
}

// Masked writes down that values of a result were covered.
func (r *Recorder) Masked(m event.MaskApplied) error {
	if r.state.Load() != stateOpen {
		return fmt.Errorf("session %s: %w", r.id, ErrNotOpen)
	}
	m.Session = r.id
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("session %s: %w", r.id, err)
	}
	f := frame{Type: recFrame, Kind: recording.KindMaskApplied, Seq: m.Seq}
	return r.write(&f, classFollow, true, false, func(b []byte) []byte { return append(b, body...) })
}

// Ended closes the recording. It may be called again after an error. The root hash and the number of blocks are put
// into the published event when the last block is sealed.
func (r *Recorder) Ended(e event.SessionEnded) error {
	if !r.state.CompareAndSwap(stateOpen, stateEnded) {
		return fmt.Errorf("session %s: %w", r.id, ErrNotOpen)
	}
	e.Session, e.RootHash, e.Recording = r.id, "", 0
	e.Message = cut(e.Message, maxWords)
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("session %s: %w", r.id, err)
	}
	f := frame{Type: recFrame, Kind: recording.KindSessionEnded}
	if err := r.write(&f, classFollow, false, r.strict, func(b []byte) []byte { return append(b, body...) }); err != nil {
		r.state.Store(stateOpen)
		return err
	}
	r.j.stats.open.Add(-1)
	return nil
}

// write appends one frame, whose payload is made by body.
func (r *Recorder) write(f *frame, c class, lazy, wait bool, body func([]byte) []byte) error {
	f.Session, f.Time = r.id, time.Now().UnixNano()
	held := r.bufs.Get().(*[]byte)
	buf := f.appendHeader((*held)[:0])
	head := len(buf)
	buf = body(buf)
	if len(buf)-head > recording.MaxPayload {
		return fmt.Errorf("session %s, %s: %w: %d bytes", r.id, f.Kind, ErrTooLarge, len(buf)-head)
	}
	end, err := r.j.append(buf, c, lazy)
	if cap(buf) <= 64<<10 {
		*held = buf
	}
	r.bufs.Put(held)
	if err != nil {
		return fmt.Errorf("session %s, %s: %w", r.id, f.Kind, err)
	}
	if wait {
		return r.j.log.SyncTo(end)
	}
	return nil
}

// cutText cuts a command's texts: the command itself to size bytes.
func cutText(c *event.Command, size int) {
	if len(c.Text) > size {
		c.Text, c.Cut = cut(c.Text, size), true
	}
	c.Message, c.Error = cut(c.Message, maxWords), cut(c.Error, maxWords)
}

// An event lists at most maxNames of each kind of name, and of each at most
// maxName bytes: a batch may hold any number of statements.
const (
	maxNames = 256
	maxName  = 256
)

// manyNames says whether an event lists less than all.
func manyNames(c *event.Command) bool {
	if len(c.Shadows) > maxNames {
		return true
	}
	for _, list := range [...][]string{c.Parsed.Kinds, c.Parsed.Tables, c.Parsed.Functions, c.Approvals} {
		if len(list) > maxNames {
			return true
		}
		for _, s := range list {
			if len(s) > maxName {
				return true
			}
		}
	}
	return false
}

// cutNames shortens the lists, in place.
func cutNames(c *event.Command) {
	c.Shadows = c.Shadows[:min(len(c.Shadows), maxNames)]
	for _, list := range [...]*[]string{&c.Parsed.Kinds, &c.Parsed.Tables, &c.Parsed.Functions, &c.Approvals} {
		*list = (*list)[:min(len(*list), maxNames)]
		for i, s := range *list {
			(*list)[i] = cut(s, maxName)
		}
	}
}

// cut returns at most size bytes of s, and no half character at their end.
func cut(s string, size int) string {
	if len(s) <= size {
		return s
	}
	for size > 0 && s[size]&0xc0 == 0x80 {
		size--
	}
	return s[:size]
}

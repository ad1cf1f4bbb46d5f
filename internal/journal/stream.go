package journal

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"chaperone.dev/chaperone/internal/journal/wal"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
)

// blockBytes is how many bytes of frames make a block.
const blockBytes = 64 << 10

// stream is the publisher's view of one session: the chain so far, and the
// frames that are in no block yet.
type stream struct {
	chainState
	previous recording.Hash
	open     map[uint64][]byte // commands under way: their request, as JSON
	spare    [][]byte          // buffers of such that are over
	durable  *chainState       // behind the last acknowledged block; nil: none yet
	seals    map[uint64]seal   // where blocks ended before the last start

	raw   []byte
	count uint32
	at    wal.LSN   // of the first frame in raw
	next  wal.LSN   // behind the last one
	since time.Time // when the first one was read
	ended *event.SessionEnded
}

func newStream(id, target, subject string) *stream {
	return &stream{chainState: chainState{Session: id, Target: target, Subject: subject}, open: map[uint64][]byte{}}
}

// resume makes the stream of a checkpoint.
func resume(c chainState) *stream {
	s := newStream(c.Session, c.Target, c.Subject)
	s.chainState = c
	s.chainState.Open = nil
	copy(s.previous[:], c.Previous)
	for seq, body := range c.Open {
		s.begin(seq, body)
	}
	s.durable = &c
	return s
}

// add puts a frame into the block that is being filled.
func (s *stream) add(kind recording.Kind, direction recording.Direction, at int64, payload []byte, pos, next wal.LSN, now time.Time) error {
	if s.count == 0 {
		s.at, s.since = pos, now
	}
	raw, err := recording.AppendFrame(s.raw, recording.Frame{Seq: s.Frames + 1, Time: at, Kind: kind, Direction: direction, Payload: payload})
	if err != nil {
		return fmt.Errorf("session %s: %w", s.Session, err)
	}
	s.raw, s.next = raw, next
	s.Frames++
	s.count++
	return nil
}

// revisionIn is the policy revision that a payload names, or, where it names none, the last
// one that was. That is nearly always the same, and then costs no copy.
func (s *stream) revisionIn(payload []byte) string {
	revision := event.RevisionOf(payload)
	if len(revision) == 0 || string(revision) == s.Revision {
		return s.Revision
	}
	return string(revision)
}

// begin keeps the request of a command that is under way.
func (s *stream) begin(seq uint64, request []byte) {
	var buf []byte
	if n := len(s.spare); n > 0 {
		buf, s.spare = s.spare[n-1], s.spare[:n-1]
	}
	s.open[seq] = append(buf[:0], request...)
}

// Of the buffers of requests so many are used again, and none that is larger.
const (
	maxSpare     = 16
	maxSpareSize = 4 << 10
)

// over forgets a command that begin kept.
func (s *stream) over(seq uint64) {
	buf := s.open[seq]
	delete(s.open, seq)
	if buf != nil && cap(buf) <= maxSpareSize && len(s.spare) < maxSpare {
		s.spare = append(s.spare, buf)
	}
}

// due says whether the block ends here.
func (s *stream) due() bool {
	if s.count == 0 {
		return false
	}
	if known, ok := s.seals[s.Next]; ok {
		return uint64(s.next) >= known.UpTo
	}
	return s.ended != nil || len(s.raw) >= blockBytes
}

// snapshot is the state behind the frames that were read, for a checkpoint.
func (s *stream) snapshot() *chainState {
	c := s.chainState
	c.Previous = append([]byte(nil), s.previous[:]...)
	c.UpTo = uint64(s.next)
	c.Over = s.ended != nil
	c.Open = toRaw(s.open)
	return &c
}

// truncated gives the frames that close a session whose daemon died: what
// became of its unfinished commands is not known.
func (s *stream) truncated(at int64) []frame {
	var frames []frame
	for _, seq := range sortedKeys(s.open) {
		c := event.Command{Session: s.Session, Seq: seq, Unfinished: true}
		frames = append(frames, frame{Kind: recording.KindOutcome, Seq: seq, Time: at, Session: s.Session, Payload: c.AppendOutcomeJSON(nil)})
	}
	ended := event.SessionEnded{
		Session: s.Session, Reason: event.ReasonTruncated,
		Message:  "the daemon went down during the session; this was written at its next start",
		Commands: s.Commands, Denied: s.Denied, Rows: s.Rows,
		Duration: max(0, time.Duration(at-s.Started)),
	}
	body, err := json.Marshal(ended)
	if err != nil {
		body = []byte("{}")
	}
	return append(frames, frame{Kind: recording.KindSessionEnded, Time: at, Session: s.Session, Payload: body})
}

func sortedKeys(m map[uint64][]byte) []uint64 {
	return slices.Sorted(maps.Keys(m))
}

package journal

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"chaperone.dev/chaperone/internal/journal/wal"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
	"github.com/rs/zerolog"
)

// Errors of this package, beside those of the log, which tell of damage.
var (
	// ErrFull: the journal holds MaxBytes that NATS has not taken yet.
	ErrFull = errors.New("the journal is full: NATS has not taken what it holds")
	// ErrNotOpen: the session has not started, or has ended.
	ErrNotOpen = errors.New("the session's recording is not open")
	// ErrTooLarge: a record exceeds the recording's limit.
	ErrTooLarge = errors.New("too large to be recorded")
)

// Options of [Open].
type Options struct {
	Dir      string
	MaxBytes int64 // default 1 GiB, at least 1 MiB
	Cluster  string
	Node     string
	Key      ed25519.PrivateKey // signs this node's recordings
	Log      zerolog.Logger
	// OnDegraded, if set, is called when the journal becomes four fifths
	// full, and again after it had become less than three fifths full. It is
	// called on a session's way and must not block, nor use the journal.
	OnDegraded func(used, limit int64)
	// KeepAcked is how long a record is kept after NATS acknowledged it: at
	// least the time within which the server syncs. Default 5 s; negative: 0.
	KeepAcked time.Duration
	// BlockAge is how long a frame waits for its block to fill. Default 1 s.
	BlockAge time.Duration
}

// Journal is a node's durable queue. Its methods are safe for concurrent use.
type Journal struct {
	opts  Options
	log   *wal.Log
	codec *recording.Codec
	start startState
	run   sync.Mutex // held by Run
	ran   bool       // under run: start is not what the log says any more

	first    atomic.Uint64 // oldest position that is kept
	end      atomic.Uint64 // behind the newest record
	degraded atomic.Bool
	stats    counters
}

// startState is what Open found: where the publisher begins.
type startState struct {
	checkpoint checkpoint
	found      bool // there is a checkpoint
	seals      map[string]map[uint64]seal
	open       map[string]bool
	ended      map[string]bool
}

// Open opens or makes the journal of a node, checks all of it, cuts a torn end
// and marks sessions that were open as truncated. Damage to what had been
// synced is an error; see [wal.ErrCorrupt].
func Open(o Options) (*Journal, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 30
	}
	o.MaxBytes = max(o.MaxBytes, 1<<20)
	if o.KeepAcked == 0 {
		o.KeepAcked = 5 * time.Second
	}
	if o.BlockAge <= 0 {
		o.BlockAge = time.Second
	}
	if len(o.Key) != ed25519.PrivateKeySize || o.Cluster == "" || o.Node == "" {
		return nil, errors.New("journal: a cluster, a node and a signing key are needed")
	}
	codec, err := recording.NewCodec()
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{opts: o, codec: codec, start: startState{seals: map[string]map[uint64]seal{}, open: map[string]bool{}, ended: map[string]bool{}}}
	j.log, err = wal.Open(wal.Options{
		Dir:          filepath.Clean(o.Dir),
		SegmentBytes: min(16<<20, o.MaxBytes/8),
		Visit:        func(at, next wal.LSN, rec []byte) error { return j.start.visit(rec) },
	})
	if err != nil {
		return nil, err
	}
	if torn := j.log.Torn(); torn > 0 {
		o.Log.Warn().Int64("bytes", torn).Msg("the journal's last record was not whole and was cut off: the machine or the daemon went down while it was written")
	}
	if err := j.closeTruncated(); err != nil {
		return nil, errors.Join(err, j.log.Close())
	}
	return j, nil
}

// visit notes what a start needs to know of a record.
func (s *startState) visit(rec []byte) error {
	switch recordType(rec[0]) {
	case recFrame, recOpen, recTruncate:
		f, err := parseFrame(rec)
		if err != nil {
			return err
		}
		switch {
		case f.Type == recOpen:
			s.open[f.Session] = true
		case f.Type == recTruncate || f.Kind == recording.KindSessionEnded:
			delete(s.open, f.Session)
			s.ended[f.Session] = true
		}
	case recSeal:
		var v seal
		if err := decodeJSON(rec, &v); err != nil {
			return err
		}
		if s.seals[v.Session] == nil {
			s.seals[v.Session] = map[uint64]seal{}
		}
		s.seals[v.Session][v.Index] = v
	case recCheckpoint:
		var c checkpoint
		if err := decodeJSON(rec, &c); err != nil {
			return err
		}
		s.checkpoint, s.found = c, true
	case recEvent:
	default:
		return fmt.Errorf("%w: type %d: it was written by a later version", errRecord, rec[0])
	}
	return nil
}

// closeTruncated marks the sessions that nobody ended.
func (j *Journal) closeTruncated() error {
	first, end := j.log.Bounds()
	if j.start.found && wal.LSN(j.start.checkpoint.From) < first || !j.start.found && first > 0 {
		return fmt.Errorf("%w: %s: the first of its files is missing", wal.ErrCorrupt, j.opts.Dir)
	}
	j.first.Store(uint64(first))
	j.end.Store(uint64(end))
	j.stats.read.Store(j.start.checkpoint.From)
	open := j.start.open
	for _, c := range j.start.checkpoint.Sessions {
		if !c.Over && !j.start.ended[c.Session] {
			open[c.Session] = true
		}
	}
	now := time.Now().UnixNano()
	for _, session := range slices.Sorted(maps.Keys(open)) {
		f := frame{Type: recTruncate, Kind: recording.KindSessionEnded, Session: session, Time: now}
		if _, err := j.append(f.appendHeader(nil), classControl, false); err != nil {
			return fmt.Errorf("close session %s: %w", session, err)
		}
		j.opts.Log.Warn().Str("session", session).Msg("the session was open when the daemon went down; its recording is closed as truncated")
	}
	j.start.open, j.start.ended = nil, nil
	return j.log.Sync()
}

// Close syncs and closes the journal. [Journal.Run] must have returned.
func (j *Journal) Close() error { return j.log.Close() }

// Event writes down an event of the node, to be published. It returns when the
// event is in the file.
func (j *Journal) Event(o event.Origin, data event.Data) error {
	o.Cluster, o.Node = j.opts.Cluster, j.opts.Node
	e, err := event.New(o, time.Now(), data)
	if err != nil {
		return err
	}
	rec, err := encodeJSON(recEvent, nodeEvent{Target: o.Target, Event: e})
	if err != nil {
		return fmt.Errorf("event %s: %w", data.EventType(), err)
	}
	if len(rec) > event.MaxSize {
		return fmt.Errorf("event %s: %w: %d bytes", data.EventType(), ErrTooLarge, len(rec))
	}
	_, err = j.append(rec, classNew, false)
	return err
}

// class says how a record is treated when the journal is full.
type class int

const (
	classNew     class = iota // refused
	classFollow               // taken into the reserve
	classControl              // always taken: it is what empties the journal
)

// append writes a record, within the journal's bounds.
func (j *Journal) append(rec []byte, c class, lazy bool) (wal.LSN, error) {
	used := int64(j.end.Load() - j.first.Load())
	limit := j.opts.MaxBytes
	if c == classFollow {
		limit += limit / 4
	}
	if c != classControl && used+int64(len(rec)) > limit {
		return 0, fmt.Errorf("%w: %d of %d bytes", ErrFull, used, j.opts.MaxBytes)
	}
	end, err := j.log.Append(rec, lazy)
	if err != nil {
		return 0, err
	}
	raise(&j.end, uint64(end))
	switch {
	case used > j.opts.MaxBytes/5*4:
		if j.degraded.CompareAndSwap(false, true) && j.opts.OnDegraded != nil {
			j.opts.OnDegraded(used, j.opts.MaxBytes)
		}
	case used < j.opts.MaxBytes/5*3 && j.degraded.Load():
		j.degraded.Store(false)
	}
	return end, nil
}

// raise sets v to n unless it is higher already.
func raise(v *atomic.Uint64, n uint64) {
	for {
		old := v.Load()
		if old >= n || v.CompareAndSwap(old, n) {
			return
		}
	}
}

// Stats tells how full the journal is and how far the publisher.
type Stats struct {
	Bytes     int64         // on disk
	Limit     int64         // MaxBytes
	Unread    int64         // bytes that the publisher has not read yet
	InFlight  int           // messages sent and not acknowledged
	Published uint64        // messages acknowledged since the start
	Resent    uint64        // messages sent again since the start
	Lag       time.Duration // age of the oldest record that is not acknowledged; 0: none
	Open      int           // sessions whose recording is open
}

type counters struct {
	read      atomic.Uint64
	inFlight  atomic.Int64
	published atomic.Uint64
	resent    atomic.Uint64
	oldest    atomic.Int64 // Unix ns
	open      atomic.Int64
}

// Stats returns the current figures.
func (j *Journal) Stats() Stats {
	s := Stats{
		Bytes:     int64(j.end.Load() - j.first.Load()),
		Limit:     j.opts.MaxBytes,
		Unread:    max(0, int64(j.end.Load()-j.stats.read.Load())),
		InFlight:  int(j.stats.inFlight.Load()),
		Published: j.stats.published.Load(),
		Resent:    j.stats.resent.Load(),
		Open:      int(j.stats.open.Load()),
	}
	if t := j.stats.oldest.Load(); t != 0 {
		s.Lag = time.Since(time.Unix(0, t))
	}
	return s
}

// toRaw makes a checkpoint's form of the commands under way, which lasts when
// they are over.
func toRaw(open map[uint64][]byte) map[uint64]json.RawMessage {
	if len(open) == 0 {
		return nil
	}
	raw := make(map[uint64]json.RawMessage, len(open))
	for seq, body := range open {
		raw[seq] = slices.Clone(body)
	}
	return raw
}

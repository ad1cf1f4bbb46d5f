package journal

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"chaperone.dev/chaperone/internal/journal/wal"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"
)

// publisher turns records into messages. It is one goroutine, that of Run.
type publisher struct {
	j       *Journal
	reader  *wal.Reader
	pos     wal.LSN // everything before was read
	streams map[string]*stream
	ready   []message // made, and not given to the outbox yet
	sealed  wal.LSN   // behind the last seal
	syncAt  time.Time // when the seals that are not on the disk are synced
	stalled bool      // a seal can't be written: the disk is full
	out     *outbox
	marks   []mark
	event   []byte // reused

	activity uint64 // records and acknowledgements that move a checkpoint
	marked   uint64 // activity at the last mark
}

const (
	readBatch     = 1 << 20 // bytes that are read before what they make is sent
	checkpointGap = time.Second
	linger        = 20 * time.Millisecond  // records that come singly are taken together
	sealWait      = 100 * time.Millisecond // how long a sealed block waits for a sync that it shares
	drainTime     = 3 * time.Second
)

// Run publishes what the journal holds and what comes, until ctx is done. It
// outlasts any outage of NATS. It fails when the journal itself can't be read
// or written; then nothing more is published, and soon nothing more accepted.
// It may be called again after it has returned, with another connection.
func (j *Journal) Run(ctx context.Context, js jetstream.JetStream) error {
	if !j.run.TryLock() {
		return errors.New("journal: Run is called while it runs")
	}
	defer j.run.Unlock()
	if j.ran {
		if err := j.recall(); err != nil {
			return err
		}
	}
	j.ran = true
	out, err := newOutbox(js.Conn(), j.opts.Log, &j.stats)
	if err != nil {
		return err
	}
	p := &publisher{j: j, streams: map[string]*stream{}, out: out}
	p.pos = wal.LSN(j.start.checkpoint.From)
	for _, c := range j.start.checkpoint.Sessions {
		p.streams[c.Session] = resume(c)
		p.streams[c.Session].seals = j.start.seals[c.Session]
	}
	p.reader = j.log.NewReader(p.pos)
	err = p.loop(ctx)
	return errors.Join(err, p.reader.Close(), out.close())
}

// recall reads from the log where a publisher begins. Sessions that are open go on.
func (j *Journal) recall() error {
	first, _ := j.log.Bounds()
	start := startState{seals: map[string]map[uint64]seal{}, open: map[string]bool{}, ended: map[string]bool{}}
	reader := j.log.NewReader(first)
	for {
		rec, _, _, err := reader.Next()
		if err == nil {
			err = start.visit(rec)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(err, reader.Close())
		}
	}
	start.open, start.ended = nil, nil
	j.start = start
	j.stats.read.Store(start.checkpoint.From)
	return reader.Close()
}

func (p *publisher) loop(ctx context.Context) error {
	tick := time.NewTicker(p.j.opts.BlockAge / 4)
	defer tick.Stop()
	rest := time.NewTimer(0)
	defer rest.Stop()
	lastMark := time.Now()
	for {
		now := time.Now()
		more, err := p.step(now)
		if err != nil {
			return err
		}
		if now.Sub(lastMark) >= checkpointGap {
			lastMark = now
			if err := p.checkpoint(now, p.j.opts.KeepAcked); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return p.finish()
		}
		if more && p.out.room() {
			continue
		}
		// What comes is left to gather a little: a wake-up for each record
		// costs more than what is done with it.
		rest.Reset(linger)
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
		changed := p.j.log.Changed()
		if !p.out.room() || p.stalled {
			changed = nil
		}
		var due <-chan time.Time
		if p.unsynced() {
			rest.Reset(time.Until(p.syncAt))
			due = rest.C
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-due:
		case <-p.out.acks.arrived:
		case <-tick.C:
		}
	}
}

// step reads, seals, sends and collects once.
func (p *publisher) step(now time.Time) (more bool, err error) {
	if p.out.room() && !p.stalled {
		if more, err = p.read(now); err != nil {
			return false, err
		}
	}
	if err := p.sealDue(now); err != nil {
		return false, err
	}
	p.out.put(p.ready)
	clear(p.ready)
	p.ready = p.ready[:0]
	if p.unsynced() && (!now.Before(p.syncAt) || !p.out.room()) {
		if err := p.syncSeals(); err != nil {
			return false, err
		}
	}
	p.out.send(now, p.j.log.Synced())
	p.out.collect(now, func(m *message) {
		p.activity++
		if m.stream != nil {
			m.stream.durable = m.state
		}
	})
	p.oldest()
	return more, nil
}

// oldest tells since when the oldest record waits for its acknowledgement.
func (p *publisher) oldest() {
	var at time.Time
	if len(p.out.queue) > 0 {
		at = p.out.queue[0].since
	}
	for _, s := range p.streams {
		if s.count > 0 && (at.IsZero() || s.since.Before(at)) {
			at = s.since
		}
	}
	if at.IsZero() {
		p.j.stats.oldest.Store(0)
		return
	}
	p.j.stats.oldest.Store(at.UnixNano())
}

// finish publishes what is still to be read, for as long as NATS takes it and
// not longer than drainTime, and writes the last checkpoint. Shutdown is
// orderly, so what is acknowledged needs no grace.
func (p *publisher) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	for ctx.Err() == nil {
		p.syncAt = time.Time{}
		more, err := p.step(time.Now())
		if err != nil {
			return err
		}
		if !more && len(p.out.queue) == 0 || p.out.failing || p.stalled {
			break
		}
		if more && p.out.room() {
			continue
		}
		select {
		case <-ctx.Done():
		case <-p.out.acks.arrived:
		}
	}
	return p.checkpoint(time.Now(), 0)
}

// read takes a batch of records. It reports whether there may be more.
func (p *publisher) read(now time.Time) (more bool, err error) {
	for size := 0; size < readBatch; {
		rec, at, next, err := p.reader.Next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if err := p.take(rec, at, next, now); err != nil {
			return false, err
		}
		p.pos = next
		p.j.stats.read.Store(uint64(next))
		size += len(rec)
		if p.stalled {
			return false, nil
		}
	}
	return true, nil
}

// take handles one record.
func (p *publisher) take(rec []byte, at, next wal.LSN, now time.Time) error {
	switch recordType(rec[0]) {
	case recSeal, recCheckpoint:
		return nil // read at the start
	default:
		p.activity++
	}
	switch recordType(rec[0]) {
	case recFrame, recOpen:
		f, err := parseFrame(rec)
		if err != nil {
			return err
		}
		return p.frame(f, at, next, now)
	case recTruncate:
		f, err := parseFrame(rec)
		if err != nil {
			return err
		}
		return p.truncate(f, at, next, now)
	case recEvent:
		var e nodeEvent
		if err := decodeJSON(rec, &e); err != nil {
			return err
		}
		o := event.Origin{Cluster: p.j.opts.Cluster, Node: p.j.opts.Node, Target: e.Target}
		p.ready = append(p.ready, message{subject: event.Subject(o, e.Event.Kind()), id: e.Event.ID, body: e.Event.AppendJSON(nil), at: at, since: now})
	}
	return nil
}

// frame adds one frame to its session.
func (p *publisher) frame(f frame, at, next wal.LSN, now time.Time) error {
	s := p.streams[f.Session]
	if s == nil && f.Type == recOpen {
		s = newStream(f.Session, f.Target, f.Subject)
		s.Started = f.Time
		s.seals = p.j.start.seals[f.Session]
		p.streams[f.Session] = s
	}
	switch {
	case s == nil:
		p.j.opts.Log.Error().Str("session", f.Session).Uint64("position", uint64(at)).Msg("the journal holds a frame of a session that it never saw start; it is left out")
		return nil
	case uint64(at) < s.UpTo || s.ended != nil:
		return nil // in a block that is acknowledged
	}
	if err := p.digest(s, f, at, next, now); err != nil {
		return err
	}
	return p.sealIfDue(s)
}

// truncate closes a session that was open when the daemon died.
func (p *publisher) truncate(f frame, at, next wal.LSN, now time.Time) error {
	s := p.streams[f.Session]
	if s == nil || uint64(at) < s.UpTo || s.ended != nil {
		return nil
	}
	for _, g := range s.truncated(f.Time) {
		if err := p.digest(s, g, at, next, now); err != nil {
			return err
		}
	}
	return p.sealIfDue(s)
}

// sealIfDue ends the block if it is full.
func (p *publisher) sealIfDue(s *stream) error {
	if !s.due() {
		return nil
	}
	return p.trySeal(s)
}

// sealDue ends the blocks that are full or have waited long enough.
func (p *publisher) sealDue(now time.Time) error {
	p.stalled = false
	for _, s := range p.streams {
		// Where a block ended before the last start, it ends again.
		_, known := s.seals[s.Next]
		aged := s.count > 0 && !known && now.Sub(s.since) >= p.j.opts.BlockAge
		if aged || s.due() {
			if err := p.trySeal(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// trySeal seals, or, on a full disk, makes the publisher wait and try again.
func (p *publisher) trySeal(s *stream) error {
	err := p.seal(s)
	if noSpace(err) {
		p.stalled = true
		p.j.opts.Log.Error().Err(err).Msg("the journal's disk is full; publishing waits")
		return nil
	}
	return err
}

func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// seal ends a block: its seal goes to the journal, the block to the outbox,
// which sends it once the seal is on the disk.
func (p *publisher) seal(s *stream) error {
	var key ed25519.PrivateKey
	if s.ended != nil {
		key = p.j.opts.Key
	}
	b, err := recording.Build(s.Session, s.Next, s.previous, s.count, s.raw, key)
	if err != nil {
		return fmt.Errorf("session %s: %w", s.Session, err)
	}
	var needs wal.LSN
	if known, ok := s.seals[s.Next]; ok {
		if known.Hash != b.Hash.String() {
			p.j.opts.Log.Error().Str("session", s.Session).Uint64("block", s.Next).Msg("a block was built anew and is not what was sealed before; the sink will refuse it")
		}
		delete(s.seals, s.Next)
	} else {
		rec, err := encodeJSON(recSeal, seal{Session: s.Session, Index: s.Next, UpTo: uint64(s.next), Hash: b.Hash.String()})
		if err != nil {
			return err
		}
		if needs, err = p.j.append(rec, classControl, true); err != nil {
			return err
		}
		if !p.unsynced() {
			p.syncAt = time.Now().Add(sealWait)
		}
		p.sealed = needs
	}
	m := message{
		subject: event.RecordingSubject(p.j.opts.Cluster, s.Session),
		id:      s.Session + "/" + strconv.FormatUint(s.Next, 10),
		body:    p.j.codec.Encode(b),
		at:      s.at, since: s.since, needs: needs,
	}
	s.Next++
	s.previous = b.Hash
	p.ready = append(p.ready, m)
	if s.ended != nil {
		s.ended.RootHash, s.ended.Recording = b.Hash.String(), s.Next
		body, err := json.Marshal(s.ended)
		if err != nil {
			return fmt.Errorf("session %s: %w", s.Session, err)
		}
		p.emit(s, event.TypeSessionEnded, s.Session+"/ended", s.Revision, p.endTime(b), body, s.at, s.since)
	}
	last := &p.ready[len(p.ready)-1]
	last.stream, last.state = s, s.snapshot()
	s.raw, s.count = s.raw[:0], 0
	if cap(s.raw) > 4*blockBytes {
		s.raw = nil
	}
	return nil
}

// endTime is the time of a block's last frame.
func (p *publisher) endTime(b *recording.Block) int64 {
	var at int64
	for f, err := range b.Frames() {
		if err == nil {
			at = f.Time
		}
	}
	return at
}

// unsynced says whether blocks wait for their seals to be on the disk.
func (p *publisher) unsynced() bool { return p.sealed > p.j.log.Synced() }

// syncSeals makes the blocks that were sealed ready to be sent.
func (p *publisher) syncSeals() error {
	err := p.j.log.SyncTo(p.sealed)
	if noSpace(err) {
		p.stalled = true
		p.syncAt = time.Now().Add(sealWait)
		return nil
	}
	return err
}

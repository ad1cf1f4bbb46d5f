package journal

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"chaperone.dev/chaperone/internal/journal/wal"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
)

// digest puts a frame into the block, and derives its event.
func (p *publisher) digest(s *stream, f frame, at, next wal.LSN, now time.Time) error {
	direction := recording.DirectionNone
	switch f.Kind {
	case recording.KindCommand:
		direction = recording.ToTarget
	case recording.KindOutcome:
		direction = recording.ToClient
	}
	if err := s.add(f.Kind, direction, f.Time, f.Payload, at, next, now); err != nil {
		return err
	}
	switch f.Kind {
	case recording.KindSessionStarted:
		s.Revision = s.revisionIn(f.Payload)
		p.emit(s, event.TypeSessionStarted, s.Session+"/started", s.Revision, f.Time, f.Payload, at, now)
	case recording.KindCommand:
		s.Commands++
		body := f.Payload
		if f.Flags&flagLong != 0 {
			body = shorten(body, f.Flags&flagDone != 0)
		}
		s.Revision = s.revisionIn(body)
		if f.Flags&flagDone != 0 {
			s.Denied++
			p.emit(s, event.TypeCommand, commandID(s.Session, f.Seq), s.Revision, f.Time, body, at, now)
			break
		}
		s.begin(f.Seq, body)
	case recording.KindOutcome:
		s.Rows += f.Rows
		body, ok := event.JoinJSON(p.event[:0], s.open[f.Seq], f.Payload)
		if !ok {
			p.j.opts.Log.Error().Str("session", s.Session).Uint64("seq", f.Seq).Msg("the journal holds the outcome of a command that it never saw; its event is left out")
			break
		}
		p.event = body
		revision := s.revisionIn(s.open[f.Seq])
		s.over(f.Seq)
		p.emit(s, event.TypeCommand, commandID(s.Session, f.Seq), revision, f.Time, body, at, now)
	case recording.KindMaskApplied:
		// The command's, where it is still under way, else the last one.
		p.emit(s, event.TypeMaskApplied, s.Session+"/mask/"+strconv.FormatUint(s.Frames, 10), s.revisionIn(s.open[f.Seq]), f.Time, f.Payload, at, now)
	case recording.KindSessionEnded:
		s.ended = new(event.SessionEnded)
		if err := json.Unmarshal(f.Payload, s.ended); err != nil {
			return fmt.Errorf("%w: end of session %s: %w", errRecord, s.Session, err)
		}
	}
	return nil
}

func commandID(session string, seq uint64) string {
	return session + "/" + strconv.FormatUint(seq, 10)
}

// shorten cuts a command's texts to what an event carries.
func shorten(body []byte, done bool) []byte {
	var c event.Command
	if json.Unmarshal(body, &c) != nil {
		return body
	}
	cutText(&c, event.MaxText)
	cutNames(&c)
	if done {
		return c.AppendJSON(nil)
	}
	return c.AppendRequestJSON(nil)
}

// emit makes an event's message of a payload, which it copies.
func (p *publisher) emit(s *stream, t event.Type, id, revision string, at int64, payload []byte, pos wal.LSN, now time.Time) {
	o := event.Origin{Cluster: p.j.opts.Cluster, Node: p.j.opts.Node, Target: s.Target, Subject: s.Subject, Revision: revision}
	if o.Subject == "" {
		o.Subject = s.Session
	}
	e := event.Envelope(id, o, time.Unix(0, at), t, payload)
	body := e.AppendJSON(make([]byte, 0, len(payload)+432))
	p.ready = append(p.ready, message{subject: event.Subject(o, t), id: id, body: body, at: pos, since: now})
}

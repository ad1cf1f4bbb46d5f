package journal

import (
	"errors"
	"time"

	"chaperone.dev/chaperone/internal/journal/wal"
)

// mark is a checkpoint that waits until it is old enough to be believed.
type mark struct {
	checkpoint
	taken time.Time
}

// checkpoint notes how far everything is acknowledged, and writes and applies
// the newest note that is old enough.
func (p *publisher) checkpoint(now time.Time, keep time.Duration) error {
	c := checkpoint{From: uint64(p.pos)}
	p.out.each(func(m *message) { c.From = min(c.From, uint64(m.at)) })
	for _, s := range p.streams {
		if s.count > 0 {
			c.From = min(c.From, uint64(s.at))
		}
	}
	for id, s := range p.streams {
		switch {
		case s.durable == nil:
		case s.durable.Over && s.durable.UpTo <= c.From:
			delete(p.streams, id) // nothing of it is read again
		default:
			c.Sessions = append(c.Sessions, *s.durable)
		}
	}
	if p.activity != p.marked {
		p.marks = append(p.marks, mark{c, now})
		p.marked = p.activity
	}
	due := -1
	for i, m := range p.marks {
		if now.Sub(m.taken) >= max(0, keep) {
			due = i
		}
	}
	if due < 0 {
		return nil
	}
	return p.apply(p.marks[due], due)
}

// apply writes a checkpoint and removes what is before it.
func (p *publisher) apply(m mark, due int) error {
	rec, err := encodeJSON(recCheckpoint, m.checkpoint)
	if err != nil {
		return err
	}
	_, err = p.j.append(rec, classControl, true)
	if err == nil {
		err = p.j.log.Sync()
	}
	switch {
	case noSpace(err), errors.Is(err, wal.ErrTooLarge):
		p.j.opts.Log.Error().Err(err).Msg("the journal's checkpoint could not be written; the one before still holds")
		return nil
	case err != nil:
		return err
	}
	p.marks = p.marks[due+1:]
	if err := p.j.log.Trim(wal.LSN(m.From)); err != nil {
		return err
	}
	first, _ := p.j.log.Bounds()
	p.j.first.Store(uint64(first))
	return nil
}

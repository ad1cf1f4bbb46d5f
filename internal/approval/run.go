package approval

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/event"
	"github.com/nats-io/nats.go/jetstream"
)

// digest names a vote that was looked at.
type digest [16]byte

// maxSeen bounds the votes on one request that are looked at.
const maxSeen = 4 * maxVotes

// send puts a new request where people can see it, and tells of it. A request
// that can't be put there is cancelled: it must not be answered later.
func (b *Broker) send(ctx context.Context, e *entry) error {
	b.mu.Lock()
	rec := e.record
	b.mu.Unlock()
	err := b.put(ctx, rec)
	b.mu.Lock()
	defer b.unlock()
	defer close(e.stored)
	if err != nil {
		e.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		b.cancel(e, "the request could not be stored")
		return e.err
	}
	if e.sent = true; e.record.State != rec.State {
		b.mark(e) // it was decided, or is over, in the meantime
	}
	r := rec.Request
	b.tell(r, &event.ApprovalRequested{
		Request: r.ID, About: r.About, Session: r.Session, Principal: r.Principal, Workload: r.Workload, Target: r.Target.Name,
		Text: r.Text, Parameters: r.Parameters, Parsed: r.Parsed, Digest: r.Digest, Policy: r.Policy, Rule: r.Rule, Why: r.Why,
		Groups: r.From.Groups, Subjects: r.From.Subjects, Count: r.Count, Mode: r.Mode, Expires: r.Expires,
	})
	return nil
}

// put writes a record to the bucket.
func (b *Broker) put(ctx context.Context, rec Record) error {
	ctx, cancel := context.WithTimeout(ctx, putWait)
	defer cancel()
	value, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("request %s: %w", rec.Request.ID, err)
	}
	kv, err := b.opts.KV.KV(ctx)
	if err != nil {
		return err
	}
	if _, err := kv.Put(ctx, RecordKey(rec.Request.Cluster, rec.Request.Node, rec.Request.ID), value); err != nil {
		return fmt.Errorf("storing request %s: %w", rec.Request.ID, err)
	}
	return nil
}

// follow hears votes.
func (b *Broker) follow(ctx context.Context) {
	b.opts.KV.Follow(ctx, votesOf(b.opts.Cluster, b.opts.Node), bus.Follower{
		Value: func(v jetstream.KeyValueEntry) {
			if v.Operation() == jetstream.KeyValuePut {
				b.voted(v.Key(), v.Value())
			}
		},
		Current: b.putBack,
		Lost: func(err error) {
			b.opts.Log.Warn().Err(err).Msg("answers to requests for approval can't be heard for now")
		},
	})
}

// voted looks at the votes under a key.
func (b *Broker) voted(key string, value []byte) {
	b.mu.Lock()
	defer b.unlock()
	id := key[strings.LastIndexByte(key, '.')+1:]
	e := b.all[id]
	if e == nil {
		b.opts.Log.Debug().Str("request", id).Msg("votes on a request that is not known any more")
		return
	}
	votes, err := DecodeVotes(value)
	if err != nil {
		if b.look(e, value) {
			b.reject(e, nil, fmt.Errorf("%w: %w", errUnreadable, err))
		}
		return
	}
	fresh, before := false, e.record.State
	for _, s := range votes {
		if !b.look(e, []byte(s.Key), s.Signature, s.Payload) {
			continue
		}
		fresh = true
		if err := b.count(e, s); err != nil {
			b.reject(e, s.Payload, err)
		}
	}
	b.decide(e)
	if fresh && e.record.State == before {
		b.keep(e)
	}
}

// look tells whether the vote is to be looked at: each is once.
func (b *Broker) look(e *entry, parts ...[]byte) bool {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d ", len(p))
		h.Write(p)
	}
	d := digest(h.Sum(nil)[:16])
	if e.seen[d] {
		return false
	}
	if len(e.seen) >= maxSeen {
		b.opts.Log.Warn().Str("request", e.record.Request.ID).Msg("too many votes on one request: no more are looked at")
		return false
	}
	e.seen[d] = true
	return true
}

// count adds the vote to those that count, or tells why it doesn't.
func (b *Broker) count(e *entry, s authority.Signed) error {
	var v Vote
	if err := b.opts.Keys.Verify(SignedVote, s, &v); err != nil {
		return err
	}
	r := e.record.Request
	if err := check(r, v, b.opts.Clock.Latest()); err != nil {
		return err
	}
	// Who is asked only after a while is asked when the node's clock says so too.
	if err := MayAnswer(r, v.By, b.opts.Clock.Earliest()); err != nil {
		return err
	}
	switch e.record.State {
	case StatePending:
	case StateUsed:
		return fmt.Errorf("the request was approved, and used: %w", errReplayed)
	default:
		return fmt.Errorf("it is %s: %w", e.record.State, ErrOver)
	}
	if slices.ContainsFunc(e.cast, func(o Vote) bool { return o.By.same(v.By) }) {
		return ErrVoted
	}
	if len(e.cast) >= maxVotes {
		return fmt.Errorf("there are %d votes already: %w", len(e.cast), ErrOver)
	}
	e.votes, e.cast = append(e.votes, s), append(e.cast, v)
	return nil
}

// reject tells of a vote that doesn't count.
func (b *Broker) reject(e *entry, payload []byte, err error) {
	data := event.ApprovalRejected{Request: e.record.Request.ID, Reason: reason(err), Message: err.Error()}
	var said struct{ By Person }
	if json.Unmarshal(payload, &said) == nil && said.By.Subject != "" {
		p := said.By.eventPrincipal()
		p.Subject, p.Issuer, p.Groups = p.Subject[:min(len(p.Subject), 256)], p.Issuer[:min(len(p.Issuer), 256)], nil
		data.By = &p
	}
	b.opts.Log.Warn().Str("request", data.Request).Str("reason", data.Reason).Err(err).Msg("an answer does not count")
	b.tell(e.record.Request, &data)
}

// putBack writes all that is not over to the bucket once more. It is called
// when the bucket is there again, and may be another one.
func (b *Broker) putBack() {
	b.mu.Lock()
	defer b.unlock()
	for _, e := range b.all {
		if s := e.record.State; s == StatePending || s == StateApproved {
			b.mark(e)
		}
	}
}

// flush writes records to the bucket when they changed.
func (b *Broker) flush(ctx context.Context) {
	again := time.NewTicker(2 * time.Second) // for what could not be written
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.dirty:
		case <-again.C:
		}
		b.flushOnce(ctx)
	}
}

func (b *Broker) flushOnce(ctx context.Context) {
	for {
		rec, e := b.unsent()
		if e == nil {
			return
		}
		err := b.put(ctx, rec)
		b.mu.Lock()
		if err == nil && e.record.State == rec.State {
			e.sent = true
		}
		b.mu.Unlock()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
				b.opts.Log.Debug().Err(err).Msg("the state of a request is not in the bucket yet")
			}
			return
		}
	}
}

// unsent returns a record that the bucket doesn't have. What is not stored for the first
// time yet is who made it's to write, so that the two can't come in the wrong order.
func (b *Broker) unsent() (Record, *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.all {
		if e.sent {
			continue
		}
		select {
		case <-e.stored:
			return e.record, e
		default:
		}
	}
	return Record{}, nil
}

// expire ends what is over. It looks often rather than computes when, for the clock
// may be set.
func (b *Broker) expire(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.expireOnce()
		}
	}
}

func (b *Broker) expireOnce() {
	b.mu.Lock()
	defer b.unlock()
	now := b.opts.Clock.Latest()
	var gone []*entry
	for _, e := range b.all {
		b.timeOut(e, now)
		if !e.grant.IsZero() && !now.Before(e.grant) {
			b.revoke(e)
		}
		if e.over && e.sent && !now.Before(e.record.Request.Expires) {
			gone = append(gone, e)
		}
	}
	b.forget(gone...)
	b.over = slices.DeleteFunc(b.over, func(e *entry) bool { return b.all[e.record.Request.ID] != e })
	for job, budget := range b.budgets {
		if budget.fill(time.Now()); budget.left >= budget.most {
			delete(b.budgets, job)
		}
	}
}

// cancelHeld cancels what somebody waits for in this process.
func (b *Broker) cancelHeld(message string) {
	b.mu.Lock()
	defer b.unlock()
	for _, e := range b.all {
		if !e.record.Request.retried() {
			b.cancel(e, message)
		}
	}
}

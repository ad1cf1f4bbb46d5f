package approval

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"chaperone.dev/chaperone/pkg/event"
)

// The methods of this file hold b.mu.

// add makes an entry of the request, and keeps it on the disk.
func (b *Broker) add(r Request, kind string) (*entry, error) {
	if b.closed {
		return nil, fmt.Errorf("%w: the node is stopping", ErrUnavailable)
	}
	ofJob := 0
	for _, e := range b.all {
		if e.record.State == StatePending && e.record.Request.Workload.Job == r.Workload.Job {
			ofJob++
		}
	}
	switch {
	case b.pending >= b.opts.MaxPending:
		return nil, fmt.Errorf("%w: %d on this node", ErrBusy, b.pending)
	case ofJob >= b.opts.MaxPerJob:
		return nil, fmt.Errorf("%w: %d of this job", ErrBusy, ofJob)
	case !b.budget(r.Workload.Job).spend(time.Now()):
		return nil, fmt.Errorf("%w: this job asks faster than people decide", ErrBusy)
	}
	e := &entry{
		record: Record{Request: r, State: StatePending, Changed: r.Created}, kind: kind, seen: map[digest]bool{},
		stored: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := b.disk.put(e, b.opts.Clock.Latest()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	b.all[r.ID] = e
	b.pending++
	if r.retried() {
		b.retries[retryKey(r)] = e
	}
	return e, nil
}

// standing answers from an answer that stands.
func (b *Broker) standing(r Request, kind string) (Answer, bool) {
	if kind == "" {
		return Answer{}, false
	}
	e := b.grants[grantKey(r, kind)]
	if e == nil {
		return Answer{}, false
	}
	if !b.opts.Clock.Latest().Before(e.grant) {
		b.revoke(e)
		return Answer{}, false
	}
	return Answer{State: StateApproved, Request: e.record.Request.ID, By: e.record.By, Expires: e.grant, Standing: true}, true
}

// revoke ends an answer that stands.
func (b *Broker) revoke(e *entry) {
	key := grantKey(e.record.Request, e.kind)
	if b.grants[key] == e {
		delete(b.grants, key)
	}
	e.grant = time.Time{}
	b.keep(e)
}

// use marks an approved request as used: on the disk, or not at all.
func (b *Broker) use(e *entry) error {
	before := e.record
	e.record.State, e.record.Changed = StateUsed, b.opts.Clock.Latest().UTC()
	if err := b.disk.put(e, b.opts.Clock.Latest()); err != nil {
		e.record = before
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	b.finish(e)
	return nil
}

// decide settles the request when the votes do.
func (b *Broker) decide(e *entry) {
	if e.record.State != StatePending {
		return
	}
	now := b.opts.Clock.Latest()
	state, by := Decide(e.record.Request, e.cast, now)
	if state != StateApproved && state != StateDenied {
		return
	}
	r := e.record.Request
	before := e.record
	e.record.State, e.record.By, e.record.Changed = state, by, now.UTC()
	for _, v := range e.cast {
		if v.Verdict == No && by[0].same(v.By) {
			e.record.Message = v.Reason
		}
	}
	if state == StateApproved {
		e.grant = b.granted(e, now)
		if !r.retried() {
			e.record.State = StateUsed // Hold returns it, once
		}
	}
	if err := b.disk.put(e, now); err != nil {
		b.opts.Log.Error().Err(err).Str("request", r.ID).Msg("a decision can't be kept, so it does not count")
		e.record, e.grant = before, time.Time{}
		b.cancel(e, "the decision could not be kept on the node's disk")
		return
	}
	b.pending--
	b.budget(r.Workload.Job).refund()
	if !e.grant.IsZero() {
		b.grants[grantKey(r, e.kind)] = e
	}
	decided := event.ApprovalDecided{Request: r.ID, Session: r.Session, Outcome: string(state), Digest: r.Digest}
	for i, v := range e.cast {
		decided.Votes = append(decided.Votes, event.ApprovalVote{
			By: v.By.eventPrincipal(), IssuerURL: v.By.IssuerURL, Name: v.By.Name, Via: v.Via, Verdict: string(v.Verdict), Reason: v.Reason, Standing: v.Standing,
			At: v.At, Until: v.Until, Key: e.votes[i].Key, Signature: e.votes[i].Signature,
		})
	}
	b.tell(r, &decided)
	if r.retried() {
		b.mark(e) // approved it waits to be run, denied it says so
		return
	}
	b.finish(e)
}

// granted tells until when the answer stands: as long as everybody who said yes
// lets it.
func (b *Broker) granted(e *entry, now time.Time) time.Time {
	if e.kind == "" {
		return time.Time{}
	}
	until := now.Add(e.record.Request.Standing)
	for _, v := range e.cast {
		if end := v.At.Add(v.Standing); end.Before(until) {
			until = end
		}
		if v.Standing <= 0 {
			return time.Time{}
		}
	}
	if !until.After(now) {
		return time.Time{}
	}
	return until.UTC()
}

// cancel ends a request that nobody waits for any more. One that is over already
// stays as it is.
func (b *Broker) cancel(e *entry, message string) {
	b.end(e, StateCancelled, message)
}

// timeOut ends a request whose time is over.
func (b *Broker) timeOut(e *entry, now time.Time) {
	if now.Before(e.record.Request.Expires) {
		return
	}
	switch e.record.State {
	case StatePending:
		b.end(e, StateExpired, "nobody decided in time")
	case StateApproved:
		b.end(e, StateExpired, "approved, and not run in time")
	case StateDenied:
		if b.retries[retryKey(e.record.Request)] == e {
			b.finish(e)
		}
	}
}

func (b *Broker) end(e *entry, state State, message string) {
	switch e.record.State {
	case StatePending:
		b.pending--
	case StateApproved:
	default:
		return
	}
	e.record.State, e.record.Message, e.record.Changed = state, message, b.opts.Clock.Latest().UTC()
	e.shorten()
	r := e.record.Request
	b.keep(e)
	b.tell(r, &event.ApprovalExpired{Request: r.ID, Session: r.Session, Outcome: string(state), Message: message})
	b.finish(e)
}

// shorten drops most of what was asked: people decide it no more, and whoever
// makes requests that nobody decides must not fill the bucket.
func (e *entry) shorten() {
	const limit = 1 << 10
	r := &e.record.Request
	if len(r.Text) > limit {
		r.Text, r.Cut = strings.ToValidUTF8(r.Text[:limit], ""), true
	}
	r.Parameters, r.Parsed = nil, event.Parsed{ReadOnly: r.Parsed.ReadOnly, DDL: r.Parsed.DDL}
}

// finish takes the entry out of what can still be used, and remembers it for
// votes that come later.
func (b *Broker) finish(e *entry) {
	if key := retryKey(e.record.Request); b.retries[key] == e {
		delete(b.retries, key)
	}
	b.mark(e)
	e.over = true
	b.over = append(b.over, e)
	if len(b.over) > maxOver {
		b.forget(b.over[0]) // one whose answer stands is forgotten when that ends
		b.over = slices.Delete(b.over, 0, 1)
	}
	b.outbox = append(b.outbox, func() { close(e.ended) })
}

// forget drops entries that are over, but for those of which an answer stands.
func (b *Broker) forget(entries ...*entry) {
	var ids []string
	for _, e := range entries {
		if id := e.record.Request.ID; e.grant.IsZero() {
			delete(b.all, id)
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	if err := b.disk.remove(ids...); err != nil {
		b.opts.Log.Error().Err(err).Int("requests", len(ids)).Msg("requests that are over stay on the disk")
	}
}

// keep writes what only narrows what may run: when that fails, the entry in
// memory holds, and after a restart its end or its votes decide.
func (b *Broker) keep(e *entry) {
	if err := b.disk.put(e, b.opts.Clock.Latest()); err != nil {
		b.opts.Log.Error().Err(err).Str("request", e.record.Request.ID).Msg("the state of a request can't be kept")
	}
}

// mark has the record written to the bucket.
func (b *Broker) mark(e *entry) {
	e.sent = false
	select {
	case b.dirty <- struct{}{}:
	default: // it is to be looked at already
	}
}

// tell publishes an event when mu is free.
func (b *Broker) tell(r Request, data event.Data) {
	subject := r.Session
	if subject == "" {
		subject = r.Workload.Job
	}
	b.outbox = append(b.outbox, func() { b.opts.Publish(r.Target.Name, subject, data) })
}

func (p Person) eventPrincipal() event.Principal {
	return event.Principal{Subject: p.Subject, Issuer: p.Issuer, Groups: p.Groups}
}

// retryKey and grantKey tell which questions are the same one. How it is asked
// is part of it: what was approved under one rule is not approved under a
// stricter one of the same name.
func retryKey(r Request) string              { return sameKey(r, "digest", r.Digest) }
func grantKey(r Request, kind string) string { return sameKey(r, "kind", kind) }

func sameKey(r Request, what, value string) string {
	// Encoding strings, numbers and lists of them never fails.
	key, _ := json.Marshal([]any{
		what, value, r.Workload.Job, r.Principal.Subject, r.Principal.Issuer, r.Target.Name, r.Target.Database,
		r.About, r.Policy, r.Rule, r.When, r.From, r.Escalate, r.Count, r.Standing,
	})
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// budget bounds how fast a job makes requests that people do not decide.
type budget struct {
	left, most float64
	at         time.Time
}

const (
	budgetPerPending = 4                // requests at once, for each that may wait
	budgetRefill     = 30 * time.Second // for one more
)

func (b *Broker) budget(job string) *budget {
	if b.budgets[job] == nil {
		most := float64(budgetPerPending * b.opts.MaxPerJob)
		b.budgets[job] = &budget{left: most, most: most, at: time.Now()}
	}
	return b.budgets[job]
}

func (b *budget) fill(now time.Time) {
	b.left = min(b.most, b.left+float64(now.Sub(b.at))/float64(budgetRefill))
	b.at = now
}

func (b *budget) spend(now time.Time) bool {
	b.fill(now)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (b *budget) refund() { b.left = min(b.most, b.left+1) }

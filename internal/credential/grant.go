package credential

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"chaperone.dev/chaperone/pkg/event"
)

// grant is one account from its order to its end. Its keeper, a goroutine of
// its own, makes it, renews it and hands it to the revoker.
type grant struct {
	key   key
	spec  string // the credential part of the target's document, to notice a change
	order Order

	alive  context.Context // ends when the grant is retired; the cause is a retirement
	cancel context.CancelCauseFunc
	moved  chan struct{} // deadline has changed; holds one

	ready  chan struct{} // closed when it can be used, or err is set
	err    error
	entry  Entry // its expiry is the keeper's alone
	issuer Issuer
	ttl    time.Duration

	refreshing sync.Mutex // held to change secret, which is the keeper's until ready
	secret     Secret

	sessions sessions

	// Under Manager.mu.
	deadline time.Time // zero: none
	expires  time.Time // zero until ready

	over    chan struct{} // closed when it was revoked, or a first attempt at that failed
	outcome error
}

// retirement is why a grant ends.
type retirement struct {
	why string // for the event
	err error  // for who waits for the grant
}

func (r *retirement) Error() string { return r.err.Error() }
func (r *retirement) Unwrap() error { return r.err }

func newGrant(life context.Context, k key, spec string, deadline time.Time, order Order) *grant {
	g := &grant{
		key: k, spec: spec, order: order, deadline: deadline,
		moved: make(chan struct{}, 1), ready: make(chan struct{}), over: make(chan struct{}),
	}
	g.alive, g.cancel = context.WithCancelCause(life)
	return g
}

// isReady is called under Manager.mu.
func (g *grant) isReady() bool { return !g.expires.IsZero() }

// extend moves the deadline to a later one. It is called under Manager.mu.
func (g *grant) extend(deadline time.Time) {
	if g.deadline.IsZero() || (!deadline.IsZero() && !deadline.After(g.deadline)) {
		return
	}
	g.deadline = deadline
	select {
	case g.moved <- struct{}{}:
	default:
	}
}

// retire ends a grant: no request finds it any more, and its keeper revokes
// it. It is called under m.mu.
func (m *Manager) retire(g *grant, r *retirement) {
	if m.grants[g.key] == g {
		delete(m.grants, g.key)
	}
	delete(m.inherited, g)
	g.cancel(r) // the first one counts
}

// keep is the life of a grant.
func (m *Manager) keep(g *grant, issuer Issuer) {
	defer close(g.over)
	g.issuer = issuer
	entry, ok := m.issue(g, issuer)
	if !ok {
		return
	}
	if g.err == nil {
		m.renew(g, issuer)
	}
	m.revoke(g, entry)
}

// revoke ends a grant that is retired.
func (m *Manager) revoke(g *grant, entry Entry) {
	entry.Backends = g.sessions.left()
	t := m.revoker.add(entry, g.why())
	select {
	case <-t.first:
		g.outcome = t.err
	case <-m.life.Done():
		g.outcome = ErrClosed
	}
}

// why says why a retired grant ended.
func (g *grant) why() string {
	var r *retirement
	if errors.As(context.Cause(g.alive), &r) {
		return r.why
	}
	return WhyShutdown
}

// issue makes the account. The result is false when nothing was made and so
// nothing needs to be revoked.
func (m *Manager) issue(g *grant, issuer Issuer) (Entry, bool) {
	m.using.RLock()
	defer m.using.RUnlock()
	entry, made, err := Entry{}, false, ErrSuspended
	if m.resumed == nil {
		entry, made, err = m.make(g, issuer)
	}
	if err != nil {
		m.options.Log.Warn().Err(err).Str("job", g.key.job).Str("target", g.key.target).
			Str("account", entry.Account.Name).Msg("a credential can't be issued")
		m.mu.Lock()
		m.retire(g, &retirement{WhyIssueFailed, err})
		m.mu.Unlock()
		g.err = context.Cause(g.alive)
		close(g.ready)
		return entry, made
	}
	m.options.OnIssued(event.CredentialIssued{
		Grant: entry.ID, Issuer: entry.Kind, Name: entry.Account.Name,
		Target: entry.Target, Job: entry.Job, Expires: entry.Expires,
	})
	g.entry = entry
	m.mu.Lock()
	g.expires = entry.Expires
	m.mu.Unlock()
	close(g.ready)
	return entry, true
}

// make writes the entry, then has the account made. made is true as soon as
// there may be one.
func (m *Manager) make(g *grant, issuer Issuer) (entry Entry, made bool, err error) {
	plan, err := issuer.Plan(g.order)
	if err != nil {
		return Entry{}, false, err
	}
	if plan.TTL <= 0 {
		return Entry{}, false, fmt.Errorf("an account can't live for %s", plan.TTL)
	}
	g.ttl = plan.TTL
	m.mu.Lock()
	deadline := g.deadline
	m.mu.Unlock()
	now := time.Now()
	entry = Entry{
		ID: g.order.Grant, Kind: issuer.Kind(), Account: plan.Account, Target: g.key.target, Job: g.key.job,
		Created: now, Expires: earliest(now.Add(plan.TTL), deadline), State: StateIssuing,
		TTL: plan.TTL, Deadline: deadline,
	}
	if err := m.ledger.Put(entry); err != nil {
		return entry, false, err
	}
	ctx, cancel := context.WithTimeout(g.alive, m.options.IssueTimeout)
	defer cancel()
	g.secret, err = issuer.Issue(ctx, entry, g.order)
	if errors.Is(err, ErrNotMade) {
		return entry, false, errors.Join(err, m.ledger.Delete(entry.ID))
	}
	if err != nil {
		return entry, true, err
	}
	entry.State = StateIssued
	return entry, true, m.ledger.Put(entry)
}

// renew extends the account's life for as long as the grant lives. It returns
// when the grant is retired, which it does itself at the deadline.
func (m *Manager) renew(g *grant, issuer Issuer) {
	expires := g.entry.Expires
	attempt := expires.Add(-g.ttl / 2)
	for {
		m.mu.Lock()
		g.expires = expires
		deadline := g.deadline
		m.mu.Unlock()
		final := !deadline.IsZero() && !deadline.After(expires) // nothing left to renew for
		due := attempt
		if final || due.After(expires) {
			due = expires
		}
		timer := time.NewTimer(time.Until(due))
		select {
		case <-g.alive.Done():
			timer.Stop()
			return
		case <-g.moved:
			timer.Stop()
			continue
		case <-timer.C:
		}
		now := time.Now()
		if !now.Before(expires) {
			m.mu.Lock()
			m.retire(g, &retirement{WhyExpired, ErrExpired})
			m.mu.Unlock()
			return
		}
		if final {
			continue
		}
		until := earliest(now.Add(g.ttl), deadline)
		resumed, err := m.extend(g, issuer, until, deadline)
		switch {
		case resumed != nil:
			select {
			case <-g.alive.Done():
				return
			case <-resumed:
			}
		case err == nil:
			expires, attempt = until, until.Add(-g.ttl/2)
		case errors.Is(err, ErrGone):
			m.mu.Lock()
			m.retire(g, &retirement{WhyGone, err})
			m.mu.Unlock()
			return
		default:
			m.options.Log.Warn().Err(err).Str("job", g.key.job).Str("target", g.key.target).
				Str("account", g.entry.Account.Name).Time("expires", expires).Msg("a credential can't be renewed")
			// Sooner and sooner as the end comes near, but not in a spin.
			attempt = now.Add(max(time.Until(expires)/2, m.options.RetryMin))
		}
	}
}

// extend renews the account at the target, and then its entry. While the manager is
// suspended it does nothing, and returns what is closed when that is over.
func (m *Manager) extend(g *grant, issuer Issuer, until, deadline time.Time) (resumed <-chan struct{}, err error) {
	m.using.RLock()
	defer m.using.RUnlock()
	if m.resumed != nil {
		return m.resumed, nil
	}
	ctx, cancel := context.WithTimeout(g.alive, m.options.IssueTimeout)
	defer cancel()
	if err := issuer.Renew(ctx, g.entry, until); err != nil {
		return nil, err
	}
	g.entry.Expires, g.entry.Deadline = until, deadline
	return nil, m.ledger.Put(g.entry)
}

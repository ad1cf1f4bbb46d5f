package node

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/internal/session"
	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/event"
)

// people are how a node hears what people say: their approvals and their locks.
type people struct {
	broker *approval.Broker
	locks  *lock.Keeper
	closed bool // of the node's main goroutine
}

// openPeople reads back what people said to the daemon before this one. It comes
// before anything is served: locks hold from the first connection on.
func (n *node) openPeople() error {
	buckets := bus.BucketsOf(n.events.js)
	broker, err := approval.Open(approval.Options{
		KV: buckets.Approvals, Keys: n.authorities, Cluster: n.origin.Cluster, Node: n.origin.Node, Clock: n.clock,
		Dir: filepath.Join(n.opts.State, "approvals"), Publish: n.publish,
		MaxPending: n.spec.Limits.Approvals, MaxPerJob: n.spec.Limits.ApprovalsPerJob, Log: n.log,
	})
	if err != nil {
		return err
	}
	locks, err := lock.Open(lock.Options{
		KV: buckets.Locks, Keys: n.authorities, Clock: n.clock, Dir: filepath.Join(n.opts.State, "locks"),
		Applied: n.lockApplied, Ended: n.lockEnded, Log: n.log,
	})
	if err != nil {
		return errors.Join(err, broker.Close())
	}
	n.people.Store(&people{broker: broker, locks: locks})
	return nil
}

// closePeople lets go of the state, for the next daemon. What was held is
// cancelled; locks stay in force.
func (n *node) closePeople() error {
	p := n.people.Load()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.broker.Close()
}

// mayAsk says who is at the other end of the sink's socket. A planner is refused,
// whoever it runs as: it would answer for itself.
func (n *node) mayAsk(ctx context.Context) (uint32, error) {
	peer, err := sink.PeerOf(ctx)
	if err != nil {
		return 0, err
	}
	inside, err := workload.Inside(int(peer.PID), n.interceptor.Ancestor())
	if err == nil && inside {
		err = errors.New("a planner's process may not ask here")
	}
	return peer.UID, err
}

// Hold implements [session.Approvals].
func (n *node) Hold(ctx context.Context, q approval.Question, waiting func(approval.Request)) (approval.Answer, error) {
	return n.people.Load().broker.Hold(ctx, q, waiting)
}

// Retry implements [session.Approvals].
func (n *node) Retry(ctx context.Context, q approval.Question) (approval.Answer, error) {
	return n.people.Load().broker.Retry(ctx, q)
}

// Match implements [session.Locks].
func (n *node) Match(facts lock.Facts) (lock.Lock, bool) { return n.people.Load().locks.Match(facts) }

// lockApplied cuts what a lock is for: sessions first, which takes no time, then
// credentials, which their targets have to confirm.
func (n *node) lockApplied(ctx context.Context, l lock.Lock) {
	applied := event.LockApplied{
		Lock: l.ID, Principal: l.Principal, Workload: l.Workload, Target: l.Target, Session: l.Session,
		Reason: l.Reason, By: eventPrincipal(l.By), Expires: l.Expires,
	}
	applied.Cut = n.sessions.End(l.Matches, session.Locked(l))
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var err error
	// The account of a session alone goes on to be its job's. Those of a node that has
	// handed over are the other daemon's to revoke.
	if l.Session == "" && !n.released.Load() {
		applied.Revoked, err = n.credentials.Revoke(ctx, credential.WhyLocked, n.lockedGrants(l))
	}
	if err != nil {
		n.log.Warn().Err(err).Str("lock", l.ID).Msg("a credential is not revoked yet; it is tried again")
	}
	n.log.Warn().Str("lock", l.ID).Int("cut", applied.Cut).Int("revoked", applied.Revoked).Stringer("by", l.By).Msg("lock in force")
	n.publish(l.Target, l.ID, applied)
}

// lockedGrants selects the credentials that a lock is for.
func (n *node) lockedGrants(l lock.Lock) func(job, target string) bool {
	facts := map[string]lock.Facts{}
	for _, job := range n.jobs().Jobs() {
		facts[job.ID] = lock.Facts{
			Principal: job.Principal.Subject + "@" + job.Principal.Issuer,
			Workload:  []string{job.Name, job.ID, job.Workload},
		}
	}
	return func(job, target string) bool {
		f, ok := facts[job]
		f.Target = target
		return ok && l.Matches(f)
	}
}

func (n *node) lockEnded(l lock.Lock, why string, by *approval.Person) {
	ended := event.LockEnded{Lock: l.ID, Reason: why}
	if by != nil {
		p := eventPrincipal(*by)
		ended.By = &p
	}
	n.log.Info().Str("lock", l.ID).Str("why", why).Msg("lock ended")
	n.publish(l.Target, l.ID, ended)
}

func eventPrincipal(p approval.Person) event.Principal {
	return event.Principal{Subject: p.Subject, Issuer: p.Issuer, Groups: slices.Clone(p.Groups)}
}

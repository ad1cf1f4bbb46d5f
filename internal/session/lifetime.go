package session

import (
	"context"
	"fmt"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// How sessions end before their clients end them: by the time that policy gives
// them, with the identity of their job, and by a lock.

// bounded is ctx with the end of the time that policy gives the session.
func (c *connection) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	most := time.Duration(c.bound.Session().MaxDuration)
	if most <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, most, maxDuration().refusal(c.bound, "57P01", "policy ends sessions like this one after %s", most))
}

// whileIdentified ends the session when the identity of its job has expired and
// was not renewed, until stop is called.
func (c *connection) whileIdentified() (stop func()) {
	w := &identityWatch{connection: c}
	w.look(c.job.Principal.Expires)
	return w.stop
}

type identityWatch struct {
	connection *connection

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// look waits for the time at which the identity expires, and then looks again: it
// may have been renewed.
func (w *identityWatch) look(expires time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || expires.IsZero() {
		return
	}
	left := expires.Sub(w.connection.server.opts.Clock.Latest())
	if left <= 0 {
		w.connection.end(identityExpired())
		return
	}
	w.timer = time.AfterFunc(left, func() {
		job, ok := w.connection.server.opts.Jobs.ByCgroup(w.connection.origin.Workload)
		if ok {
			expires = job.Principal.Expires
		}
		w.look(expires)
	})
}

func (w *identityWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

func identityExpired() *postgres.Refusal {
	return &postgres.Refusal{
		Reason: event.ReasonNoIdentity, SQLState: "57P01", Message: "the identity of this session's job has expired",
		Hint: "See to it that its token is renewed.",
	}
}

// atAllTimes decides by the clock. While the clock was moved, it decides by the
// time without the move as well, and the stricter decision counts.
func (s *Server) atAllTimes(decide func(now time.Time) policy.Decision) policy.Decision {
	now := s.opts.Clock.Now()
	decision := decide(now)
	by, moved := s.opts.Clock.Moved()
	if !moved {
		return decision
	}
	other := decide(now.Add(-by))
	if strictness(other.Action) > strictness(decision.Action) {
		decision = other
	}
	decision.Lasting = false
	return decision
}

func strictness(a policy.Action) int {
	switch a {
	case policy.Allow:
		return 0
	case policy.Approve:
		return 1
	}
	return 2
}

// locked refuses what a lock is in force for.
func (c *connection) locked() *postgres.Refusal {
	l, ok := c.server.opts.Locks.Match(c.lockFacts())
	if !ok {
		return nil
	}
	return Locked(l)
}

// lockFacts may be called by any goroutine once the connection has joined its job.
func (c *connection) lockFacts() lock.Facts {
	facts := c.facts
	if id := c.session.Load(); id != nil {
		facts.Session = *id
	}
	return facts
}

// Locked is what a client is told of a lock.
func Locked(l lock.Lock) *postgres.Refusal {
	message := fmt.Sprintf("locked by %s until %s", l.By, l.Expires.UTC().Format(time.RFC3339))
	if l.Reason != "" {
		message += ": " + l.Reason
	}
	return &postgres.Refusal{
		Reason: event.ReasonLocked, SQLState: "57P01", Message: message, Detail: "Lock " + l.ID + ".",
	}
}

// End ends the sessions that match selects, and tells their clients why. It returns
// how many these are, and doesn't wait for their ends.
func (s *Server) End(match func(lock.Facts) bool, why *postgres.Refusal) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, connections := range s.byJob {
		for c := range connections {
			if match(c.lockFacts()) {
				c.end(why)
				n++
			}
		}
	}
	return n
}

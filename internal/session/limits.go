package session

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// The bounds that policy sets to sessions: how many there are, how long their
// statements run, and how much they see.

// limit is a bound of policy.SessionSpec, by its name in documents.
type limit struct {
	name  string
	field func(policy.SessionSpec) any
}

// byPolicy names the bound for the client, with the policy that it is from.
func (l limit) byPolicy(bound *policy.Bound) string {
	return fmt.Sprintf("Decided by policy %q, session limit %s.", bound.BoundBy(l.field), l.name)
}

func (l limit) refusal(bound *policy.Bound, sqlState, message string, args ...any) *postgres.Refusal {
	return &postgres.Refusal{
		Reason: event.ReasonLimit, SQLState: sqlState, Message: fmt.Sprintf(message, args...), Detail: l.byPolicy(bound),
	}
}

func maxDuration() limit {
	return limit{"maxDuration", func(s policy.SessionSpec) any { return s.MaxDuration }}
}

func maxRows() limit { return limit{"maxRows", func(s policy.SessionSpec) any { return s.MaxRows }} }

func maxBytes() limit { return limit{"maxBytes", func(s policy.SessionSpec) any { return s.MaxBytes }} }

func maxCommandDuration() limit {
	return limit{"maxCommandDuration", func(s policy.SessionSpec) any { return s.MaxCommandDuration }}
}

func maxSessions() limit {
	return limit{"maxSessions", func(s policy.SessionSpec) any { return s.MaxSessions }}
}

// seatPatience is how long a connection waits for another of its job to be gone: a
// client that closes one and opens the next is not refused for that it was quick.
const seatPatience = 250 * time.Millisecond

// seat counts a connection to the sessions that its job has at the target, or
// refuses it.
func (s *Server) seat(ctx context.Context, c *connection) *postgres.Refusal {
	most := c.bound.Session().MaxSessions
	ctx, cancel := context.WithTimeout(ctx, seatPatience)
	defer cancel()
	for {
		s.mu.Lock()
		if most == 0 || s.seated(c) < most {
			c.seated = true
			s.mu.Unlock()
			return nil
		}
		left := s.left
		s.mu.Unlock()
		select {
		case <-left:
		case <-ctx.Done():
			return maxSessions().refusal(c.bound, "53300",
				"policy lets a job have %d sessions at target %q at once, and this one has them", most, c.match.Target.Metadata.Name)
		}
	}
}

// seated is called with s.mu held.
func (s *Server) seated(c *connection) (n uint64) {
	for other := range s.byJob[c.job.ID] {
		if other.seated && other.facts.Target == c.facts.Target {
			n++
		}
	}
	return n
}

// timekeeper has the server cancel statements that run for longer than policy lets
// them. Those that are with the server run one after the other: the time of each
// begins when the one before has ended.
type timekeeper struct {
	cancel func(context.Context) error // has the server cancel what runs
	end    func(error)                 // ends the session

	mu      sync.Mutex
	timer   *time.Timer // of the first of them; nil before there was one
	running []*command
	since   time.Time // the first one runs
	stopped bool
	busy    sync.WaitGroup
}

// cancelTimeout bounds a request to cancel. cancelPatience is for how long a
// statement may go on after it: the server doesn't hear of it while it waits for
// COPY data.
const (
	cancelTimeout  = 5 * time.Second
	cancelPatience = 5 * time.Second
)

// overdue says that a command was cancelled for it ran too long.
type overdue struct{ atomic.Bool }

// begin is told of a command that goes to the server now.
func (t *timekeeper) begin(c *command) {
	if c.maxDuration <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running = append(t.running, c); len(t.running) == 1 {
		t.first()
	}
}

// ended is told of its end.
func (t *timekeeper) ended(c *command) {
	if c.maxDuration <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.running, c)
	if i < 0 {
		return
	}
	if t.running = slices.Delete(t.running, i, i+1); i == 0 {
		t.first()
	}
}

// first begins the time of the first command. It is called with t.mu held.
func (t *timekeeper) first() {
	if len(t.running) == 0 || t.stopped {
		if t.timer != nil {
			t.timer.Stop()
		}
		return
	}
	t.since = time.Now()
	t.wait(t.running[0].maxDuration)
}

func (t *timekeeper) wait(d time.Duration) {
	if t.timer == nil {
		t.timer = time.AfterFunc(d, t.look)
		return
	}
	t.timer.Reset(d)
}

// look cancels the first command if its time is over.
func (t *timekeeper) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.running) == 0 || t.stopped {
		return
	}
	c := t.running[0]
	ran := time.Since(t.since)
	if left := c.maxDuration - ran; left > 0 {
		t.wait(left) // the timer was another command's
		return
	}
	if c.overdue.Load() {
		refusal := *c.late()
		refusal.SQLState, refusal.Fatal = "57P01", true
		refusal.Message += "; it could not be cancelled, so its session is ended"
		t.end(&refusal)
		return
	}
	c.overdue.Store(true)
	t.busy.Go(func() {
		ctx, stop := context.WithTimeout(context.Background(), cancelTimeout)
		defer stop()
		_ = t.cancel(ctx) // if that fails, the session is ended
	})
	t.wait(cancelPatience)
}

// stop is called at the session's end.
func (t *timekeeper) stop() {
	t.mu.Lock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	t.busy.Wait()
}

// late is what the client is told of a command that was cancelled.
func (c *command) late() *postgres.Refusal {
	return maxCommandDuration().refusal(c.bound, "57014", "canceling statement: policy lets one run for %s", c.maxDuration)
}

// Timed implements [postgres.Canceled].
func (c *command) Timed() bool { return c.maxDuration > 0 }

// Cancelled implements [postgres.Canceled].
func (c *command) Cancelled() *postgres.Refusal {
	if !c.overdue.Load() {
		return nil
	}
	return c.late()
}

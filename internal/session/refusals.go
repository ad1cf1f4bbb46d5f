package session

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/mask"
	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// refuse tells the client, and the world, why it is given no upstream.
func (s *Server) refuse(c *connection, refusal *postgres.Refusal) {
	if err := c.client.Refuse(refusal); err != nil {
		s.opts.Log.Debug().Err(err).Msg("telling a client that it is refused")
	}
	s.refused(c, refusal)
}

// refused tells the world.
func (s *Server) refused(c *connection, refusal *postgres.Refusal) {
	tell, untold := s.told.spend(c.job.ID, time.Now())
	if !tell {
		return
	}
	data := event.SessionRefused{Reason: refusal.Reason, Message: refusal.Message, Untold: untold}
	origin := event.Origin{Cluster: s.opts.Cluster, Node: s.opts.Node}
	if c.origin.Destination.IsValid() {
		data.Destination = c.origin.Destination.String()
		process := event.Process(c.origin.Process)
		data.Process = &process
	} else {
		data.Peer = c.net.RemoteAddr().String()
	}
	if c.job.ID != "" {
		principal, work := c.principal(), c.workload()
		data.Principal, data.Workload, origin.Subject = &principal, &work, c.job.ID
	}
	if c.match.Target != nil {
		data.Target = c.match.Target.Metadata.Name
		origin.Target = data.Target
	}
	s.opts.Log.Info().Str("reason", refusal.Reason).Str("job", c.job.ID).Str("destination", data.Destination).
		AnErr("cause", refusal.Err).Msg("connection refused: " + refusal.Message)
	if err := s.opts.Journal.Event(origin, data); err != nil {
		s.opts.Log.Error().Err(err).Msg("recording a refused connection")
	}
}

// asRefusal makes every error one that a client can be told: what is not
// meant for it stays in the node's log.
func asRefusal(err error) *postgres.Refusal {
	var refusal *postgres.Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	return &postgres.Refusal{
		Reason: event.ReasonInternal, SQLState: "XX000", Err: err,
		Message: "the node could not serve this connection", Hint: "The node's log says why.",
	}
}

// decidedBy names the rule for the client: who reads the error can tell an
// administrator which one it was.
func decidedBy(d policy.Decision) string {
	switch {
	case d.Policy == "":
		return ""
	case d.Rule == "":
		return fmt.Sprintf("Decided by policy %q.", d.Policy)
	}
	return fmt.Sprintf("Decided by policy %q, rule %q.", d.Policy, d.Rule)
}

// refusalsPerSecond is how many refused connections of one job, or of all that are no
// job's together, are told singly. The others are counted: a planner that is refused and
// tries again must not fill the journal.
const refusalsPerSecond = 20

// TellUntold publishes how many refusals have had no event of their own since
// the last one that had. It is to be called every few seconds.
func (s *Server) TellUntold() {
	for job, n := range s.told.take(time.Now()) {
		origin := event.Origin{Cluster: s.opts.Cluster, Node: s.opts.Node, Subject: job}
		data := event.SessionRefused{Reason: event.ReasonFlood, Message: "connections were refused faster than is told singly", Untold: n}
		if err := s.opts.Journal.Event(origin, data); err != nil {
			s.opts.Log.Error().Err(err).Uint64("untold", n).Msg("recording refused connections")
		}
	}
}

// refusals keeps account of what is told. The zero value is ready.
type refusals struct {
	mu    sync.Mutex
	byJob map[string]*refusalAccount
}

type refusalAccount struct {
	since  time.Time
	told   int
	untold uint64
}

// spend tells whether a refusal of the job is to be told now, and how many before it
// were not.
func (r *refusals) spend(job string, now time.Time) (tell bool, untold uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byJob == nil {
		r.byJob = map[string]*refusalAccount{}
	}
	a := r.byJob[job]
	if a == nil {
		a = &refusalAccount{}
		r.byJob[job] = a
	}
	if now.Sub(a.since) >= time.Second {
		a.since, a.told = now, 0
	}
	if a.told >= refusalsPerSecond {
		a.untold++
		return false, 0
	}
	a.told++
	untold, a.untold = a.untold, 0
	return true, untold
}

// take returns what was not told, by job, and forgets it, with the accounts that nobody
// has used for a while.
func (r *refusals) take(now time.Time) map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := map[string]uint64{}
	for job, a := range r.byJob {
		if a.untold > 0 {
			left[job] = a.untold
			a.untold = 0
		}
		if now.Sub(a.since) > time.Minute {
			delete(r.byJob, job)
		}
	}
	return left
}

// unreadable is what a client is told of a text that the grammar, or the
// reader's bounds, refuse.
func unreadable(err error) *postgres.Refusal {
	var syntax *pgsql.SyntaxError
	if errors.As(err, &syntax) {
		return &postgres.Refusal{
			Reason: event.ReasonDenied, SQLState: "42601", Message: syntax.Message, Position: syntax.Position, Err: err,
		}
	}
	var refused *pgsql.RefusedError
	if errors.As(err, &refused) {
		return &postgres.Refusal{
			Reason: event.ReasonDenied, SQLState: "42501", Message: refused.Message, Hint: refused.Hint, Err: err,
		}
	}
	return &postgres.Refusal{
		Reason: event.ReasonInternal, SQLState: "XX000", Err: err,
		Message: "the statement could not be read, so it is refused",
	}
}

func unmaskable(err error) *postgres.Refusal {
	var untraceable *mask.Untraceable
	if errors.As(err, &untraceable) {
		return &postgres.Refusal{
			Reason: event.ReasonMaskUntraceable, SQLState: "42501", Err: err,
			Message: "the statement is refused: " + untraceable.Message,
			Hint:    "Name the columns, and read tables whose columns can be traced.",
		}
	}
	return &postgres.Refusal{
		Reason: event.ReasonInternal, SQLState: "57P03", Err: err,
		Message: "the statement is refused: the target's catalog can't be read, so nothing can be masked",
	}
}

func unrecordable(err error) *postgres.Refusal {
	return &postgres.Refusal{
		Reason: event.ReasonRecording, SQLState: "53100", Err: err,
		Message: "the command is refused: it can't be recorded",
		Hint:    fmt.Sprintf("The node's journal takes nothing more: %v.", err),
	}
}

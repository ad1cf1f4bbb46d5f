package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/identity"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/event"
)

const (
	// renewEvery is how often it is looked what is to be renewed: the clock may be set,
	// and documents reloaded, at any time.
	renewEvery = time.Second
	// renewAtOnce bounds the principals that are proved again at once, and renewTimeout
	// each of them.
	renewAtOnce  = 16
	renewTimeout = 20 * time.Second
	// changedTimeout is how long what was proved by other documents than those in force
	// holds at most, while it is proved again.
	changedTimeout = 5 * time.Second
	// maxRenewPause bounds the time between two attempts. It is a twentieth of what is
	// left until the principal expires, and a second at least.
	maxRenewPause = time.Minute
)

// prover is the node's.
func (n *node) prover() *prover {
	return &prover{
		proofs: &n.identities.proofs, clock: n.clock, jobs: n.jobs(), demand: n.demanded,
		renewed: func(job workload.Job) { n.credentials.Prolong(job.ID, job.Principal.Expires) },
		ended:   n.identityEnded,
		suspicious: func(job workload.Job, err error) {
			n.log.Warn().Err(err).Str("job", job.ID).Msg("the job's identity is not renewed")
			n.refuseIdentity(job, "the job's identity is not renewed: "+err.Error())
		},
		unkept: func(job workload.Job, err error) {
			n.log.Error().Err(err).Str("job", job.ID).Msg("the job's identity holds until the next start only")
		},
	}
}

// identityEnded ends what a job had for a principal that it has no more. The job stays one.
func (n *node) identityEnded(ctx context.Context, job workload.Job, why string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	n.log.Warn().Str("job", job.ID).Str("principal", job.Principal.Subject).Msg("the job's identity ended: " + why)
	n.refuseIdentity(job, why)
	n.sessions.End(func(f lock.Facts) bool { return f.Workload[1] == job.ID }, &postgres.Refusal{
		Reason: event.ReasonNoIdentity, SQLState: "57P01", Message: why,
		Hint: "See to it that the job's token is renewed.",
	})
	n.sessions.EndJob(ctx, job.ID, event.ReasonNoIdentity) // waits
	_, err := n.credentials.Revoke(ctx, credential.WhyExpired, func(owner, _ string) bool { return owner == job.ID })
	if err != nil {
		n.log.Warn().Err(err).Str("job", job.ID).Msg("a credential is not revoked yet; it is tried again")
	}
}

func (n *node) refuseIdentity(job workload.Job, why string) {
	n.publish("", job.ID, event.SessionRefused{
		Reason: event.ReasonNoIdentity, Message: why,
		Principal: &event.Principal{Subject: job.Principal.Subject, Issuer: job.Principal.Issuer, Groups: job.Principal.Groups},
		Workload:  &event.Workload{Name: job.Name, Kind: job.Kind, Unit: job.Unit},
	})
}

// renew keeps jobs' principals proved until ctx is done.
func (n *node) renew(ctx context.Context) error {
	r := &renewals{prover: n.prover(), known: map[string]*renewal{}, slots: make(chan struct{}, renewAtOnce)}
	defer r.working.Wait()
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		r.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// renewals proves principals again before they expire, and ends what they had when that
// fails.
type renewals struct {
	*prover
	slots   chan struct{}
	working sync.WaitGroup
	known   map[string]*renewal // by job; used by look alone
}

// renewal is what is known of one job's.
type renewal struct {
	proofs uint64    // of the job, that the rest is about
	seen   time.Time // when this principal was first looked at
	over   bool      // it is told that this one has ended

	mu   sync.Mutex
	busy bool
	next time.Time // not before that
	told string    // the last failure that was told
	last error     // failure
}

// look begins what is to be done. Nothing of it is waited for.
func (r *renewals) look(ctx context.Context) {
	live := map[string]bool{}
	for _, job := range r.jobs.Jobs() {
		live[job.ID] = true
		if job.Principal.Subject == "" {
			continue // it has proved none yet, and does when it connects
		}
		known := r.known[job.ID]
		if known == nil || known.proofs != job.Proofs {
			known = &renewal{proofs: job.Proofs, seen: r.clock.Latest()}
			r.known[job.ID] = known
		}
		r.lookAt(ctx, job, known)
	}
	for id := range r.known {
		if !live[id] {
			delete(r.known, id)
		}
	}
}

func (r *renewals) lookAt(ctx context.Context, job workload.Job, known *renewal) {
	if known.isBusy() || known.over {
		return
	}
	d, err := r.demand(job)
	switch {
	case err != nil && job.Proof != "":
		r.end(ctx, job, known, err.Error())
	case err != nil:
	case job.Proof != d.proof:
		r.begin(ctx, known, changedTimeout, func(bounded context.Context) {
			if err := r.renew(bounded, job, d); err != nil && ctx.Err() == nil {
				known.over = true
				r.ended(ctx, job, "by the documents in force now it is not proved who the job acts for: "+err.Error())
			}
		})
	case r.expired(job):
		why := "the job's identity expired at " + job.Principal.Expires.UTC().Format(time.RFC3339) + " and was not renewed"
		if last := known.lastFailure(); last != nil {
			why += ": " + last.Error()
		}
		r.end(ctx, job, known, why)
	case job.Principal.Expires.IsZero():
	case !r.clock.Latest().Before(renewAt(job.Principal, known.seen)) && !r.clock.Latest().Before(known.notBefore()):
		r.begin(ctx, known, renewTimeout, func(ctx context.Context) { r.attempt(ctx, job, d, known) })
	}
}

// begin does something about a job in a goroutine of its own, if there is room.
func (r *renewals) begin(ctx context.Context, known *renewal, limit time.Duration, do func(context.Context)) {
	select {
	case r.slots <- struct{}{}:
	default:
		return
	}
	known.setBusy(true)
	r.working.Go(func() {
		defer func() { <-r.slots }()
		defer known.setBusy(false)
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		do(ctx)
	})
}

// end ends what the principal had, once. It doesn't wait for room: jobs are bounded.
func (r *renewals) end(ctx context.Context, job workload.Job, known *renewal, why string) {
	known.over = true
	r.working.Go(func() {
		if now, live := r.jobs.ByCgroup(job.CgroupID); live && now.Proofs == job.Proofs {
			r.ended(ctx, job, why)
		}
	})
}

// attempt proves a principal again.
func (r *renewals) attempt(ctx context.Context, job workload.Job, d demand, known *renewal) {
	err := r.renew(ctx, job, d)
	left := job.Principal.Expires.Sub(r.clock.Latest())
	known.mu.Lock()
	known.last = err
	known.next = r.clock.Latest().Add(min(max(left/20, time.Second), maxRenewPause))
	told := known.told
	if err != nil {
		known.told = err.Error()
	}
	known.mu.Unlock()
	if err == nil || ctx.Err() != nil || err.Error() == told {
		return
	}
	if errors.Is(err, errAnother) || errors.Is(err, identity.ErrToken) || errors.Is(err, identity.ErrAccount) {
		r.suspicious(job, fmt.Errorf("%w; it goes on until %s", err, job.Principal.Expires.UTC().Format(time.RFC3339)))
	}
}

func (k *renewal) isBusy() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.busy
}

func (k *renewal) setBusy(busy bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.busy = busy
}

func (k *renewal) lastFailure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

func (k *renewal) notBefore() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.next
}

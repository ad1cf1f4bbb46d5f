package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/clock"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/policy"
)

var (
	// errNotRenewed says that a token is good, and no newer than the last one.
	errNotRenewed = errors.New("its token is not renewed yet")
	// errAnother says that a token is good, and another one's.
	errAnother = errors.New("its token speaks of somebody else")
)

// demand is how documents want a job's principal proved.
type demand struct {
	// proof names that; empty means that the node vouches for the principal itself.
	proof string
	prove func(context.Context) (policy.Principal, error)
}

// jobs keep their principals. It is [workload.Registry].
type jobs interface {
	Jobs() []workload.Job
	ByCgroup(id uint64) (workload.Job, bool)
	Identify(job workload.Job, principal policy.Principal, proof string) (workload.Job, error)
}

// prover proves whom jobs act for, once for all who ask at the same time.
type prover struct {
	*proofs
	clock  *clock.Clock
	jobs   jobs
	demand func(workload.Job) (demand, error)
	// renewed is called when a principal lives longer than before, with the job as it is
	// now; ended when it has ended, or becomes another one, with the job as it was and a
	// sentence. It ends what the principal had, and is waited for. suspicious is called
	// when a job presents what proves nothing, or somebody else.
	renewed    func(workload.Job)
	ended      func(ctx context.Context, job workload.Job, why string)
	suspicious func(workload.Job, error)
	// unkept is called when a principal can't be kept over a restart.
	unkept func(workload.Job, error)
}

// proofs remembers which jobs' principals are being proved. The zero value is ready.
type proofs struct {
	mu      sync.Mutex
	running map[string]chan struct{} // by job; closed when it is over
}

// begin waits until nobody else proves the job's principal.
func (p *proofs) begin(ctx context.Context, job string) (end func(), err error) {
	for {
		p.mu.Lock()
		if p.running == nil {
			p.running = map[string]chan struct{}{}
		}
		other, busy := p.running[job]
		if !busy {
			over := make(chan struct{})
			p.running[job] = over
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				delete(p.running, job)
				close(over)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// holds tells whether a principal is proved by what is demanded, and has not expired.
func (p *prover) holds(job workload.Job, d demand) bool {
	return job.Principal.Subject != "" && job.Proof == d.proof && !p.expired(job)
}

func (p *prover) expired(job workload.Job) bool {
	expires := job.Principal.Expires
	return !expires.IsZero() && !p.clock.Latest().Before(expires)
}

// current returns the job with a principal that holds, which it proves if need be.
func (p *prover) current(ctx context.Context, job workload.Job) (workload.Job, error) {
	d, err := p.demand(job)
	if err != nil {
		return job, err
	}
	if p.holds(job, d) {
		return job, nil
	}
	return p.prove(ctx, job, d, func(now workload.Job) bool { return p.holds(now, d) })
}

// renew proves a principal again that holds yet.
func (p *prover) renew(ctx context.Context, job workload.Job, d demand) error {
	_, err := p.prove(ctx, job, d, func(now workload.Job) bool { return now.Proofs != job.Proofs })
	return err
}

// prove proves a job's principal, unless done says of the job as it is by then that
// somebody else has.
func (p *prover) prove(ctx context.Context, job workload.Job, d demand, done func(workload.Job) bool) (workload.Job, error) {
	end, err := p.begin(ctx, job.ID)
	if err != nil {
		return job, err
	}
	defer end()
	now, live := p.jobs.ByCgroup(job.CgroupID)
	if !live || now.ID != job.ID {
		return job, workload.ErrGone
	}
	if done(now) {
		return now, nil
	}
	job = now
	principal, err := d.prove(ctx)
	if err != nil {
		return job, err
	}
	before := job.Principal
	same := before.Subject == principal.Subject && before.Issuer == principal.Issuer
	switch {
	case before.Subject == "":
	case job.Proof == d.proof && !same:
		return job, fmt.Errorf("%w: the job acts for %s@%s, and the token is %s@%s's; start another job for that",
			errAnother, before.Subject, before.Issuer, principal.Subject, principal.Issuer)
	case job.Proof == d.proof && !before.Expires.IsZero() && !principal.Expires.After(before.Expires):
		return job, errNotRenewed
	case !same:
		// Other documents see another principal in it. What the former one had is not its.
		p.ended(ctx, job, fmt.Sprintf("by the documents in force now the job acts for %s@%s, and not for %s@%s",
			principal.Subject, principal.Issuer, before.Subject, before.Issuer))
	}
	now, err = p.jobs.Identify(job, principal, d.proof)
	if errors.Is(err, workload.ErrGone) {
		return job, err
	}
	if err != nil {
		p.unkept(now, err)
	}
	p.renewed(now)
	return now, nil
}

// renewAt is when a principal is to be proved again: at four fifths of its token's
// life. seen is when the principal was first seen here, for tokens that don't tell when
// they were issued.
func renewAt(principal policy.Principal, seen time.Time) time.Time {
	from, until := seen, principal.Expires
	if issued, ok := principal.Claims["iat"].(float64); ok {
		from = time.Unix(int64(issued), 0)
	}
	if expires, ok := principal.Claims["exp"].(float64); ok && time.Unix(int64(expires), 0).Before(until) {
		until = time.Unix(int64(expires), 0)
	}
	if !from.Before(until) {
		return until
	}
	return from.Add(until.Sub(from) / 5 * 4)
}

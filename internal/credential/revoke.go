package credential

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"chaperone.dev/chaperone/pkg/event"
)

// revoker removes accounts, and tries again until each is gone. At most
// maxRevocations run at once, and one per target server, so that a server
// that doesn't answer holds up only its own.
type revoker struct {
	options Options
	ledger  *Ledger
	issuers map[string]Issuer
	ctx     context.Context
	kick    chan struct{} // there may be something to start; holds one
	done    sync.WaitGroup

	mu      sync.Mutex
	tasks   map[string]*task // by entry
	paused  bool
	work    context.Context // of attempts; ends when paused
	cut     context.CancelFunc
	running int
	busy    map[string]bool // servers, by admin file
}

// task is the revocation of one entry.
type task struct {
	entry    Entry
	due      time.Time
	attempts int
	running  bool

	first chan struct{} // closed when the first attempt is over
	err   error         // of that
}

const maxRevocations = 8

func newRevoker(ctx context.Context, options Options, ledger *Ledger, issuers map[string]Issuer) *revoker {
	r := &revoker{
		options: options, ledger: ledger, issuers: issuers, ctx: ctx,
		kick: make(chan struct{}, 1), tasks: map[string]*task{}, busy: map[string]bool{},
	}
	r.work, r.cut = context.WithCancel(ctx)
	r.done.Go(r.run)
	return r
}

// pause cuts attempts short and starts no more until resume. It waits, until ctx ends, for
// those under way.
func (r *revoker) pause(ctx context.Context) error {
	r.mu.Lock()
	r.paused = true
	r.cut()
	r.mu.Unlock()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		r.mu.Lock()
		running := r.running
		r.mu.Unlock()
		if running == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d credentials are being revoked: %w", running, ctx.Err())
		case <-look.C:
		}
	}
}

// resume goes on with what pause stopped, on a ledger that was opened anew.
func (r *revoker) resume(ledger *Ledger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger, r.paused = ledger, false
	r.work, r.cut = context.WithCancel(r.ctx)
	for _, t := range r.tasks {
		t.due = time.Now()
	}
	r.wake()
}

// wait waits until all work has stopped, which it does when ctx ends.
func (r *revoker) wait() { r.done.Wait() }

// add begins to revoke an entry. If that is under way already, why stays what
// it was; so it does for an entry whose revocation began in an earlier run.
func (r *revoker) add(entry Entry, why string) *task {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tasks[entry.ID]; t != nil {
		return t
	}
	if entry.State != StateRevoking {
		entry.State, entry.Why = StateRevoking, why
	}
	t := &task{entry: entry, due: time.Now(), first: make(chan struct{})}
	r.tasks[entry.ID] = t
	r.wake()
	return t
}

func (r *revoker) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// run starts tasks as they fall due.
func (r *revoker) run() {
	var workers sync.WaitGroup
	defer workers.Wait()
	for {
		timer := time.NewTimer(r.start(&workers))
		select {
		case <-r.ctx.Done():
			timer.Stop()
			return
		case <-r.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// start starts what is due, the longest due first, and returns how long there
// will be nothing to start unless somebody wakes it.
func (r *revoker) start(workers *sync.WaitGroup) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused {
		return time.Hour
	}
	queue := make([]*task, 0, len(r.tasks))
	for _, t := range r.tasks {
		if !t.running && !r.busy[t.entry.Account.AdminFile] {
			queue = append(queue, t)
		}
	}
	slices.SortFunc(queue, func(a, b *task) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.entry.ID, b.entry.ID))
	})
	for _, t := range queue {
		if wait := time.Until(t.due); wait > 0 {
			return wait
		}
		if r.running == maxRevocations {
			break
		}
		server := t.entry.Account.AdminFile
		if r.busy[server] {
			continue
		}
		t.running, r.busy[server] = true, true
		r.running++
		ctx, ledger := r.work, r.ledger
		workers.Go(func() { r.attempt(ctx, ledger, t) })
	}
	return time.Hour
}

// attempt tries to revoke one entry.
func (r *revoker) attempt(ctx context.Context, ledger *Ledger, t *task) {
	err := r.revoke(ctx, ledger, t)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil || ctx.Err() == nil || r.ctx.Err() != nil { // else it was paused, and doesn't count
		t.attempts++
		if t.attempts == 1 {
			t.err = err
			close(t.first)
		}
	}
	if err == nil {
		delete(r.tasks, t.entry.ID)
	}
	t.due = time.Now().Add(r.backOff(t.attempts))
	t.running = false
	delete(r.busy, t.entry.Account.AdminFile)
	r.running--
	r.wake()
}

// backOff grows twofold with each attempt, by ±20 % at random, so that the
// accounts of a server that comes back don't all come at once.
func (r *revoker) backOff(attempts int) time.Duration {
	d := r.options.RetryMin
	for i := 1; i < attempts && d < r.options.RetryMax; i++ {
		d *= 2
	}
	d = min(d, r.options.RetryMax)
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// revoke removes the account, tells, and strikes the entry out, in this
// order: a crash in between repeats a step and skips none.
func (r *revoker) revoke(ctx context.Context, ledger *Ledger, t *task) error {
	tell := event.CredentialRevoked{
		Grant: t.entry.ID, Issuer: t.entry.Kind, Name: t.entry.Account.Name,
		Target: t.entry.Target, Job: t.entry.Job, Why: t.entry.Why,
	}
	err := r.remove(ctx, ledger, t)
	if err == nil {
		tell.Verified = true
		r.options.OnRevoked(tell)
		return ledger.Delete(t.entry.ID)
	}
	err = fmt.Errorf("revoke %s at target %s: %w", t.entry.Account.Name, t.entry.Target, err)
	if ctx.Err() != nil {
		return err // cut short by our own end, the next run goes on
	}
	if t.attempts == 0 {
		tell.Error = err.Error()
		r.options.OnRevoked(tell)
	}
	r.options.Log.Warn().Err(err).Str("job", t.entry.Job).Int("attempt", t.attempts+1).
		Msg("a credential isn't revoked yet, it will be tried again")
	return err
}

func (r *revoker) remove(ctx context.Context, ledger *Ledger, t *task) error {
	if t.attempts == 0 {
		// So that the next run knows why. The entry as it was does as well.
		if err := ledger.Put(t.entry); err != nil {
			r.options.Log.Warn().Err(err).Msg("credential ledger")
		}
	}
	issuer, ok := r.issuers[t.entry.Kind]
	if !ok {
		return fmt.Errorf("%w: %s", ErrNoIssuer, t.entry.Kind)
	}
	ctx, cancel := context.WithTimeout(ctx, r.options.RevokeTimeout)
	defer cancel()
	return issuer.Revoke(ctx, t.entry)
}

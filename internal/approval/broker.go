package approval

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
)

// Why nobody was asked. What must be approved must then not happen.
var (
	// ErrBusy: as many requests wait as may, or the job makes them faster
	// than people decide.
	ErrBusy = errors.New("too many requests wait for approval")
	// ErrUnavailable: the request can't be brought to people, or can't be kept.
	ErrUnavailable = errors.New("nobody can be asked for approval")
	// ErrQuestion: the question is not complete.
	ErrQuestion = errors.New("the question is not complete")
)

// Clock is what the broker needs of a clock that others may set.
type Clock interface {
	Now() time.Time      // what the clock shows
	Latest() time.Time   // what permissions expire by
	Earliest() time.Time // what something that is not valid yet waits for
}

// Options of [Open].
type Options struct {
	KV            *bus.Bucket // [Bucket]; it may be out of reach
	Keys          authority.Keys
	Cluster, Node string
	Clock         Clock
	Dir           string // state folder
	// Publish takes events; target and subject are those of [event.Origin].
	Publish func(target, subject string, data event.Data)
	// MaxPending and MaxPerJob bound how many requests wait (default 200 and 10).
	MaxPending, MaxPerJob int
	Log                   zerolog.Logger
}

// Question is what a [Request] is made of; the fields are the request's.
type Question struct {
	About      string
	Session    string
	Principal  event.Principal
	IssuerURL  string
	Workload   event.Workload
	Target     event.Target
	Process    event.Process
	Text       string
	Cut        bool
	Parameters []string
	Parsed     event.Parsed
	Digest     string
	Policy     string
	Rule       string
	Why        string
	When       string
	Revision   string
	From       policy.PrincipalSelect
	Escalate   []policy.EscalationSpec
	Count      int
	Standing   time.Duration

	Within time.Duration // how long an answer is waited for
	Kind   string        // what answers may stand for; empty: for nothing
}

// Answer is what became of a question.
type Answer struct {
	// State is StateApproved, StateDenied, StateExpired, StateCancelled, or,
	// from Retry alone, StatePending.
	State    State
	Request  string    // the id of the request that people answered, or are to answer
	By       []Person  // who decided
	Message  string    // why it was denied or cancelled
	Expires  time.Time // of the request, or of the standing answer
	Standing bool      // an earlier answer stands for this question too
}

// Broker asks for a node. Safe for concurrent use.
//
// What may run is decided by what the node itself keeps on its disk, and by signed
// votes; the bucket only carries questions and answers. So one that is lost, rolled
// back or altered makes nothing run, and nothing twice. A lost bucket loses no
// question either: those that wait are put back.
type Broker struct {
	opts Options
	disk *disk

	mu      sync.Mutex
	all     map[string]*entry  // by id: what waits, stands or is remembered
	retries map[string]*entry  // by retryKey: in retry mode, pending, approved or denied
	grants  map[string]*entry  // by grantKey: whose answers stand
	budgets map[string]*budget // by job
	pending int
	over    []*entry // in the order in which they ended
	outbox  []func() // what is to be told when mu is free
	closed  bool

	dirty chan struct{} // records are to be written to the bucket
}

// entry is one request, and what the node knows of it.
type entry struct {
	record Record
	kind   string
	votes  []authority.Signed // that count
	cast   []Vote             // the same, read
	seen   map[digest]bool    // votes that were looked at
	grant  time.Time          // until when the answer stands

	over   bool          // it can't be used any more
	sent   bool          // the bucket has the record as it is
	stored chan struct{} // closed when the bucket has it, or err is set
	err    error
	ended  chan struct{} // closed when it is over for who holds it
}

const (
	maxWithin = 24 * time.Hour
	maxOver   = 1000            // requests that are over and remembered
	putWait   = 5 * time.Second // for the bucket to take a record
)

// Open reads back what a broker before this one left: what it held is
// cancelled, what is to be retried and what stands lives on, as far as its signed
// votes still say so.
func Open(o Options) (*Broker, error) {
	if o.MaxPending <= 0 {
		o.MaxPending = 200
	}
	if o.MaxPerJob <= 0 {
		o.MaxPerJob = min(10, o.MaxPending)
	}
	if o.Publish == nil {
		o.Publish = func(string, string, event.Data) {}
	}
	d, err := openDisk(o.Dir)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		opts: o, disk: d, all: map[string]*entry{}, retries: map[string]*entry{}, grants: map[string]*entry{},
		budgets: map[string]*budget{}, dirty: make(chan struct{}, 1),
	}
	if err := b.load(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return b, nil
}

// Run hears votes, ends what expires and keeps the bucket up to date, until
// the context is done. Then it cancels what is held.
func (b *Broker) Run(ctx context.Context) error {
	b.mu.Lock()
	b.unlock() // tells what load found
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { b.follow(inner); return nil })
	g.Go(func() error { b.flush(inner); return nil })
	g.Go(func() error { b.expire(inner); return nil })
	err := g.Wait()

	b.cancelHeld("the node is stopping")
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	b.flushOnce(last)
	return err
}

// Close lets go of the disk, and cancels what is held. Call it when Run has
// returned.
func (b *Broker) Close() error {
	b.cancelHeld("the node is stopping")
	b.mu.Lock()
	b.closed = true
	b.unlock()
	return b.disk.close()
}

// Hold asks, and waits until people have decided, the time is over, or the
// context is done; the request is then cancelled with the context's cause as its
// message. An error means that nobody was asked. waiting, which may be nil, is
// told of the request once it is where people can see it.
func (b *Broker) Hold(ctx context.Context, q Question, waiting func(Request)) (Answer, error) {
	r, err := b.request(q, policy.ModeHold)
	if err != nil {
		return Answer{}, err
	}
	b.mu.Lock()
	if a, ok := b.standing(r, q.Kind); ok {
		b.unlock()
		return a, nil
	}
	e, err := b.add(r, q.Kind)
	b.unlock()
	if err != nil {
		return Answer{}, err
	}
	if err := b.send(ctx, e); err != nil {
		return Answer{}, err
	}
	if waiting != nil {
		waiting(r)
	}
	select {
	case <-e.ended:
	case <-ctx.Done():
		b.mu.Lock()
		b.cancel(e, context.Cause(ctx).Error())
		b.unlock()
		<-e.ended // who ended it before tells so first
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return e.answer(), nil
}

// Retry never waits for people. It is StateApproved once for a request of the
// same job, target, rule and digest that was approved, which is then used up, on the
// disk, before Retry returns; StateDenied for one that was denied, until that
// expires; else StatePending, and the request is made if there is none.
func (b *Broker) Retry(ctx context.Context, q Question) (Answer, error) {
	r, err := b.request(q, policy.ModeRetry)
	if err != nil {
		return Answer{}, err
	}
	b.mu.Lock()
	if a, ok := b.standing(r, q.Kind); ok {
		b.unlock()
		return a, nil
	}
	e := b.retries[retryKey(r)]
	if e != nil {
		b.timeOut(e, b.opts.Clock.Latest())
	}
	if e = b.retries[retryKey(r)]; e != nil {
		switch e.record.State {
		case StateApproved:
			err := b.use(e)
			a := e.answer()
			b.unlock()
			return a, err
		case StateDenied:
			a := e.answer()
			b.unlock()
			return a, nil
		}
		b.unlock()
		return b.wait(ctx, e)
	}
	e, err = b.add(r, q.Kind)
	b.unlock()
	if err != nil {
		return Answer{}, err
	}
	// Others of the same question wait for it, whatever becomes of this caller.
	if err := b.send(context.WithoutCancel(ctx), e); err != nil {
		return Answer{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return e.pendingAnswer(), nil
}

// wait waits until a request that somebody else makes is where people can see it.
func (b *Broker) wait(ctx context.Context, e *entry) (Answer, error) {
	select {
	case <-e.stored:
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.err != nil {
		return Answer{}, e.err
	}
	return e.pendingAnswer(), nil
}

// EndJob cancels the job's requests and forgets what stands for it.
func (b *Broker) EndJob(job string) {
	b.mu.Lock()
	defer b.unlock()
	for _, e := range b.all {
		if e.record.Request.Workload.Job != job {
			continue
		}
		b.cancel(e, "the job ended")
		if !e.grant.IsZero() {
			b.revoke(e)
		}
	}
	delete(b.budgets, job)
}

// request makes the request that the question comes to.
func (b *Broker) request(q Question, mode string) (Request, error) {
	count := max(q.Count, 1)
	switch {
	case len(b.opts.Keys) == 0:
		return Request{}, fmt.Errorf("%w: the Node document names no authority whose word would count", ErrUnavailable)
	case q.Digest == "" || q.Workload.Job == "" || q.Target.Name == "" || q.Policy == "":
		return Request{}, fmt.Errorf("%w: it needs a digest, a job, a target and a policy", ErrQuestion)
	case count > maxVotes:
		return Request{}, fmt.Errorf("%w: %d people can't be asked, at most %d", ErrQuestion, count, maxVotes)
	case q.Within <= 0 || q.Within > maxWithin:
		return Request{}, fmt.Errorf("%w: an answer can't be waited for %s, at most %s", ErrQuestion, q.Within, maxWithin)
	case q.Standing < 0:
		return Request{}, fmt.Errorf("%w: an answer can't stand for %s", ErrQuestion, q.Standing)
	}
	// The later of the clocks: whoever sets the clock back gains no time.
	now := b.opts.Clock.Latest().UTC()
	return Request{
		ID: newID(), Cluster: b.opts.Cluster, Node: b.opts.Node, About: q.About,
		Session: q.Session, Principal: q.Principal, Workload: q.Workload, Target: q.Target, Process: q.Process,
		Text: q.Text, Cut: q.Cut, Parameters: q.Parameters, Parsed: q.Parsed, Digest: q.Digest,
		IssuerURL: q.IssuerURL, Policy: q.Policy, Rule: q.Rule, Why: q.Why, When: q.When, Revision: q.Revision,
		From: q.From, Escalate: q.Escalate, Count: count, Mode: mode, Standing: q.Standing,
		Created: now, Expires: now.Add(q.Within),
	}, nil
}

func newID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // it never fails
	return "a-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// unlock frees mu, and then tells what there is to tell.
func (b *Broker) unlock() {
	outbox := b.outbox
	b.outbox = nil
	b.mu.Unlock()
	for _, tell := range outbox {
		tell()
	}
}

// answer is what Hold and Retry return of it. mu is held.
func (e *entry) answer() Answer {
	state := e.record.State
	if state == StateUsed {
		state = StateApproved
	}
	return Answer{State: state, Request: e.record.Request.ID, By: e.record.By, Message: e.record.Message, Expires: e.record.Request.Expires}
}

// pendingAnswer is [entry.answer] for who did not use it: approved in the
// meantime means that the next one may. mu is held.
func (e *entry) pendingAnswer() Answer {
	a := e.answer()
	if a.State == StateApproved {
		a.State, a.By = StatePending, nil
	}
	return a
}

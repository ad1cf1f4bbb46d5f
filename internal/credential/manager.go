package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// Options configure a [Manager]. LedgerFile, Node and Issuers are required.
type Options struct {
	LedgerFile string
	Node       string
	Issuers    []Issuer
	// OnIssued is called when an account was made and before it is used,
	// OnRevoked when one was verified to be gone and when a first attempt to
	// revoke it failed. A crash may make the same revocation be told twice.
	// They are called from several goroutines, must not call the Manager, and
	// hold up the grant concerned.
	OnIssued  func(event.CredentialIssued)
	OnRevoked func(event.CredentialRevoked)
	Log       zerolog.Logger

	// MaxGrants bounds the grants that live at once (default 4096).
	MaxGrants int
	// IssueTimeout bounds one attempt to make or renew an account (default
	// 30s), RevokeTimeout one attempt to remove it (default 1m).
	IssueTimeout, RevokeTimeout time.Duration
	// RetryMin and RetryMax bound the growing pause between attempts to
	// revoke (default 1s and 5m).
	RetryMin, RetryMax time.Duration
}

// Errors of [Manager.For], to be told apart with errors.Is.
var (
	ErrJobEnded = errors.New("the job has ended")
	ErrExpired  = errors.New("the job's identity has expired")
	ErrRevoked  = errors.New("the credential was revoked meanwhile")
	ErrClosed   = errors.New("no credentials are issued any more: shutting down")
	ErrTooMany  = errors.New("too many credentials are in use on this node")
	ErrNoIssuer = errors.New("no issuer makes this kind of credential")
	// ErrSuspended: see [Manager.Suspend].
	ErrSuspended = errors.New("no credentials are issued here any more: another process has taken over")

	errTargetChanged = errors.New("the target's document changed meanwhile")
)

// Request asks for a credential.
type Request struct {
	Job       string // the job's id, unique on the node
	JobName   string
	Principal policy.Principal
	Target    *policy.Target
	// Deadline is the end of the credential, come what may, on top of
	// Principal.Expires. Zero: none.
	Deadline time.Time
}

// Grant is a job's account at one target.
type Grant struct {
	ID      string
	Name    string // the account's
	Secret  Secret
	Expires time.Time // as of now; it is renewed while the job lives
	Cached  bool      // it was made for an earlier request

	manager *Manager
	grant   *grant
}

// Manager hands out grants, keeps them alive and takes them away. Make one
// with [Open]. Its methods are safe for concurrent use.
type Manager struct {
	options Options
	issuers map[string]Issuer
	ledger  *Ledger
	revoker *revoker

	life   context.Context // ends in Close
	stop   context.CancelFunc
	keeper sync.WaitGroup // the goroutines of the grants

	// using is held by who uses the ledger, and held alone to suspend and resume.
	using   sync.RWMutex
	resumed chan struct{} // not nil while suspended; closed then

	mu        sync.Mutex
	closed    bool
	suspended bool // as resumed says, or about to be
	grants    map[key]*grant
	inherited map[*grant]struct{}          // of another process, whose secrets are not known
	left      []Entry                      // of earlier runs, until Recover takes them
	ended     *lru.Cache[string, struct{}] // ids of jobs that are over, lest a late request revives one
}

type key struct{ job, target string }

// Open opens the ledger. What it holds from earlier runs is left alone until
// [Manager.Recover] is called.
func Open(options Options) (*Manager, error) {
	withDefault(&options.MaxGrants, 4096)
	withDefault(&options.IssueTimeout, 30*time.Second)
	withDefault(&options.RevokeTimeout, time.Minute)
	withDefault(&options.RetryMin, time.Second)
	withDefault(&options.RetryMax, 5*time.Minute)
	if options.OnIssued == nil {
		options.OnIssued = func(event.CredentialIssued) {}
	}
	if options.OnRevoked == nil {
		options.OnRevoked = func(event.CredentialRevoked) {}
	}
	const rememberEnded = 4096
	ended, err := lru.New[string, struct{}](rememberEnded)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	ledger, err := OpenLedger(options.LedgerFile)
	if err != nil {
		return nil, err
	}
	left, err := ledger.Entries()
	if err != nil {
		return nil, errors.Join(err, ledger.Close())
	}
	m := &Manager{
		options: options, ledger: ledger, ended: ended, left: left,
		issuers: map[string]Issuer{}, grants: map[key]*grant{}, inherited: map[*grant]struct{}{},
	}
	for _, issuer := range options.Issuers {
		m.issuers[issuer.Kind()] = issuer
	}
	m.life, m.stop = context.WithCancel(context.Background())
	m.revoker = newRevoker(m.life, options, ledger, m.issuers)
	return m, nil
}

func withDefault[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// For returns the job's grant at the target, and makes it if there is none.
// Requests for the same job and target share one grant; ctx ends the waiting
// of this caller, not the work that others wait for.
func (m *Manager) For(ctx context.Context, request Request) (*Grant, error) {
	g, cached, err := m.find(request)
	if err != nil {
		return nil, fmt.Errorf("credential for target %s: %w", request.Target.Metadata.Name, err)
	}
	select {
	case <-g.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("credential for target %s: %w", request.Target.Metadata.Name, ctx.Err())
	}
	if g.err != nil {
		return nil, fmt.Errorf("credential for target %s: %w", request.Target.Metadata.Name, g.err)
	}
	m.mu.Lock()
	granted := &Grant{ID: g.entry.ID, Name: g.entry.Account.Name, Expires: g.expires, Cached: cached, manager: m, grant: g}
	m.mu.Unlock()
	if granted.Secret, err = granted.Fresh(); err != nil {
		return nil, fmt.Errorf("credential for target %s: %w", request.Target.Metadata.Name, err)
	}
	return granted, nil
}

// find returns the grant for a request, be it ready, under way or only now
// begun.
func (m *Manager) find(request Request) (g *grant, cached bool, err error) {
	spec, err := json.Marshal(request.Target.Spec.Credential)
	if err != nil {
		return nil, false, err
	}
	issuer, ok := m.issuers[kindOf(request.Target.Spec.Credential)]
	if !ok {
		return nil, false, ErrNoIssuer
	}
	deadline := earliest(request.Deadline, request.Principal.Expires)
	if !deadline.IsZero() && !deadline.After(time.Now()) {
		return nil, false, ErrExpired
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, false, ErrClosed
	}
	if m.suspended {
		return nil, false, ErrSuspended
	}
	if m.ended.Contains(request.Job) {
		return nil, false, ErrJobEnded
	}
	k := key{request.Job, request.Target.Metadata.Name}
	if g := m.grants[k]; g != nil {
		switch {
		case g.spec != string(spec):
			m.retire(g, &retirement{WhyTargetChanged, errTargetChanged})
		case g.isReady() && !g.expires.After(time.Now()):
			m.retire(g, &retirement{WhyExpired, ErrExpired})
		default:
			g.extend(deadline)
			return g, true, nil
		}
	}
	if len(m.grants) >= m.options.MaxGrants {
		return nil, false, ErrTooMany
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, false, err
	}
	g = newGrant(m.life, k, string(spec), deadline, Order{
		Grant: id.String(), Job: request.Job, JobName: request.JobName, Node: m.options.Node,
		Principal: request.Principal, Target: request.Target,
	})
	m.grants[k] = g
	m.keeper.Go(func() { m.keep(g, issuer) })
	return g, false, nil
}

// Why a credential was revoked, as events say it. EndJob's caller may have
// others.
const (
	WhyJobEnded      = "job_ended"
	WhyExpired       = "expired"        // the job's identity, or the account itself, ran out
	WhyTargetChanged = "target_changed" // its document asks for another account now
	WhyGone          = "gone"           // somebody else removed it
	WhyIssueFailed   = "issue_failed"   // it may have been made nevertheless
	WhyLocked        = "locked"
	WhyShutdown      = "shutdown"
	WhyRecovered     = "recovered" // left behind by an earlier run
)

// Revoke revokes the grants that match selects, of jobs that may be granted others
// later, and returns how many these are. It waits as [Manager.EndJob] does.
func (m *Manager) Revoke(ctx context.Context, why string, match func(job, target string) bool) (int, error) {
	m.mu.Lock()
	var selected []*grant
	for k, g := range m.grants {
		if match(k.job, k.target) {
			m.retire(g, &retirement{why, ErrRevoked})
			selected = append(selected, g)
		}
	}
	for g := range m.inherited {
		if match(g.key.job, g.key.target) {
			m.retire(g, &retirement{why, ErrRevoked})
			selected = append(selected, g)
		}
	}
	m.mu.Unlock()
	return len(selected), waitRetired(ctx, selected)
}

// Prolong lets what a job was granted live until a later deadline: its identity was
// renewed.
func (m *Manager) Prolong(job string, deadline time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, g := range m.grants {
		if k.job == job {
			g.extend(deadline)
		}
	}
}

// EndJob revokes all that the job was granted, and refuses it any more. It
// returns nil when the targets have confirmed it. After an error, or when ctx
// ends, revocation goes on in the background until it succeeds.
func (m *Manager) EndJob(ctx context.Context, job, why string) error {
	m.mu.Lock()
	m.ended.Add(job, struct{}{})
	var own []*grant
	for k, g := range m.grants {
		if k.job == job {
			m.retire(g, &retirement{why, ErrJobEnded})
			own = append(own, g)
		}
	}
	for g := range m.inherited {
		if g.key.job == job {
			m.retire(g, &retirement{why, ErrJobEnded})
			own = append(own, g)
		}
	}
	m.mu.Unlock()
	if err := waitRetired(ctx, own); err != nil {
		return err
	}
	return m.checkGone(job)
}

// checkGone fails when the ledger still holds something of the job, be it of
// a grant that was retired before the job's end.
func (m *Manager) checkGone(job string) error {
	m.using.RLock()
	defer m.using.RUnlock()
	if m.resumed != nil {
		return ErrSuspended
	}
	entries, err := m.ledger.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Job == job {
			return fmt.Errorf("%s at target %s is still being revoked", e.Account.Name, e.Target)
		}
	}
	return nil
}

// Recover revokes what earlier runs left in the ledger; it is called once,
// at the start, and may run beside requests. It waits, until ctx
// ends, for one attempt at each; those that failed are in the error, stay in
// the ledger and are tried again in the background.
func (m *Manager) Recover(ctx context.Context) error {
	m.mu.Lock()
	left := m.left
	m.left = nil
	m.mu.Unlock()
	var tasks []*task
	for _, e := range left {
		tasks = append(tasks, m.revoker.add(e, WhyRecovered))
	}
	var errs []error
	for _, t := range tasks {
		select {
		case <-t.first:
			errs = append(errs, t.err)
		case <-ctx.Done():
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}

// Close revokes all grants, waits for that until ctx ends, and closes the
// ledger. What couldn't be revoked stays in it for the next run's Recover. A
// manager that is suspended revokes nothing.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	if m.suspended {
		m.mu.Unlock()
		m.stop()
		m.keeper.Wait()
		m.revoker.wait()
		return nil
	}
	var all []*grant
	for _, g := range m.grants {
		m.retire(g, &retirement{WhyShutdown, ErrClosed})
		all = append(all, g)
	}
	for g := range m.inherited {
		m.retire(g, &retirement{WhyShutdown, ErrClosed})
		all = append(all, g)
	}
	m.mu.Unlock()
	err := waitRetired(ctx, all)
	m.stop()
	m.keeper.Wait()
	m.revoker.wait()
	return errors.Join(err, m.ledger.Close())
}

func waitRetired(ctx context.Context, grants []*grant) error {
	var errs []error
	for _, g := range grants {
		select {
		case <-g.over:
			errs = append(errs, g.outcome)
		case <-ctx.Done():
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}

// earliest is the earlier of two times, of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

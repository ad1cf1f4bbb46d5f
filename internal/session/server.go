// Package session takes a diverted connection from accept to end. It is the
// only room that knows the order of the steps: where the socket was going,
// whose it is, may it, with which credential, and then, command by command,
// decide, record, forward, mask. [Server.serve] reads top to bottom.
package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/certs"
	"chaperone.dev/chaperone/internal/clock"
	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/internal/mask"
	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/internal/target"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// Origins tells where a diverted socket was going.
type Origins interface {
	// Origin answers once per connection.
	Origin(conn *net.TCPConn) (intercept.Origin, error)
}

// Jobs tells whose a cgroup is.
type Jobs interface {
	ByCgroup(id uint64) (workload.Job, bool)
}

// Identifier says who a job acts for, and fails when it can't prove that.
type Identifier interface {
	Identify(ctx context.Context, job workload.Job) (workload.Job, error)
}

// Approvals asks people; [approval.Broker] does.
type Approvals interface {
	// Hold waits for the answer; waiting is called once people are asked.
	Hold(ctx context.Context, q approval.Question, waiting func(approval.Request)) (approval.Answer, error)
	// Retry doesn't wait: what is not approved yet is to be asked for again.
	Retry(ctx context.Context, q approval.Question) (approval.Answer, error)
}

// Locks are those in force; [lock.Keeper] keeps them.
type Locks interface {
	Match(lock.Facts) (lock.Lock, bool)
}

// What the kernel is told of a captured port, and tells of a connection to it.
const (
	ProtocolPostgres = 1
	ProtocolDNS      = 2
)

// Options configure a [Server]. All are required but Limits.
type Options struct {
	Cluster, Node string
	Origins       Origins
	Jobs          Jobs
	Identities    Identifier
	// Image is what the container of a pod's process was made from; empty when that can't
	// be told. The cgroup is the process's.
	Image func(job workload.Job, cgroup string) string
	// DNS serves a connection of a workload to a DNS server, whichever.
	DNS          func(ctx context.Context, conn net.Conn, workload uint64)
	Targets      *target.Registry
	Policies     func() *policy.Set
	Credentials  *credential.Manager
	Certificates *certs.Authority
	Journal      *journal.Journal
	Approvals    Approvals
	Locks        Locks
	Clock        *clock.Clock
	Parser       *pgsql.Parser
	Limits       policy.LimitsSpec
	Log          zerolog.Logger
}

// Server serves diverted connections.
type Server struct {
	opts      Options
	cancels   *postgres.Cancels
	catalogs  *catalogs
	functions *functions
	meanings  *meanings

	slots    chan struct{} // one per connection that may become a session
	refusals chan struct{} // one per connection that is only told that there is no room

	told refusals

	mu    sync.Mutex
	byJob map[string]map[*connection]struct{}
	left  chan struct{} // closed when the next connection has left its job
	rules map[rulesKey]compiledRules
}

// rulesKey is what masking rules depend on, besides the documents and what the
// job's principal is at the moment.
type rulesKey struct{ job, target string }

type compiledRules struct {
	set    *policy.Set
	proofs uint64 // of the job
	rules  *mask.Rules
}

// maxRefusals bounds the connections that are being told of a full node.
const maxRefusals = 64

// New returns a server; it serves nothing until [Server.Serve].
func New(opts Options) *Server {
	return &Server{
		opts:      opts,
		cancels:   &postgres.Cancels{},
		catalogs:  newCatalogs(),
		functions: newFunctions(),
		meanings:  newMeanings(),
		slots:     make(chan struct{}, opts.Limits.Sessions),
		refusals:  make(chan struct{}, maxRefusals),
		byJob:     map[string]map[*connection]struct{}{},
		left:      make(chan struct{}),
		rules:     map[rulesKey]compiledRules{},
	}
}

// Serve accepts until ctx is done, and returns when its connections have
// ended. It does nothing else on the accepting goroutine, so that no client
// can hold up another.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	for {
		accepted, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				// accept(2) ran out of descriptors or memory; sessions that end give them back.
				s.opts.Log.Error().Err(err).Msg("accepting a connection")
				select {
				case <-ctx.Done():
				case <-time.After(acceptPause):
				}
				continue
			}
			return fmt.Errorf("accepting connections: %w", err)
		}
		conn := accepted.(*net.TCPConn)
		serving.Go(func() { s.admit(ctx, conn) })
	}
}

// acceptPause keeps a node without file descriptors from spinning.
const acceptPause = 100 * time.Millisecond

// admit serves the connection if there is room, and tells it if there is none.
func (s *Server) admit(ctx context.Context, conn *net.TCPConn) {
	defer conn.Close()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
		s.serve(ctx, conn, nil)
	default:
		select {
		case s.refusals <- struct{}{}:
			defer func() { <-s.refusals }()
			s.serve(ctx, conn, &postgres.Refusal{
				Reason: event.ReasonLimit, SQLState: "53300",
				Message: fmt.Sprintf("this node has its limit of %d sessions", s.opts.Limits.Sessions),
			})
		default:
			s.opts.Log.Warn().Msg("connection closed: the node has its limit of sessions, and of clients being told so")
		}
	}
}

// leaveGrace is how long the sessions of a job that ended have to end by
// themselves: their clients are gone, so they are about to.
const leaveGrace = 500 * time.Millisecond

// EndJob ends the sessions of a job, and waits until they have ended or ctx
// is done.
func (s *Server) EndJob(ctx context.Context, job, reason string) {
	s.mu.Lock()
	ending := slices.Collect(maps.Keys(s.byJob[job]))
	maps.DeleteFunc(s.rules, func(key rulesKey, _ compiledRules) bool { return key.job == job })
	s.mu.Unlock()
	grace, cancel := context.WithTimeout(ctx, leaveGrace)
	defer cancel()
	if ended(grace, ending) {
		return
	}
	why := &postgres.Refusal{Reason: reason, SQLState: "57P01", Message: "the planner job of this session has ended"}
	if reason == event.ReasonNoIdentity {
		why = identityExpired()
	}
	for _, c := range ending {
		c.end(why)
	}
	ended(ctx, ending)
}

// ended waits until all of the connections have ended, and tells whether they
// had before ctx was done.
func ended(ctx context.Context, ending []*connection) bool {
	for _, c := range ending {
		select {
		case <-c.ended:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// rulesFor are the masks of a job at a target. Its sessions share them, and
// what they remember.
func (s *Server) rulesFor(c *connection) (*mask.Rules, error) {
	key := rulesKey{c.job.ID, c.match.Target.Metadata.Name}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.rules[key]; ok && known.set == c.set && known.proofs == c.job.Proofs {
		return known.rules, nil
	}
	keys, err := maskKeys(c.set, key.target, c.job.Principal)
	if err != nil {
		return nil, fmt.Errorf("masks of target %q: %w", key.target, err)
	}
	rules, err := keys.Compile(c.set.Masks, key.target, c.job.Principal)
	if err != nil {
		return nil, fmt.Errorf("masks of target %q: %w", key.target, err)
	}
	s.rules[key] = compiledRules{c.set, c.job.Proofs, rules}
	return rules, nil
}

// maxMaskKey bounds a key's file, in bytes.
const maxMaskKey = 4096

// maskKeys reads the keys that the masks of a principal at a target name.
func maskKeys(set *policy.Set, target string, principal policy.Principal) (mask.Keys, error) {
	keys := mask.Keys{}
	for _, name := range mask.KeyNames(set.Masks, target, principal) {
		source, ok := set.Node.Spec.Keys[name]
		if !ok {
			return nil, fmt.Errorf("the Node document has no key %q", name)
		}
		file, err := os.Open(source.File)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", name, err)
		}
		key, err := io.ReadAll(io.LimitReader(file, maxMaskKey+1))
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("key %q: %w", name, err)
		}
		if len(key) > maxMaskKey {
			return nil, fmt.Errorf("key %q: %s is longer than %d bytes", name, source.File, maxMaskKey)
		}
		keys[name] = bytes.TrimRight(key, "\r\n")
	}
	return keys, nil
}

// join counts a connection to its job, or refuses it for the job has its limit.
func (s *Server) join(c *connection, job string) *postgres.Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit := s.opts.Limits.SessionsPerJob; len(s.byJob[job]) >= limit {
		return &postgres.Refusal{
			Reason: event.ReasonLimit, SQLState: "53300",
			Message: fmt.Sprintf("this job has its limit of %d sessions", limit),
		}
	}
	c.facts = lock.Facts{
		Principal: c.job.Principal.Subject + "@" + c.job.Principal.Issuer,
		Workload:  []string{c.job.Name, c.job.ID, c.job.Workload},
		Target:    c.match.Target.Metadata.Name,
	}
	if s.byJob[job] == nil {
		s.byJob[job] = map[*connection]struct{}{}
	}
	s.byJob[job][c] = struct{}{}
	return nil
}

func (s *Server) leave(c *connection, job string) {
	s.mu.Lock()
	delete(s.byJob[job], c)
	if len(s.byJob[job]) == 0 {
		delete(s.byJob, job)
	}
	close(s.left)
	s.left = make(chan struct{})
	s.mu.Unlock()
	close(c.ended)
}

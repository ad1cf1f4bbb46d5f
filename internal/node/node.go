// Package node wires the rooms of one node's daemon together, starts them in
// the order in which each can rely on the ones before, and stops them in the
// other. "chaperone up" and "chaperoned" are this package with and without a
// NATS server and a sink in the same process.
package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/certs"
	"chaperone.dev/chaperone/internal/clock"
	"chaperone.dev/chaperone/internal/control"
	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresadmin"
	"chaperone.dev/chaperone/internal/credential/postgrescert"
	"chaperone.dev/chaperone/internal/credential/postgresrole"
	"chaperone.dev/chaperone/internal/credential/postgressecret"
	"chaperone.dev/chaperone/internal/documents"
	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/internal/netns"
	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/resolver"
	"chaperone.dev/chaperone/internal/session"
	"chaperone.dev/chaperone/internal/target"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// Options configure a node.
type Options struct {
	// Config is the folder of documents.
	Config string
	// State is the folder of keys, journal and ledger, and of NATS and the
	// sink where they are embedded.
	State string
	// Embedded runs a NATS server and a sink in this process.
	Embedded bool
	// NATSListen is where the embedded server listens, besides in this
	// process: "address:port", or empty for nowhere. It takes nobody without
	// a key.
	NATSListen string
	// TakeOver has a daemon that runs on the same run folder hand over to this one. Where
	// none runs it changes nothing.
	TakeOver bool
	// DrainTimeout bounds how long this daemon, when it has handed over to another
	// one, goes on with the sessions that it has; 0 means an hour.
	DrainTimeout time.Duration
	// Reload asks for the documents to be read again.
	Reload <-chan os.Signal
	// Probe is a command that calls [intercept.Probe]; see there.
	Probe []string
	// Ready, if it is not nil, is called once when the node enforces and
	// serves.
	Ready func(Status)
	Log   zerolog.Logger
}

// Status is what a node that is ready can be reached by.
type Status struct {
	Node     string
	RunDir   string
	NATS     string // address of the embedded server, or the configured URL
	Auditor  string // file with the NKey seed that may subscribe to events, where NATS is embedded
	Revision string // of the documents in force
}

// trustDir is the folder of the run folder that holds what clients verify the
// node with.
const trustDir = "trust"

// stopTimeout bounds the revocation of credentials when a node stops. What is
// not done by then is in the ledger, for the next start.
const stopTimeout = 20 * time.Second

// node is a daemon that is being started, runs, or is being stopped.
type node struct {
	opts   Options
	log    zerolog.Logger
	origin event.Origin
	spec   policy.NodeSpec

	documents   atomic.Pointer[policy.Set]
	source      *documents.Source
	clock       *clock.Clock
	authorities authority.Keys    // whose word counts for approvals, locks and documents
	signer      *authority.Signer // of the sink in this process; nil without one
	people      atomic.Pointer[people]
	authority   *certs.Authority
	key         ed25519.PrivateKey
	journal     *journal.Journal
	interceptor *intercept.Interceptor
	targets     *target.Registry
	names       *names
	resolver    *resolver.Resolver
	spaces      *netns.Keeper
	discovery   *discovery
	credentials *credential.Manager
	admins      postgresadmin.Idle
	identities  identities
	registry    atomic.Pointer[workload.Registry]
	sessions    *session.Server
	settingUp   arrivals
	events      *events
	from        *predecessor // nil: none was taken over from
	released    atomic.Bool  // another daemon writes the kernel's maps
}

// jobs are the node's. Those of before are forgotten when this daemon takes its place
// back.
func (n *node) jobs() *workload.Registry { return n.registry.Load() }

// Run runs a node until ctx is done or a part of it fails, or until it has handed over
// to another daemon and its last session has ended. With it stopped,
// the kernel goes on to divert planners' connections to where nobody listens:
// they are refused.
func Run(ctx context.Context, opts Options) (err error) {
	if err := harden(); err != nil {
		return err
	}
	tune()
	if opts.DrainTimeout == 0 {
		opts.DrainTimeout = time.Hour
	}
	n := &node{opts: opts, log: opts.Log, clock: clock.New(clock.Options{})}
	if err := n.openKeys(); err != nil {
		return err
	}
	if err := n.readDocuments(); err != nil {
		return err
	}
	if opts.TakeOver {
		if n.from, err = n.takeOver(ctx); err != nil {
			return err
		}
		defer n.from.close()
	}
	// Sockets keep the cgroup they are made in, so the daemon moves into its
	// own before it makes any.
	if err := n.openEnforcement(ctx); err != nil {
		return err
	}
	defer n.interceptor.Close()
	// Now that no other daemon's clients are misled.
	if err := n.authority.WriteTrust(filepath.Join(n.spec.RunDir, trustDir)); err != nil {
		return err
	}
	if err := n.openJournal(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.journal.Close()) }()
	if n.events, err = n.openEvents(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.closeEvents(true)) }()
	if err := n.openPeople(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.closePeople()) }()
	if err := n.openCredentials(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.closeCredentials(ctx)) }()
	if err := errors.Join(n.openNames(), n.openJobs()); err != nil {
		return err
	}
	n.openSessions()
	if err := n.enforce(ctx, n.documents.Load()); err != nil {
		return err
	}
	if err := n.openSpaces(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.closeSpaces()) }()
	for {
		successor, err := n.serve(ctx)
		if successor == nil {
			return err
		}
		err = n.handOver(ctx, successor)
		if err == nil {
			return n.drain(ctx, successor)
		}
		n.log.Error().Err(err).Msg("the daemon that was to take over is not ready; this one goes on")
		if err := errors.Join(successor.close(), n.takeBack(ctx)); err != nil {
			return err
		}
	}
}

// serve does a node's work until ctx is done, a part fails, or another daemon asks to
// take over, which it returns then.
func (n *node) serve(ctx context.Context) (_ *successor, err error) {
	// The group's context ends when any part fails; parts that others need to
	// the last (journal, bus) are stopped after it.
	serving, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(serving)
	defer func() {
		stop()
		if werr := group.Wait(); err == nil {
			err = werr
		}
	}()
	if n.events == nil {
		if n.events, err = n.openEvents(ctx); err != nil && ctx.Err() != nil {
			return nil, nil // it is being stopped, and is
		}
		if err != nil {
			return nil, err
		}
	}
	if n.people.Load().closed {
		if err := n.openPeople(); err != nil {
			return nil, err
		}
	}
	n.source.Bind(bus.BucketsOf(n.events.js).Documents)
	watchInterfaces, err := n.guardInterfaces()
	if err != nil {
		return nil, err
	}
	group.Go(func() error { return watchInterfaces(running) })
	if err := n.openDiscovery(); err != nil {
		return nil, err
	}
	// From here on it is this daemon that serves, and nobody else.
	if err := n.from.ready(); err != nil {
		return nil, err
	}
	n.spaces.Resume()
	group.Go(func() error { return n.discovery.run(running) })
	successors, err := n.awaitSuccessor(running)
	if err != nil {
		return nil, err
	}
	group.Go(func() error { return n.people.Load().broker.Run(running) })
	group.Go(func() error { return n.people.Load().locks.Run(running) })
	group.Go(func() error { return n.spaces.Run(running) })
	group.Go(func() error { return n.exempt(running) })
	group.Go(func() error { return n.targets.Run(running) })
	group.Go(func() error { return n.jobs().Run(running) })
	group.Go(func() error { return n.reportBypasses(running) })
	group.Go(func() error { return n.reportUntold(running) })
	group.Go(func() error { return n.keepPinned(running) })
	group.Go(func() error { return n.source.Run(running) })
	group.Go(func() error { return n.reloadDocuments(running) })
	group.Go(func() error { return n.renew(running) })
	group.Go(func() error {
		return control.Serve(running, filepath.Join(n.spec.RunDir, control.SocketName), n)
	})
	group.Go(func() error { return n.events.watch(running) })
	group.Go(func() error { return n.journal.Adopt(running, n.journalDir(), n.events.js) })
	group.Go(func() error { return n.followPredecessor(running) })
	var next *successor
	group.Go(func() error {
		next = successors(running)
		stop()
		return nil
	})

	// What ran before is known again before anybody is told that it is served.
	select {
	case <-n.discovery.cgroups.Ready():
	case <-running.Done():
	}
	n.announce()
	if n.opts.Ready != nil {
		n.opts.Ready(Status{
			Node: n.origin.Node, RunDir: n.spec.RunDir, NATS: n.events.url, Auditor: n.events.auditor,
			Revision: n.documents.Load().Revision,
		})
		n.opts.Ready = nil
	}
	n.notifyReady()
	err = group.Wait()
	if err != nil && next != nil {
		return nil, errors.Join(err, next.close())
	}
	if next == nil {
		notify("STOPPING=1")
	}
	return next, err
}

// readDocuments reads the documents for the first time. Without a good set
// nothing starts.
func (n *node) readDocuments() (err error) {
	var own authority.Keys
	if n.signer != nil {
		own = authority.Keys{n.signer.Public()}
	}
	n.source, err = documents.Open(documents.Options{
		Dir: n.opts.Config, State: filepath.Join(n.opts.State, "documents"), Keys: own,
		Changed: n.documentsChanged, Rejected: n.documentsRejected, Log: n.log,
	})
	if err != nil {
		return err
	}
	set := n.source.Set()
	if err := checkServed(set); err != nil {
		return err
	}
	n.documents.Store(set)
	n.spec = set.Node.Spec
	n.origin = event.Origin{Cluster: n.spec.Cluster, Node: set.Node.Metadata.Name}
	if n.origin.Node == "" {
		if n.origin.Node, err = os.Hostname(); err != nil {
			return fmt.Errorf("the node's name: %w", err)
		}
	}
	if n.authorities, err = authority.ParseKeys(n.spec.Authority.Keys); err != nil {
		return fmt.Errorf("the Node document's authority: %w", err)
	}
	n.authorities = append(n.authorities, own...)
	return nil
}

func (n *node) openKeys() (err error) {
	if err := os.MkdirAll(n.opts.State, 0o700); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	keys := filepath.Join(n.opts.State, "keys")
	if n.authority, err = certs.Open(keys); err != nil {
		return err
	}
	if n.key, err = certs.NodeKey(keys); err != nil {
		return err
	}
	if n.opts.Embedded {
		n.signer, err = authority.OpenSigner(filepath.Join(n.opts.State, "sink"))
	}
	return err
}

// openEnforcement puts the kernel's programs in force. They are attached
// once, above all planners, and stay when this process is gone.
func (n *node) openEnforcement(ctx context.Context) (err error) {
	n.interceptor, err = intercept.Open(ctx, intercept.Options{
		Ancestor: n.spec.Cgroup,
		PinDir:   n.spec.PinDir,
		Port:     uint16(n.spec.ListenPort),
		NodeBelt: n.spec.Belt == policy.BeltNode,
		Probe:    n.opts.Probe,
		Beside:   n.from.cgroup(),
		Log:      n.log,
	})
	return err
}

func (n *node) openCredentials(ctx context.Context) (err error) {
	n.credentials, err = credential.Open(credential.Options{
		LedgerFile: filepath.Join(n.opts.State, "ledger.db"),
		Node:       n.origin.Node,
		Issuers:    []credential.Issuer{postgresrole.Issuer{Idle: &n.admins}, postgrescert.Issuer{}, postgressecret.Issuer{}},
		OnIssued:   func(e event.CredentialIssued) { n.publish(e.Target, e.Job, e) },
		OnRevoked:  func(e event.CredentialRevoked) { n.publish(e.Target, e.Job, e) },
		Log:        n.log,
	})
	if err != nil {
		return err
	}
	if n.from != nil {
		n.credentials.Inherit(n.from.lives)
	}
	// What an earlier run granted and could not take back dies now, before
	// anything new is granted. A target that is down is tried again later.
	if err := n.credentials.Recover(ctx); err != nil {
		n.log.Warn().Err(err).Msg("credentials of an earlier run are not revoked yet; they are tried again")
	}
	return nil
}

// closeCredentials takes back what was granted: a node that doesn't run has
// no live credential anywhere. What another daemon goes on with is its.
func (n *node) closeCredentials(ctx context.Context) error {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	defer n.admins.Close()
	if !n.from.succeeded() {
		return errors.Join(n.credentials.Suspend(closing), n.credentials.Close(closing))
	}
	return n.credentials.Close(closing)
}

func (n *node) openJobs() error {
	registry, err := workload.Open(workload.Options{
		Cgroups:  filepath.Join(n.interceptor.Ancestor(), "jobs"),
		Dir:      filepath.Join(n.opts.State, "jobs"),
		Enforcer: n.interceptor,
		Ended:    n.jobEnded,
		Stirred:  n.visit,
		Log:      n.log,
	})
	if err == nil {
		n.registry.Store(registry)
	}
	return err
}

// ByCgroup implements [session.Jobs].
func (n *node) ByCgroup(id uint64) (workload.Job, bool) { return n.jobs().ByCgroup(id) }

func (n *node) openSessions() {
	n.sessions = session.New(session.Options{
		Cluster: n.origin.Cluster, Node: n.origin.Node,
		Origins: n, Jobs: n, Identities: n, Image: n.image, DNS: n.resolver.ServeTCP, Targets: n.targets, Policies: n.documents.Load,
		Credentials: n.credentials, Certificates: n.authority, Journal: n.journal,
		Approvals: n, Locks: n, Clock: n.clock,
		Parser: pgsql.NewParser(pgsql.Options{}), Limits: n.spec.Limits, Log: n.log,
	})
}

// jobEnded ends what the job had: its sessions first, then its credentials.
func (n *node) jobEnded(ctx context.Context, job workload.Job, why string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	n.sessions.EndJob(ctx, job.ID, event.ReasonJobEnded)
	n.people.Load().broker.EndJob(job.ID)
	if err := n.credentials.EndJob(ctx, job.ID, why); err != nil {
		n.log.Warn().Err(err).Str("job", job.ID).Msg("a credential is not revoked yet; it is tried again")
	}
	if err := n.spaces.Leave(job.CgroupID); err != nil {
		n.log.Warn().Err(err).Str("job", job.ID).Msg("leaving the job's network namespaces")
	}
	n.targets.Forget(job.CgroupID)
}

// publish records an event of the node. One that can't be recorded is not
// lost silently.
func (n *node) publish(targetName, subject string, data event.Data) {
	origin := n.origin
	origin.Target, origin.Subject = targetName, subject
	origin.Revision = n.documents.Load().Revision
	if err := n.journal.Event(origin, data); err != nil {
		n.log.Error().Err(err).Str("type", string(data.EventType())).Interface("event", data).Msg("an event can't be recorded")
	}
}

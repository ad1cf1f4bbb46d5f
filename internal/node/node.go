// Package node wires the rooms of one node's daemon together, starts them in
// the order in which each can rely on the ones before, and stops them in the
// other. "chaperone up" and "chaperoned" are this package with and without a
// NATS server and a sink in the same process.
package node

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/certs"
	"chaperone.dev/chaperone/internal/control"
	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgresrole"
	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/internal/netns"
	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/resolver"
	"chaperone.dev/chaperone/internal/session"
	"chaperone.dev/chaperone/internal/target"
	"chaperone.dev/chaperone/internal/version"
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
	identities  identities
	jobs        *workload.Registry
	sessions    *session.Server
}

// Run runs a node until ctx is done or a part of it fails. With it stopped,
// the kernel goes on to divert planners' connections to where nobody listens:
// they are refused.
func Run(ctx context.Context, opts Options) (err error) {
	if err := harden(); err != nil {
		return err
	}
	tune()
	n := &node{opts: opts, log: opts.Log}
	if err := n.readDocuments(); err != nil {
		return err
	}
	if err := n.openKeys(); err != nil {
		return err
	}
	// The group's context ends when any part fails; parts that others need to
	// the last (journal, bus) are stopped after it.
	group, running := errgroup.WithContext(ctx)

	// Sockets keep the cgroup they are made in, so the daemon moves into its
	// own before it makes any.
	if err := n.openEnforcement(running); err != nil {
		return err
	}
	defer n.interceptor.Close()
	events, err := n.openEvents(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.close()) }()
	if err := n.openCredentials(running); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.closeCredentials(ctx)) }()
	if err := errors.Join(n.openNames(), n.openJobs()); err != nil {
		return err
	}
	n.openSessions()
	if err := n.enforce(running, n.documents.Load()); err != nil {
		return err
	}
	watchInterfaces, err := n.guardInterfaces()
	if err != nil {
		return err
	}
	if err := n.openSpaces(running); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.spaces.Close()) }()
	if err := n.openDiscovery(); err != nil {
		return err
	}
	group.Go(func() error { return watchInterfaces(running) })
	group.Go(func() error { return n.spaces.Run(running) })
	group.Go(func() error { return n.discovery.run(running) })
	group.Go(func() error { return n.exempt(running) })
	group.Go(func() error { return n.targets.Run(running) })
	group.Go(func() error { return n.jobs.Run(running) })
	group.Go(func() error { return n.reportBypasses(running) })
	group.Go(func() error { return n.reloadDocuments(running) })
	group.Go(func() error {
		return control.Serve(running, filepath.Join(n.spec.RunDir, control.SocketName), n)
	})
	group.Go(func() error { return events.watch(running) })

	n.announce()
	if opts.Ready != nil {
		opts.Ready(Status{
			Node: n.origin.Node, RunDir: n.spec.RunDir, NATS: events.url, Auditor: events.auditor,
			Revision: n.documents.Load().Revision,
		})
	}
	notify("READY=1")
	err = group.Wait()
	notify("STOPPING=1")
	return err
}

// readDocuments reads the documents for the first time. Without a good set
// nothing starts.
func (n *node) readDocuments() error {
	set, err := policy.Load(n.opts.Config)
	if err != nil {
		return fmt.Errorf("documents in %s:\n%w", n.opts.Config, err)
	}
	n.documents.Store(set)
	n.spec = set.Node.Spec
	n.origin = event.Origin{Cluster: n.spec.Cluster, Node: set.Node.Metadata.Name}
	if n.origin.Node == "" {
		if n.origin.Node, err = os.Hostname(); err != nil {
			return fmt.Errorf("the node's name: %w", err)
		}
	}
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
	return n.authority.WriteTrust(filepath.Join(n.spec.RunDir, trustDir))
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
		Log:      n.log,
	})
	return err
}

func (n *node) openCredentials(ctx context.Context) (err error) {
	n.credentials, err = credential.Open(credential.Options{
		LedgerFile: filepath.Join(n.opts.State, "ledger.db"),
		Node:       n.origin.Node,
		Issuers:    []credential.Issuer{postgresrole.Issuer{}},
		OnIssued:   func(e event.CredentialIssued) { n.publish(e.Target, e.Job, e) },
		OnRevoked:  func(e event.CredentialRevoked) { n.publish(e.Target, e.Job, e) },
		Log:        n.log,
	})
	if err != nil {
		return err
	}
	// What an earlier run granted and could not take back dies now, before
	// anything new is granted. A target that is down is tried again later.
	if err := n.credentials.Recover(ctx); err != nil {
		n.log.Warn().Err(err).Msg("credentials of an earlier run are not revoked yet; they are tried again")
	}
	return nil
}

// closeCredentials takes back what was granted: a node that doesn't run has
// no live credential anywhere.
func (n *node) closeCredentials(ctx context.Context) error {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return n.credentials.Close(closing)
}

func (n *node) openJobs() (err error) {
	n.jobs, err = workload.Open(workload.Options{
		Cgroups:  filepath.Join(n.interceptor.Ancestor(), "jobs"),
		Dir:      filepath.Join(n.opts.State, "jobs"),
		Enforcer: n.interceptor,
		Ended:    n.jobEnded,
		Stirred:  n.visit,
		Log:      n.log,
	})
	return err
}

func (n *node) openSessions() {
	n.sessions = session.New(session.Options{
		Cluster: n.origin.Cluster, Node: n.origin.Node,
		Origins: n.interceptor, Jobs: n.jobs, Identities: n, DNS: n.resolver.ServeTCP, Targets: n.targets, Policies: n.documents.Load,
		Credentials: n.credentials, Certificates: n.authority, Journal: n.journal,
		Parser: pgsql.NewParser(pgsql.Options{}), Limits: n.spec.Limits, Log: n.log,
	})
}

// jobEnded ends what the job had: its sessions first, then its credentials.
func (n *node) jobEnded(ctx context.Context, job workload.Job, why string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	n.sessions.EndJob(ctx, job.ID, event.ReasonJobEnded)
	if err := n.credentials.EndJob(ctx, job.ID, why); err != nil {
		n.log.Warn().Err(err).Str("job", job.ID).Msg("a credential is not revoked yet; it is tried again")
	}
	if err := n.spaces.Leave(job.CgroupID); err != nil {
		n.log.Warn().Err(err).Str("job", job.ID).Msg("leaving the job's network namespaces")
	}
	n.targets.Forget(job.CgroupID)
}

// enforce puts a set's targets in force: names are resolved, and the kernel
// diverts their ports wherever planners use them.
func (n *node) enforce(ctx context.Context, set *policy.Set) error {
	ports, err := target.Ports(set.Targets)
	if err == nil && ports[dnsPort] != "" {
		err = fmt.Errorf("port %d can't be a target's: it is where planners' names are resolved", dnsPort)
	}
	if err := errors.Join(err, checkProfiles(set)); err != nil {
		return err
	}
	var others []string
	for _, document := range set.Workloads {
		others = append(others, namesOf(document)...)
	}
	if err := n.targets.Set(ctx, set.Targets, others); err != nil {
		return err
	}
	captures := []intercept.Capture{{Port: dnsPort, Action: intercept.Redirect, Protocol: session.ProtocolDNS, Datagrams: true}}
	for port := range ports {
		captures = append(captures, intercept.Capture{Port: port, Action: intercept.Redirect, Protocol: session.ProtocolPostgres})
	}
	if err := errors.Join(n.names.refresh(set), n.interceptor.Capture(captures)); err != nil {
		return err
	}
	for _, job := range n.jobs.Jobs() {
		if document := set.Workload(job.Workload); document != nil {
			if err := n.jobs.Restrict(job, profileOf(document)); err != nil {
				return err
			}
		}
	}
	return nil
}

// dnsPort is where names are resolved (RFC 1035 section 4.2).
const dnsPort = 53

// exemptEvery is how often cgroups that are exempt from the node's belt are looked for.
const exemptEvery = 10 * time.Second

// exempt lets the cgroups that the Node document lists reach targets, once they are
// there, until ctx is done.
func (n *node) exempt(ctx context.Context) error {
	look := time.NewTicker(exemptEvery)
	defer look.Stop()
	for {
		for _, name := range n.spec.Exempt {
			_, err := n.interceptor.Exempt(filepath.Join(n.interceptor.CgroupRoot(), name))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("exempt cgroup %s: %w", name, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// reloadDocuments reads the documents again when it is asked to. A set that
// is refused changes nothing.
func (n *node) reloadDocuments(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.opts.Reload:
		}
		set, err := policy.Load(n.opts.Config)
		if err == nil && !reflect.DeepEqual(set.Node.Spec, n.spec) {
			err = errors.New("the Node document was changed, which takes a restart")
		}
		if err == nil {
			err = n.enforce(ctx, set)
		}
		if err != nil {
			kept := n.documents.Load().Revision
			n.log.Error().Err(err).Str("kept", kept).Msg("documents refused; the last good ones stay in force")
			n.publish("", "", event.PolicyRejected{Kept: kept, Errors: policy.Messages(err)})
			continue
		}
		n.documents.Store(set)
		n.discovery.lookAgain()
		n.log.Info().Str("revision", set.Revision).Msg("documents in force")
		n.publish("", "", event.PolicyLoaded{Revision: set.Revision, Documents: set.Counts()})
	}
}

// announce tells the world that the node enforces, and by which key its
// recordings can be verified.
func (n *node) announce() {
	set := n.documents.Load()
	var kernel unix.Utsname
	_ = unix.Uname(&kernel)
	n.publish("", "", event.NodeStarted{
		Version: version.Version, Kernel: unix.ByteSliceToString(kernel.Release[:]),
		RecordingKey: base64.StdEncoding.EncodeToString(n.key.Public().(ed25519.PublicKey)),
	})
	n.publish("", "", event.PolicyLoaded{Revision: set.Revision, Documents: set.Counts()})
}

// reportBypasses publishes what the kernel stopped outside of the proxy.
func (n *node) reportBypasses(ctx context.Context) error {
	return n.interceptor.Bypasses(ctx, func(b intercept.Bypass) {
		if b.Outcome == intercept.RefusedClosed {
			n.sought(ctx, b)
			return
		}
		data := event.Bypass{Process: event.Process(b.Process), SocketType: b.Socket, Hook: b.Hook, Count: 1}
		if b.Destination.IsValid() {
			data.Destination = b.Destination.String()
		}
		if job, ok := n.jobs.ByCgroup(b.Workload); ok {
			data.Job = job.ID
		}
		n.log.Warn().Str("job", data.Job).Str("destination", data.Destination).Str("socket", data.SocketType).
			Str("hook", data.Hook).Uint32("pid", data.Process.PID).Msg("attempt to bypass the proxy stopped")
		n.publish("", data.Job, data)
	})
}

// publish records an event of the node. One that can't be recorded is not
// lost silently.
func (n *node) publish(targetName, subject string, data event.Data) {
	origin := n.origin
	origin.Target, origin.Subject = targetName, subject
	if err := n.journal.Event(origin, data); err != nil {
		n.log.Error().Err(err).Str("type", string(data.EventType())).Interface("event", data).Msg("an event can't be recorded")
	}
}

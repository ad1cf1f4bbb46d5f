package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/desk"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/event"
)

// SinkSocket is the name of the embedded sink's socket in the run folder.
const SinkSocket = "sink.sock"

// drainTimeout bounds how long a stopping node goes on publishing. The rest is
// in the journal, for the next start.
const drainTimeout = 5 * time.Second

// events is the way of what is recorded: journal, NATS, and the sink where it
// is embedded. It outlives everything that records.
type events struct {
	node    *node
	server  *bus.Server // nil: NATS is elsewhere
	conns   []*nats.Conn
	sink    *sink.Sink          // nil: the sink is elsewhere
	desk    *desk.Desk          // likewise
	js      jetstream.JetStream // to publish with
	url     string
	auditor string

	stop context.CancelFunc
	work *errgroup.Group
	ctx  context.Context // of the work: it ends when a part fails
}

// journalDir is the first of the node's journals.
func (n *node) journalDir() string { return filepath.Join(n.opts.State, "journal") }

// openJournal opens a journal that no other daemon holds.
func (n *node) openJournal() (err error) {
	n.journal, err = journal.OpenFree(journal.Options{
		Dir: n.journalDir(), MaxBytes: int64(n.spec.Journal.MaxBytes),
		Cluster: n.origin.Cluster, Node: n.origin.Node, Key: n.key, Log: n.log,
		OnDegraded: func(used, limit int64) {
			n.log.Error().Int64("used", used).Int64("limit", limit).Msg("the journal fills: NATS does not take what is recorded")
		},
	})
	return err
}

// openEvents begins to publish what is in the journal.
func (n *node) openEvents(ctx context.Context) (_ *events, err error) {
	e := &events{node: n}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close(true))
		}
	}()
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	e.work, e.ctx = errgroup.WithContext(working)
	connect := e.connectRemote
	if n.opts.Embedded {
		connect = e.connectEmbedded
	}
	if e.js, err = connect(ctx); err != nil {
		return nil, err
	}
	e.work.Go(func() error { return n.journal.Run(e.ctx, e.js) })
	return e, nil
}

// connectRemote connects to the NATS servers that the Node document names.
func (e *events) connectRemote(context.Context) (jetstream.JetStream, error) {
	spec := e.node.spec.NATS
	if spec.URL == "" {
		return nil, errors.New(`the Node document names no NATS server (spec.nats.url); on one machine "chaperone up" brings its own`)
	}
	e.url = spec.URL
	conn, err := bus.Connect(bus.Remote{
		URL: spec.URL, Role: bus.RoleNode, SeedFile: spec.NKeyFile, CredsFile: spec.CredsFile, CAFile: spec.CAFile,
		Changed: func(connected bool, err error) {
			e.node.log.Warn().Bool("connected", connected).Err(err).Msg("NATS connection changed")
		},
	})
	if err != nil {
		return nil, err
	}
	e.conns = append(e.conns, conn)
	return jetstream.New(conn)
}

// connectEmbedded starts a NATS server and a sink in this process.
func (e *events) connectEmbedded(ctx context.Context) (jetstream.JetStream, error) {
	n := e.node
	var err error
	e.server, err = bus.Embedded(ctx, bus.Options{
		Dir: n.opts.State, Cluster: n.origin.Cluster, Node: n.origin.Node, Listen: n.opts.NATSListen, Log: n.log,
	})
	if err != nil {
		return nil, err
	}
	e.url, e.auditor = e.server.URL(), bus.SeedFile(n.opts.State, bus.RoleAuditor)
	streams := map[bus.Role]jetstream.JetStream{}
	for _, role := range []bus.Role{bus.RoleNode, bus.RoleSink} {
		conn, err := e.server.Connect(role)
		if err != nil {
			return nil, err
		}
		e.conns = append(e.conns, conn)
		if streams[role], err = jetstream.New(conn); err != nil {
			return nil, err
		}
	}
	e.sink, err = sink.Open(ctx, sink.Options{
		Dir: filepath.Join(n.opts.State, "sink"), JetStream: streams[bus.RoleSink],
		Keys: map[string]ed25519.PublicKey{event.Token(n.origin.Node): n.key.Public().(ed25519.PublicKey)}, Log: n.log,
	})
	if err != nil {
		return nil, err
	}
	set := n.documents.Load()
	e.desk, err = desk.Open(desk.Options{
		Buckets: bus.BucketsOf(streams[bus.RoleSink]), Signer: n.signer, Sink: set.Sink, Providers: set.IdentityProviders,
		Audit: func(o event.Origin, data event.Data) { n.publish(o.Target, o.Subject, data) }, Log: n.log,
	})
	if err != nil {
		return nil, err
	}
	// Locks that NATS loses are put back, to be released from here.
	locks, err := lock.Open(lock.Options{
		KV: bus.BucketsOf(streams[bus.RoleSink]).Locks, Keys: n.authorities, Clock: n.clock,
		Dir: filepath.Join(n.opts.State, "sink", "locks"), Restore: true, Log: n.log,
	})
	if err != nil {
		return nil, err
	}
	e.work.Go(func() error { return locks.Run(e.ctx) })
	people := sink.Mount{Patterns: desk.LocalPatterns(), Handler: e.desk.LocalHandler(n.mayAsk)}
	e.work.Go(func() error { return e.sink.Run(e.ctx) })
	e.work.Go(func() error { return e.sink.Serve(e.ctx, filepath.Join(n.spec.RunDir, SinkSocket), people) })
	e.work.Go(func() error { return e.desk.Run(e.ctx) })
	e.work.Go(func() error { return e.desk.ServeTCP(e.ctx, nil) })
	return streams[bus.RoleNode], nil
}

// watch fails when a part of the way fails.
func (e *events) watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-e.ctx.Done():
		return fmt.Errorf("what is recorded can't be published any more: %w", context.Cause(e.ctx))
	}
}

// closeEvents closes the way of what is recorded; drain waits for what is under way.
func (n *node) closeEvents(drain bool) error {
	if n.events == nil {
		return nil
	}
	e := n.events
	n.events = nil
	return e.close(drain)
}

// close publishes what is left, for a moment, and closes the way.
func (e *events) close(drain bool) error {
	var errs []error
	if e.stop != nil {
		if drain {
			e.drain()
		}
		e.stop()
		errs = append(errs, e.work.Wait())
	}
	if e.desk != nil {
		e.desk.Close()
	}
	if e.sink != nil {
		errs = append(errs, e.sink.Close())
	}
	for _, conn := range e.conns {
		conn.Close()
	}
	if e.server != nil {
		e.server.Shutdown()
	}
	return errors.Join(errs...)
}

// drain waits until NATS has acknowledged what was recorded.
func (e *events) drain() {
	deadline := time.NewTimer(drainTimeout)
	defer deadline.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		if stats := e.node.journal.Stats(); stats.Unread == 0 && stats.Lag == 0 {
			return
		}
		select {
		case <-deadline.C:
			return
		case <-e.ctx.Done():
			return
		case <-look.C:
		}
	}
}

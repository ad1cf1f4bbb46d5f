package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/handover"
	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/netns"
	"chaperone.dev/chaperone/internal/version"
	"chaperone.dev/chaperone/internal/workload"
)

// takeOverTimeout bounds how long the daemon that hands over takes to let go of everything,
// and readyTimeout how long its successor then takes to be ready.
const (
	takeOverTimeout = time.Minute
	readyTimeout    = 2 * time.Minute
)

// predecessor is the daemon that this one takes over from. Its methods may be called on nil,
// which is none.
type predecessor struct {
	conn     *handover.Conn
	sockets  []netns.Handover // until takeSockets
	released handover.Released
	told     atomic.Bool // that this daemon is ready
	ended    atomic.Bool
}

func (n *node) hello() handover.Hello {
	return handover.Hello{
		Protocol: handover.Protocol, Version: version.Version, Maps: intercept.MapsVersion,
		Cluster: n.origin.Cluster, Node: n.origin.Node, Cgroup: n.spec.Cgroup, PinDir: n.spec.PinDir,
		State: absolute(n.opts.State), Port: n.spec.ListenPort, Embedded: n.opts.Embedded,
	}
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// takeOver asks a running daemon for its place. It returns nil when none runs.
func (n *node) takeOver(ctx context.Context) (*predecessor, error) {
	ctx, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	conn, sockets, released, err := handover.TakeOver(ctx, filepath.Join(n.spec.RunDir, handover.SocketName), n.hello())
	if errors.Is(err, handover.ErrNobody) {
		n.log.Info().Msg("no daemon runs to take over from")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n.log.Info().Int("sockets", len(sockets)).Int("jobs", len(released.Jobs)).Int("sessions", released.Sessions).Msg("taking over from the running daemon")
	return &predecessor{conn: conn, sockets: sockets, released: released}, nil
}

func (p *predecessor) close() {
	if p == nil {
		return
	}
	for _, h := range p.takeSockets() {
		h.Close()
	}
	_ = p.conn.Close()
}

// takeSockets are the sockets that were handed over, the first time.
func (p *predecessor) takeSockets() []netns.Handover {
	if p == nil {
		return nil
	}
	sockets := p.sockets
	p.sockets = nil
	return sockets
}

func (p *predecessor) cgroup() uint64 {
	if p == nil {
		return 0
	}
	return p.released.Cgroup
}

// lives tells whether a job lived when the other daemon let go.
func (p *predecessor) lives(job string) bool { return slices.Contains(p.released.Jobs, job) }

// ready makes this daemon the one that serves.
func (p *predecessor) ready() error {
	if p == nil || p.told.Load() {
		return nil
	}
	if err := p.conn.Ready(); err != nil {
		return fmt.Errorf("telling the other daemon that this one is ready: %w", err)
	}
	p.told.Store(true)
	return nil
}

// succeeded tells whether everything is this daemon's, and not the other one's yet.
func (p *predecessor) succeeded() bool { return p == nil || p.told.Load() }

// inheritedGrace is how long a job that the other daemon knew has to be found by this one.
const inheritedGrace = time.Minute

// followPredecessor waits until the other daemon has ended, and ends what it knew of jobs that are no
// more.
func (n *node) followPredecessor(ctx context.Context) error {
	if n.from == nil || n.from.ended.Load() {
		return nil
	}
	grace := time.AfterFunc(inheritedGrace, func() {
		for _, job := range n.credentials.InheritedJobs() {
			if slices.ContainsFunc(n.jobs().Jobs(), func(j workload.Job) bool { return j.ID == job }) || ctx.Err() != nil {
				continue
			}
			ending, cancel := context.WithTimeout(ctx, stopTimeout)
			if err := n.credentials.EndJob(ending, job, credential.WhyJobEnded); err != nil {
				n.log.Warn().Err(err).Str("job", job).Msg("a credential is not revoked yet; it is tried again")
			}
			cancel()
		}
	})
	defer grace.Stop()
	if !n.from.conn.WaitEnd(ctx) {
		return nil
	}
	n.from.ended.Store(true)
	n.log.Info().Msg("the daemon that handed over has ended")
	if _, own := n.interceptor.Own(); own != n.from.cgroup() {
		return n.interceptor.Withdraw(n.from.cgroup())
	}
	return nil
}

// successor is a daemon that takes over from this one.
type successor struct{ conn *handover.Conn }

func (s *successor) close() error { return s.conn.Close() }

// awaitSuccessor makes the socket where one asks, and returns what waits for one: nil when
// ctx was done before.
func (n *node) awaitSuccessor(ctx context.Context) (wait func(context.Context) *successor, err error) {
	listener, err := handover.Listen(ctx, filepath.Join(n.spec.RunDir, handover.SocketName))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) *successor {
		defer listener.Close()
		stop := context.AfterFunc(ctx, func() { listener.Close() })
		defer stop()
		for {
			conn, err := listener.AcceptUnix()
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				n.log.Error().Err(err).Msg("no daemon can take over from this one until it is started again")
				<-ctx.Done()
				return nil
			}
			if s := n.greet(conn); s != nil {
				return s
			}
		}
	}, nil
}

// greet returns who has connected, if it may take over.
func (n *node) greet(conn *net.UnixConn) *successor {
	err := n.mayTakeOver(conn)
	if err != nil {
		n.log.Warn().Err(err).Msg("a process that asked to take over is refused")
		_ = conn.Close()
		return nil
	}
	c, hello, err := handover.Greet(conn)
	if err != nil {
		n.log.Warn().Err(err).Msg("a process that asked to take over is refused")
		_ = conn.Close()
		return nil
	}
	if err := n.fits(hello); err != nil {
		n.log.Warn().Err(err).Str("version", hello.Version).Msg("a daemon that asked to take over is refused")
		_ = c.Refuse(err)
		_ = c.Close()
		return nil
	}
	n.log.Info().Str("version", hello.Version).Msg("handing over to another daemon")
	return &successor{conn: c}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/handover"
	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/session"
	"chaperone.dev/chaperone/internal/workload"
)

// mayTakeOver fails unless root asks, and no planner.
func (n *node) mayTakeOver(conn *net.UnixConn) error {
	pid, uid, err := handover.Peer(conn)
	if err != nil {
		return fmt.Errorf("the kernel doesn't say who asks: %w", err)
	}
	if uid != 0 {
		return fmt.Errorf("process %d of user %d is not root's", pid, uid)
	}
	below, err := workload.Inside(pid, n.interceptor.Ancestor())
	if err != nil || !below {
		return err
	}
	path, _ := n.interceptor.Own()
	if own, err := workload.Inside(pid, path); err != nil || !own {
		return errors.Join(fmt.Errorf("process %d lives where planners do", pid), err)
	}
	return nil
}

// fits fails unless a daemon that says this can go on with what this one has.
func (n *node) fits(hello handover.Hello) error {
	own := n.hello()
	own.Version = hello.Version
	if own == hello {
		return nil
	}
	if hello.Maps != own.Maps || hello.Protocol != own.Protocol {
		return fmt.Errorf("versions %s and %s can't have each other's sockets (kernel maps %s and %s, protocol %d and %d): stop the running one, then start the other",
			own.Version, hello.Version, own.Maps, hello.Maps, own.Protocol, hello.Protocol)
	}
	return fmt.Errorf("its node, cluster, cgroup, pins, port or state differ (%+v, here %+v), which takes a restart", hello, own)
}

// releaseTimeout bounds how long connections that are being set up, and credentials that are
// being made, hold up a successor.
const releaseTimeout = 15 * time.Second

// handOver gives another daemon everything but the established sessions. It returns nil when
// that one serves.
func (n *node) handOver(ctx context.Context, s *successor) error {
	ctx = context.WithoutCancel(ctx) // what was begun has to come to one end or the other
	n.spaces.Pause()
	releasing, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	n.settle(releasing)
	if n.opts.Embedded {
		// The server is the other one's from here on, and so is it to publish what
		// this one still writes down.
		if err := n.closeEvents(false); err != nil {
			n.log.Warn().Err(err).Msg("closing NATS and the sink")
		}
	}
	if err := n.closePeople(); err != nil {
		return err
	}
	if err := n.credentials.Suspend(releasing); err != nil {
		return err
	}
	n.released.Store(true)
	if err := n.interceptor.Release(); err != nil {
		return err
	}
	_, own := n.interceptor.Own()
	r := handover.Released{Cgroup: own, Sessions: n.journal.Stats().Open}
	for _, job := range n.jobs().Jobs() {
		r.Jobs = append(r.Jobs, job.ID)
	}
	if err := s.conn.Release(n.spaces.Sockets(), r); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return s.conn.WaitReady(waiting)
}

// drain goes on with the sessions that there are, until the last has ended.
func (n *node) drain(ctx context.Context, s *successor) error {
	defer s.close()
	n.log.Info().Int("sessions", n.journal.Stats().Open).Stringer("timeout", n.opts.DrainTimeout).
		Msg("another daemon has taken over; this one ends with its last session")
	ctx, cancel := context.WithTimeout(ctx, n.opts.DrainTimeout)
	defer cancel()
	following, stop := context.WithCancel(ctx)
	locks := make(chan error, 1)
	go func() { locks <- n.people.Load().locks.Drain(following) }()
	err := n.spaces.Drain(ctx)
	stop()
	err = errors.Join(err, <-locks)
	n.log.Info().Msg("the last session has ended")
	return err
}

// reclaimPause is the time between two attempts to have everything back.
const reclaimPause = 50 * time.Millisecond

// takeBack undoes handOver: the other daemon has come to nothing, or is about to.
func (n *node) takeBack(ctx context.Context) error {
	told := false
	for {
		err := n.interceptor.Reclaim()
		if err == nil {
			break
		}
		if !errors.Is(err, intercept.ErrRunning) {
			return err
		}
		if !told {
			n.log.Error().Err(err).Msg("waiting until the other daemon has ended; planners' connections wait too")
			told = true
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(reclaimPause):
		}
	}
	n.released.Store(false)
	if err := errors.Join(n.credentials.Resume(), n.openJobs()); err != nil {
		return err
	}
	return n.enforce(context.WithoutCancel(ctx), n.documents.Load())
}

// arrivals knows the connections that were accepted, to tell those that are being set up.
type arrivals struct {
	mu    sync.Mutex
	conns map[*net.TCPConn]struct{}
	prune int
}

// Origin implements [session.Origins].
func (n *node) Origin(conn *net.TCPConn) (intercept.Origin, error) {
	origin, err := n.interceptor.Origin(conn)
	if err == nil && origin.Protocol != session.ProtocolDNS {
		n.settingUp.add(conn)
	}
	return origin, err
}

// add notes a connection, and forgets those that are closed, once they are many.
func (a *arrivals) add(conn *net.TCPConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns == nil {
		a.conns = map[*net.TCPConn]struct{}{}
	}
	a.conns[conn] = struct{}{}
	if len(a.conns) > a.prune {
		a.prune = 2*a.forgetClosed() + 64
	}
}

func (a *arrivals) forgetClosed() (left int) {
	for conn := range a.conns {
		raw, err := conn.SyscallConn()
		if err == nil {
			err = raw.Control(func(uintptr) {})
		}
		if err != nil {
			delete(a.conns, conn)
		}
	}
	return len(a.conns)
}

// open is the number of connections that are not closed.
func (a *arrivals) open() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.forgetClosed()
}

// settle waits, until ctx is done, for connections that are being set up: each becomes a session or
// is closed.
func (n *node) settle(ctx context.Context) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for calm := 0; calm < 3; {
		calm++
		if n.settingUp.open() > n.journal.Stats().Open {
			calm = 0
		}
		select {
		case <-ctx.Done():
			n.log.Warn().Msg("connections that are still being set up are refused: they take too long")
			return
		case <-look.C:
		}
	}
}

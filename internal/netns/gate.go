package netns

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// gate is a listener that can stop accepting while its socket stays open: what connects
// meanwhile waits in the kernel's queue.
type gate struct {
	*net.TCPListener

	mu     sync.Mutex
	opened chan struct{} // closed while it is open
	over   chan struct{} // closed when it won't open again
	ending sync.Once
}

func newGate(l *net.TCPListener) *gate {
	g := &gate{TCPListener: l, opened: make(chan struct{}), over: make(chan struct{})}
	close(g.opened)
	return g
}

// Accept implements [net.Listener]. While the gate is shut it waits.
func (g *gate) Accept() (net.Conn, error) {
	for {
		g.mu.Lock()
		opened := g.opened
		g.mu.Unlock()
		select {
		case <-g.over:
			return nil, net.ErrClosed
		case <-opened:
		}
		conn, err := g.AcceptTCP()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // it was shut
		}
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}

// shut stops accepting. Nothing is accepted after it has returned, but for what Accept is
// about to return.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.opened:
		g.opened = make(chan struct{})
	default:
	}
	_ = g.SetDeadline(time.Unix(1, 0)) // fails on one that is closed
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.SetDeadline(time.Time{})
	select {
	case <-g.opened:
	default:
		close(g.opened)
	}
}

// Close implements [net.Listener].
func (g *gate) Close() error {
	g.ending.Do(func() { close(g.over) })
	return g.TCPListener.Close()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/intercept"
)

// pause is between two looks at a listener. Whoever waits for a connection is woken by
// connect(2), which costs as much as the programs do, so nobody waits.
const pause = 50 * time.Microsecond

// acceptAll takes what waits at a listener, until ctx is done.
func acceptAll(ctx context.Context, listener int, serve func(fd int)) {
	look := time.NewTicker(pause)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		for {
			fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if err != nil {
				break // nobody is there
			}
			serve(fd)
		}
	}
}

// serveConnects is a server outside the ancestor: it accepts on all of the ports that are
// connected to directly, and has a socket for datagrams, which nobody reads. It says
// when it is ready, and ends with its input.
func serveConnects(in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for _, port := range []int{otherPort, targetPort} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err == nil {
			err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: port}), unix.Listen(fd, 4096))
		}
		if err != nil {
			return fmt.Errorf("listen at port %d: %w", port, err)
		}
		go acceptAll(ctx, fd, func(fd int) { unix.Close(fd) })
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: otherPort})
	}
	if err != nil {
		return fmt.Errorf("socket for datagrams: %w", err)
	}
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// proxy is the daemon's end of diverted connections: it takes their origins, and no more.
type proxy struct {
	interceptor *intercept.Interceptor
	socket      *os.File
	stop        context.CancelFunc
	done        chan struct{}
	diverted    atomic.Int64
	failed      atomic.Pointer[error] // the first connection without its origin
}

func startProxy(ctx context.Context, i *intercept.Interceptor) (*proxy, error) {
	listeners, err := i.Listen(ctx, intercept.Namespace{})
	if err != nil {
		return nil, err
	}
	// A second name of the socket, which Go's poller doesn't wait at.
	socket, err := listeners[0].File()
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	if err != nil {
		return nil, err
	}
	fd := int(socket.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	accepting, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &proxy{interceptor: i, socket: socket, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		acceptAll(accepting, fd, p.serve)
	}()
	return p, nil
}

func (p *proxy) serve(fd int) {
	if err := p.takeOrigin(fd); err != nil {
		p.failed.CompareAndSwap(nil, &err)
		return
	}
	p.diverted.Add(1)
}

func (p *proxy) takeOrigin(fd int) error {
	file := os.NewFile(uintptr(fd), "accepted")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return err
	}
	defer conn.Close()
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("accepted a %T", conn)
	}
	origin, err := p.interceptor.Origin(tcp)
	if err == nil && origin.Destination != at(targetHost, targetPort) {
		err = fmt.Errorf("a connection to %s was diverted", origin.Destination)
	}
	return err
}

// expect waits until as many connections have been diverted, no more and no fewer.
func (p *proxy) expect(ctx context.Context, count int64) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	look := time.NewTicker(pause)
	defer look.Stop()
	for {
		if err := p.failed.Load(); err != nil {
			return *err
		}
		switch got := p.diverted.Load(); {
		case got == count:
			return nil
		case got > count:
			return fmt.Errorf("%d connections were diverted, and %d should have been", got, count)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d connections were diverted, of %d: %w", p.diverted.Load(), count, ctx.Err())
		case <-look.C:
		}
	}
}

func (p *proxy) close() error {
	p.stop()
	<-p.done
	return p.socket.Close()
}

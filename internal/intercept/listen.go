package intercept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. The zero value is the one that the daemon
// runs in.
type Namespace struct {
	// Path is of a namespace file, such as /proc/PID/ns/net.
	Path string
}

// Listen opens the listeners of a namespace: on 127.0.0.1 and, where the
// namespace has it, on ::1. The kernel programs divert to no others. Connections
// that are accepted go to [Interceptor.Origin] before anything else is done with
// them. The listeners are the caller's to close.
func (i *Interceptor) Listen(ctx context.Context, ns Namespace) ([]*net.TCPListener, error) {
	var listeners []*net.TCPListener
	err := ns.do(func() error {
		for _, at := range []struct{ network, host string }{{"tcp4", "127.0.0.1"}, {"tcp6", "::1"}} {
			l, err := i.listen(ctx, at.network, net.JoinHostPort(at.host, strconv.Itoa(int(i.port))))
			if at.network == "tcp6" && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
				i.log.Info().Err(err).Msg("no IPv6 on loopback: connections by IPv6 will be refused")
				continue
			}
			if err != nil {
				return err
			}
			listeners = append(listeners, l)
		}
		return nil
	})
	if err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return nil, fmt.Errorf("listen for diverted connections: %w", err)
	}
	return listeners, nil
}

// listen opens one listener and tells the kernel programs that it is ours.
func (i *Interceptor) listen(ctx context.Context, network, address string) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // the default of Go; accepted sockets would be no plain TCP
	l, err := config.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp := l.(*net.TCPListener)
	if err := i.mark(tcp); err != nil {
		return nil, errors.Join(fmt.Errorf("mark listener %s: %w", address, err), l.Close())
	}
	return tcp, nil
}

// mark tells the kernel programs that a socket is ours.
func (i *Interceptor) mark(socket syscall.Conn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error { return i.objects.Listeners.Put(int32(fd), uint32(1)) })
}

// ErrInherited is wrapped by errors about a socket of another process that can't be
// taken over.
var ErrInherited = errors.New("the socket can't be taken over")

// Inherit takes over a listener that another process has opened with
// [Interceptor.Listen]. What waits to be accepted there stays.
func (i *Interceptor) Inherit(l *net.TCPListener) error {
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok || !at.IP.IsLoopback() || at.Port != int(i.port) {
		return fmt.Errorf("%w: it listens at %s, not at port %d of a loopback address", ErrInherited, l.Addr(), i.port)
	}
	if err := i.mark(l); err != nil {
		return fmt.Errorf("%w: mark listener %s: %w", ErrInherited, l.Addr(), err)
	}
	return nil
}

// do calls f in the namespace. Sockets made there belong to it for good.
func (ns Namespace) do(f func() error) error {
	if ns.Path == "" {
		return f()
	}
	return onLostThread(func() error { return ns.enter(f) })
}

// onLostThread calls f on a thread that is thrown away, so that no goroutine ever runs on
// it again, whatever namespace it is in by then. That is never the process's
// first thread: it can't be thrown away, and is what /proc/PID tells of.
func onLostThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onLostThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f() // and never unlocked: the thread ends with the goroutine
	}()
	return <-done
}

func (ns Namespace) enter(f func() error) error {
	fd, err := unix.Open(ns.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", ns.Path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", ns.Path, err)
	}
	return f()
}

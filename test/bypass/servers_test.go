package bypass

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The databases: they greet with "REAL", and so would give a leak away to
// the client too. They are servers of the tests' own process, which is outside the ancestor.

// startServers starts them in the database's namespace and on the node. It returns the
// target and its twin with the names of their sockets.
func startServers(t testing.TB, db string, j *judge) (aimed, aside place) {
	t.Helper()
	var serving sync.WaitGroup
	var closers []io.Closer
	t.Cleanup(func() {
		for _, c := range closers {
			c.Close()
		}
		serving.Wait()
	})
	stream := func(l net.Listener, err error, isTarget bool, record bool) error {
		if err != nil {
			return err
		}
		closers = append(closers, l)
		serving.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				if record {
					j.record(isTarget, "connection to "+l.Addr().String())
				}
				fmt.Fprintf(conn, "REAL %s", conn.LocalAddr())
				conn.Close()
			}
		})
		return nil
	}
	internet := func() error {
		for _, port := range []uint16{target.Port, twin.Port, freePort} {
			l, err := listenMPTCP(port)
			if err := stream(l, err, false, false); err != nil {
				return err
			}
			u, err := net.ListenPacket("udp", ":"+strconv.Itoa(int(port)))
			if err != nil {
				return err
			}
			closers = append(closers, u)
		}
		return nil
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	aimed, aside = target, twin
	for side, p := range map[bool]*place{true: &aimed, false: &aside} {
		p.Unix = filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", p.Port))
		p.Abstract = fmt.Sprintf("@/chaperone-bypass/.s.PGSQL.%d", p.Port)
		for _, name := range []string{p.Unix, p.Abstract} {
			l, err := net.Listen("unix", name)
			if err := stream(l, err, side, true); err != nil {
				t.Fatal(err)
			}
		}
		// Ports of AF_VSOCK are the machine's, not the namespace's.
		p.Vsock = uint32(os.Getpid())<<13 | uint32(p.Port)
		l, err := listenVsock(p.Vsock)
		if err == nil {
			closers = append(closers, l)
			serving.Go(func() { l.serve(func() { j.record(side, "connection by AF_VSOCK") }) })
		}
	}
	if err := errors.Join(inside(db, internet), internet()); err != nil {
		t.Fatalf("start the databases: %v", err)
	}
	return aimed, aside
}

// listenMPTCP serves plain TCP too, and Fast Open.
func listenMPTCP(port uint16) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16)
		}), err)
	}}
	config.SetMultipathTCP(true)
	return config.Listen(context.Background(), "tcp", fmt.Sprintf("[::]:%d", port))
}

// vsockListener is a socket that package net has no type for.
type vsockListener struct{ fd, wake int }

func listenVsock(port uint32) (*vsockListener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}),
		unix.Listen(fd, 16),
	); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &vsockListener{fd, wake}, nil
}

func (l *vsockListener) serve(accepted func()) {
	defer unix.Close(l.fd)
	defer unix.Close(l.wake)
	for {
		polled := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(polled, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if polled[1].Revents != 0 {
			return
		}
		conn, _, err := unix.Accept(l.fd)
		if err != nil {
			continue
		}
		accepted()
		unix.Write(conn, []byte("REAL by AF_VSOCK"))
		unix.Close(conn)
	}
}

// Close ends serve, which closes the sockets.
func (l *vsockListener) Close() error {
	_, err := unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

package idp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

const (
	maxConns      = 256
	maxHeader     = 64 << 10
	headerTimeout = 10 * time.Second
	ioTimeout     = 30 * time.Second
	idleTimeout   = time.Minute
	noSocket      = -1
)

var errClosed = errors.New("the OpenID provider is closed")

// server serves at one port, with outages between.
type server struct {
	handler http.Handler
	tls     *tls.Config
	addr    netip.AddrPort

	mu      sync.Mutex
	serving *serving // nil in an outage
	held    int      // the socket that keeps the port in an outage, or noSocket
	closed  bool
}

// serving is the time between two outages.
type serving struct {
	http  *http.Server
	conns sync.WaitGroup
	done  chan struct{}
}

func newServer(handler http.Handler, certificate tls.Certificate, listener net.Listener) *server {
	s := &server{
		handler: handler,
		tls:     &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		addr:    listener.Addr().(*net.TCPAddr).AddrPort(),
		held:    noSocket,
	}
	s.serving = s.serve(listener)
	return s
}

func (s *server) serve(listener net.Listener) *serving {
	v := &serving{done: make(chan struct{})}
	v.http = &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       ioTimeout,
		WriteTimeout:      ioTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// It would tell of each client that doesn't trust the CA, which some tests want.
		ErrorLog:  log.New(io.Discard, "", 0),
		ConnState: v.count,
	}
	listener = tls.NewListener(netutil.LimitListener(listener, maxConns), s.tls)
	go func() {
		defer close(v.done)
		// It ends when stop closes it; a port that broke shows to the clients.
		_ = v.http.Serve(listener)
	}()
	return v
}

func (v *serving) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		v.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		v.conns.Done()
	}
}

// stop ends all connections and waits for their goroutines.
func (v *serving) stop() error {
	err := v.http.Close()
	<-v.done
	// Again, for a connection that came in between.
	err = errors.Join(err, v.http.Close())
	v.conns.Wait()
	return err
}

func (s *server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving == nil {
		return
	}
	// The listener is gone even if closing it failed, and so are the connections.
	_ = s.serving.stop()
	s.serving = nil
	// Bound but not listening, a socket refuses connections, and yet nobody who asks
	// for any free port gets this one. Without it, resume has to find the port free.
	if fd, err := bind(s.addr); err == nil {
		s.held = fd
	}
}

func (s *server) resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.serving != nil {
		return nil
	}
	listener, err := s.listen()
	if err != nil {
		return fmt.Errorf("resume the OpenID provider at %s: %w", s.addr, err)
	}
	s.serving = s.serve(listener)
	return nil
}

func (s *server) listen() (net.Listener, error) {
	if s.held == noSocket {
		return net.Listen("tcp", s.addr.String())
	}
	if err := unix.Listen(s.held, unix.SOMAXCONN); err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(s.held), s.addr.String())
	s.held = noSocket
	listener, err := net.FileListener(file) // has its own copy
	return listener, errors.Join(err, file.Close())
}

func (s *server) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	if s.serving != nil {
		errs = append(errs, s.serving.stop())
		s.serving = nil
	}
	if s.held != noSocket {
		errs = append(errs, unix.Close(s.held))
		s.held = noSocket
	}
	return errors.Join(errs...)
}

// bind makes a TCP socket at an address that doesn't listen.
func bind(addr netip.AddrPort) (int, error) {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if ip := addr.Addr().Unmap(); ip.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return noSocket, err
	}
	// The connections that have just ended linger at the port.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, to)
	}
	if err != nil {
		return noSocket, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

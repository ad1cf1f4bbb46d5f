package desk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/netutil"

	"chaperone.dev/chaperone/pkg/policy"
)

const maxConnections = 1024

// ServeTCP serves [Desk.Handler] where the Sink document says, until ctx is
// done. ready, if not nil, is told the address once people can connect. Without a Sink
// document it serves nothing and returns at once.
func (d *Desk) ServeTCP(ctx context.Context, ready func(net.Addr)) error {
	if d.url == nil {
		return nil
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", d.spec.Listen)
	if err != nil {
		return fmt.Errorf("the sink's page: %w", err)
	}
	if d.spec.TLS == nil {
		if at, ok := listener.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
			return errors.Join(fmt.Errorf("the sink's page: %s is not on loopback, so it needs tls", d.spec.Listen), listener.Close())
		}
	}
	srv := &http.Server{
		Handler:           d.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(serverLog{d.log}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	limited := netutil.LimitListener(listener, maxConnections)
	serve := func() error { return srv.Serve(limited) }
	if d.spec.TLS != nil {
		files := &certificates{spec: *d.spec.TLS, log: d.log}
		if _, err := files.get(nil); err != nil {
			return errors.Join(fmt.Errorf("the sink's page: %w", err), listener.Close())
		}
		srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: files.get}
		serve = func() error { return srv.ServeTLS(limited, "", "") }
	}
	if ready != nil {
		ready(listener.Addr())
	}
	stopped, served := make(chan error, 1), make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
		case <-served:
		}
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- srv.Shutdown(limit)
	}()
	err = serve()
	close(served)
	if stop := <-stopped; stop != nil {
		err = errors.Join(stop, srv.Close())
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the sink's page: %w", err)
	}
	return nil
}

// serverLog takes what net/http has to say.
type serverLog struct{ log zerolog.Logger }

func (s serverLog) Write(line []byte) (int, error) {
	s.log.Debug().Msg(strings.TrimSpace(visible(string(line), false)))
	return len(line), nil
}

// certificates read a certificate again when its files change. While what is
// there can't be used, the last good one serves.
type certificates struct {
	spec policy.ServerTLSSpec
	log  zerolog.Logger

	mu     sync.Mutex
	cert   *tls.Certificate
	stamps [2]stamp
	looked time.Time
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// lookEvery is how often the files are looked at.
const lookEvery = time.Second

func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cert != nil && time.Since(c.looked) < lookEvery {
		return c.cert, nil
	}
	c.looked = time.Now()
	cert, stamps, err := c.read()
	switch {
	case err == nil:
		c.cert, c.stamps = cert, stamps
	case c.cert == nil:
		return nil, err
	default:
		c.log.Error().Err(err).Msg("the certificate can't be read again; the last one still serves")
	}
	return c.cert, nil
}

func (c *certificates) read() (*tls.Certificate, [2]stamp, error) {
	var stamps [2]stamp
	for i, file := range []string{c.spec.CertFile, c.spec.KeyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return nil, stamps, fmt.Errorf("tls: %w", err)
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	if c.cert != nil && stamps == c.stamps {
		return c.cert, stamps, nil
	}
	cert, err := tls.LoadX509KeyPair(c.spec.CertFile, c.spec.KeyFile)
	if err != nil {
		return nil, stamps, fmt.Errorf("tls: %w", err)
	}
	return &cert, stamps, nil
}

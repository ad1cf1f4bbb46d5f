package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/control"
)

// daemonTimeout is for a question that takes no work to answer.
const daemonTimeout = 3 * time.Second

func (s *subject) socket() string { return filepath.Join(s.node.RunDir, control.SocketName) }

// reachDaemon asks for nothing that there is; any answer is the daemon's.
func (s *subject) reachDaemon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", s.socket())
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon/", nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func checkDaemon(ctx context.Context, s *subject) Result {
	const start = "start it: \"chaperone up\", or the unit of chaperoned"
	err := s.reachDaemon(ctx)
	switch {
	case err == nil:
		return ok("it answers at " + s.socket())
	case forbidden(err):
		return unseen(s.socket(), err)
	case errors.Is(err, fs.ErrNotExist):
		return warn("", "none runs: there is no "+s.socket(), start)
	case errors.Is(err, unix.ECONNREFUSED):
		return warn("", "none runs: what made "+s.socket()+" is gone", start)
	}
	return fail("", "what is behind "+s.socket()+" does not answer: "+brief(err), "see the daemon's log, and restart it")
}

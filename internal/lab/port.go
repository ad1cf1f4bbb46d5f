package lab

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

// FreePort returns a TCP port that nothing listens on at any of the hosts
// (default 127.0.0.1) at this moment. Another process may take it before the
// caller does: a caller that can listen on port 0 itself should do that.
func FreePort(ctx context.Context, hosts ...string) (int, error) {
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	const attempts = 20
	var last error
	for range attempts {
		port, err := listenAll(ctx, hosts)
		if err == nil {
			return port, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	return 0, fmt.Errorf("find a free TCP port on %v: %w", hosts, last)
}

// listenAll takes any port at the first host, checks that the others have it
// free too, and lets go of it.
func listenAll(ctx context.Context, hosts []string) (int, error) {
	var lc net.ListenConfig
	port := 0
	for _, host := range hosts {
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return 0, err
		}
		defer l.Close()
		port = l.Addr().(*net.TCPAddr).Port
	}
	return port, nil
}

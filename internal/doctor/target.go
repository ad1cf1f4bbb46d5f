package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/policy"
)

func targetChecks(set *policy.Set) []check {
	var checks []check
	for _, t := range set.Targets {
		for _, text := range t.Spec.Hosts {
			checks = append(checks, check{"target " + t.Metadata.Name + " " + text, func(ctx context.Context, s *subject) Result {
				return checkTarget(ctx, t, text)
			}})
		}
	}
	return checks
}

// maxAddresses bounds the addresses of one name that are tried.
const maxAddresses = 8

func checkTarget(ctx context.Context, t *policy.Target, text string) Result {
	document := "Target " + t.Metadata.Name
	host, err := policy.ParseHost(text)
	if err != nil {
		return fail("", brief(err), "correct "+document)
	}
	addrs, err := resolve(ctx, host)
	switch {
	case err != nil:
		return fail("", fmt.Sprintf("the name does not resolve: %s", brief(err)), "correct the name in "+document+", or this machine's DNS")
	case len(addrs) == 0:
		return skip("a range of addresses; none is tried", "")
	}
	var reached, late []string
	for i, addr := range addrs {
		if i == maxAddresses {
			break
		}
		at := netip.AddrPortFrom(addr.Unmap(), host.Port)
		end, err := tryTarget(ctx, t, host, at)
		if err != nil {
			return targetFault(err, at, document)
		}
		reached = append(reached, at.String())
		if end != "" {
			late = append(late, end)
		}
	}
	found := strings.Join(reached, ", ") + " reached"
	switch {
	case t.Spec.Protocol == policy.ProtocolSSH:
		return ok(found + "; its host key is looked at when a session opens")
	case t.Spec.TLS.Mode == policy.TLSDisable:
		return ok(found + "; TLS is disabled in " + document)
	}
	found += ", TLS verified"
	if len(late) > 0 {
		return warn(found, late[0], "renew the server's certificate")
	}
	return ok(found)
}

func resolve(ctx context.Context, host policy.Host) ([]netip.Addr, error) {
	if host.Name != "" {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host.Name)
	}
	if !host.Prefix.IsSingleIP() {
		return nil, nil
	}
	return []netip.Addr{host.Prefix.Addr()}, nil
}

// handshakeError is a failure of TLS, told apart from one of the network.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// tryTarget connects as the daemon would, and leaves before anybody logs in.
func tryTarget(ctx context.Context, t *policy.Target, host policy.Host, at netip.AddrPort) (late string, err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	spec := t.Spec.TLS
	if t.Spec.Protocol == policy.ProtocolSSH || spec.Mode == policy.TLSDisable {
		return "", nil
	}
	name := host.Name
	if name == "" {
		name = at.Addr().String()
	}
	if spec.ServerName != "" {
		name = spec.ServerName
	}
	config, err := clientTLS(name, spec.CAFile)
	if err != nil {
		return "", &handshakeError{err}
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	handshake := secure
	if t.Spec.Protocol == policy.ProtocolKubernetes {
		handshake = shake
	}
	state, err := handshake(ctx, conn, config)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("it does not answer in time: %w", ctx.Err())
	}
	return chainExpiry(state), err
}

// secure asks a PostgreSQL server for TLS (PostgreSQL documentation, 54.2.11)
// and verifies it.
func secure(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.ConnectionState, error) {
	request, err := (&pgproto3.SSLRequest{}).Encode(nil)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, fmt.Errorf("no answer to a request for TLS: %w", err)
	}
	if answer[0] != 'S' {
		return nil, &handshakeError{errors.New("the server doesn't offer TLS")}
	}
	config.NextProtos = []string{postgres.ALPN}
	return shake(ctx, conn, config)
}

// shake verifies a server that speaks TLS from the first byte.
func shake(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.ConnectionState, error) {
	client := tls.Client(conn, config)
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, &handshakeError{err}
	}
	state := client.ConnectionState()
	return &state, nil
}

func targetFault(err error, at netip.AddrPort, document string) Result {
	if unread(err) && forbidden(err) {
		return unseen("its caFile", err)
	}
	var handshake *handshakeError
	if errors.As(err, &handshake) {
		return fail(at.String()+" reached", "TLS is not verified: "+brief(err), tlsRemedy(err, document))
	}
	missing := fmt.Sprintf("%s is not reached: %s", at, brief(err))
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return fail("", missing, "see that the server runs and listens there, and hosts in "+document)
	case errors.Is(err, unix.EPERM):
		return fail("", missing, "run the doctor outside of the ancestor cgroup, where only the daemon reaches targets; or see this machine's firewall")
	}
	return fail("", missing, "see routes and firewalls between here and there, and hosts in "+document)
}

package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

func (c *connection) order() credential.Request {
	return credential.Request{
		Job: c.job.ID, JobName: c.job.Name, Target: c.match.Target,
		Principal: c.job.Principal,
	}
}

// withoutCredential is what a client is told when none could be made. Mostly
// the target is down; what else it may be is for the node's log.
func (c *connection) withoutCredential(err error) *postgres.Refusal {
	name := c.match.Target.Metadata.Name
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return &postgres.Refusal{
			Reason: event.ReasonUpstreamTLS, SQLState: "08001", Err: err,
			Message: fmt.Sprintf("no credential for target %q could be made: its certificate can't be verified", name),
		}
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return &postgres.Refusal{
			Reason: event.ReasonUpstreamDown, SQLState: "08001", Err: err,
			Message: fmt.Sprintf("no credential for target %q could be made: it can't be reached", name),
		}
	}
	return &postgres.Refusal{
		Reason: event.ReasonCredential, SQLState: "57P03", Err: err,
		Message: fmt.Sprintf("no credential for target %q could be made", name),
		Hint:    "The node's log says why.",
	}
}

// connect opens the way to the true destination, as the job's account, for
// the database and with the settings that the client asked for.
func (c *connection) connect(ctx context.Context, startup postgres.Startup) (*postgres.Upstream, error) {
	options, err := c.upstream(startup.Params)
	if err != nil {
		return nil, err
	}
	return postgres.Connect(ctx, options)
}

// upstream is how the session's target is entered, with run-time parameters.
// An error is a *Refusal.
func (c *connection) upstream(params map[string]string) (postgres.UpstreamOptions, error) {
	tlsConfig, err := c.upstreamTLS()
	if err != nil {
		return postgres.UpstreamOptions{}, &postgres.Refusal{
			Reason: event.ReasonUpstreamTLS, SQLState: "08001", Err: err,
			Message: fmt.Sprintf("target %q can't be verified: its configured certificate authority can't be read", c.match.Target.Metadata.Name),
		}
	}
	secret, err := c.grant.Fresh()
	if err != nil {
		return postgres.UpstreamOptions{}, c.withoutCredential(err)
	}
	return postgres.UpstreamOptions{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "tcp", unmapped(c.origin.Destination).String())
		},
		TLS:         tlsConfig,
		User:        c.grant.Name,
		Password:    secret.Reveal(),
		Certificate: secret.Certificate(),
		Stored:      c.match.Target.Spec.Credential.PostgresSecret != nil,
		Database:    c.client.Startup().Database,
		Params:      params,
	}, nil
}

// upstreamTLS verifies the target by the name that it is known by. It is nil
// where the target's document switches TLS off.
func (c *connection) upstreamTLS() (*tls.Config, error) {
	spec := c.match.Target.Spec.TLS
	if spec.Mode == policy.TLSDisable {
		return nil, nil
	}
	config := &tls.Config{ServerName: c.match.Host, MinVersion: tls.VersionTLS12}
	if spec.ServerName != "" {
		config.ServerName = spec.ServerName
	}
	if spec.CAFile != "" {
		pem, err := os.ReadFile(spec.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", spec.CAFile)
		}
	}
	return config, nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

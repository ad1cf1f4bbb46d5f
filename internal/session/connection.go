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
	"time"

	"github.com/google/uuid"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/internal/target"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// connection is one diverted connection and what is known of it so far. It is
// filled from top to bottom by [Server.serve].
type connection struct {
	server *Server
	net    *net.TCPConn
	end    context.CancelCauseFunc
	ended  chan struct{}

	origin intercept.Origin
	client *postgres.Client
	job    workload.Job
	match  target.Match
	set    *policy.Set
	bound  *policy.Bound
	grant  *credential.Grant
}

// serve is the main path of a connection. full, when it is not nil, is what
// the client is told instead of being served.
func (s *Server) serve(ctx context.Context, conn *net.TCPConn, full *postgres.Refusal) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	c := &connection{server: s, net: conn, end: end, ended: make(chan struct{})}

	// Where was this socket going, and who opened it? The kernel says, not
	// the client; and a socket of which it says nothing came here by itself.
	var err error
	if c.origin, err = s.opts.Origins.Origin(conn); err != nil {
		s.refused(c, &postgres.Refusal{
			Reason: event.ReasonNotDiverted, Message: "this connection was not diverted here by the kernel", Err: err,
		})
		return
	}

	if c.origin.Protocol == ProtocolDNS {
		s.opts.DNS(ctx, conn, c.origin.Workload)
		return
	}

	// The client's first words, so that it can be answered in its protocol.
	starting, cancel := context.WithTimeout(ctx, time.Duration(s.opts.Limits.ConnectTimeout))
	defer cancel()
	c.client, err = postgres.Accept(starting, conn, postgres.AcceptOptions{Certificate: c.certificate})
	if errors.Is(err, postgres.ErrSilent) {
		s.opts.Log.Debug().Err(err).Msg("connection closed by the client")
		return
	}
	if err != nil {
		s.refused(c, asRefusal(err))
		return
	}
	if full != nil {
		s.refuse(c, full)
		return
	}

	// Who is asking, for what, and may they?
	if refusal := c.identify(starting); refusal != nil {
		s.refuse(c, refusal)
		return
	}
	if key, ok := c.client.CancelKey(); ok {
		if err := s.cancels.Cancel(starting, key, c.job.ID); err != nil {
			s.opts.Log.Debug().Err(err).Str("job", c.job.ID).Msg("cancel request")
		}
		return
	}
	if refusal := c.locate(starting); refusal != nil {
		s.refuse(c, refusal)
		return
	}
	if refusal := s.join(c, c.job.ID); refusal != nil {
		s.refuse(c, refusal)
		return
	}
	defer s.leave(c, c.job.ID)
	if refusal := c.mayOpen(); refusal != nil {
		s.refuse(c, refusal)
		return
	}
	if refusal := c.maySet(c.client.Startup()); refusal != nil {
		s.refuse(c, refusal)
		return
	}

	// A credential of the job's own, and with it the target.
	if c.grant, err = s.opts.Credentials.For(starting, c.order()); err != nil {
		s.refuse(c, c.withoutCredential(err))
		return
	}
	upstream, err := c.connect(starting, c.client.Startup())
	if err != nil {
		s.refuse(c, asRefusal(err))
		return
	}
	defer upstream.Close()

	// From here on it is a session: every command of it is decided,
	// recorded, forwarded and masked.
	session, refusal := c.open(starting)
	if refusal != nil {
		s.refuse(c, refusal)
		return
	}
	cancel()
	running, cancel := c.bounded(ctx)
	defer cancel()
	session.close(postgres.Relay(running, c.client, upstream, session, postgres.RelayOptions{Cancels: s.cancels, Owner: c.job.ID}))
}

// certificate returns the leaf for the name the client asks for, so that a
// client which verifies whom it talks to can go on doing so. One that asks
// for no name is shown that which the destination is known by.
func (c *connection) certificate(ctx context.Context, serverName string) (*tls.Certificate, error) {
	address := c.origin.Destination.Addr().Unmap()
	if serverName == "" {
		serverName = address.String()
		if match, err := c.server.opts.Targets.Find(ctx, c.origin.Destination, target.Asker{Workload: c.origin.Workload}); err == nil {
			serverName = match.Host
		}
	}
	return c.server.opts.Certificates.Leaf(serverName, address)
}

// identify finds the job of the connection.
func (c *connection) identify(ctx context.Context) *postgres.Refusal {
	job, ok := c.server.opts.Jobs.ByCgroup(c.origin.Workload)
	if !ok {
		return &postgres.Refusal{
			Reason: event.ReasonUnknownWorkload, SQLState: "28000",
			Message: "this process belongs to no planner job that the node knows",
		}
	}
	c.job = job
	job, err := c.server.opts.Identities.Identify(ctx, job)
	if err != nil {
		return &postgres.Refusal{
			Reason: event.ReasonNoIdentity, SQLState: "28000", Err: err,
			Message: fmt.Sprintf("job %q can't prove who it acts for: %s", job.Name, err),
			Hint:    "Start the job again with a fresh token, or see to it that its token is renewed.",
		}
	}
	c.job = job
	return nil
}

// locate finds the target of the connection.
func (c *connection) locate(ctx context.Context) *postgres.Refusal {
	match, err := c.server.opts.Targets.Find(ctx, c.origin.Destination, target.Asker{
		ServerName: c.client.Startup().ServerName, Workload: c.origin.Workload,
	})
	switch {
	case errors.Is(err, target.ErrAmbiguous):
		return &postgres.Refusal{
			Reason: event.ReasonAmbiguousTarget, SQLState: "08004", Message: err.Error(),
			Hint: "Connect with TLS and by host name: the name in the handshake decides.",
		}
	case err != nil:
		return &postgres.Refusal{
			Reason: event.ReasonNoTarget, SQLState: "08004",
			Message: fmt.Sprintf("no target is configured for %s", c.origin.Destination),
			Hint:    "A Target document must name this host and port.", Err: err,
		}
	}
	c.match = match
	return nil
}

// mayOpen asks policy for the session as a whole.
func (c *connection) mayOpen() *postgres.Refusal {
	c.set = c.server.opts.Policies()
	c.bound = c.bind(c.set)
	decision := c.bound.Open(time.Now())
	if decision.Action != policy.Allow {
		return &postgres.Refusal{
			Reason: event.ReasonDenied, SQLState: "42501", Message: decision.Message, Detail: decidedBy(decision),
		}
	}
	return nil
}

func (c *connection) bind(set *policy.Set) *policy.Bound {
	spec := c.match.Target
	return set.Bind(c.job.Principal,
		policy.WorkloadFacts{
			Name: c.job.Name, Node: c.server.opts.Node,
			Executable: c.origin.Process.Executable, UID: int64(c.origin.Process.UID),
			Unit: c.job.Unit, Namespace: c.job.Pod.Namespace, ServiceAccount: c.job.Pod.ServiceAccount, Labels: c.job.Pod.Labels,
		},
		policy.TargetFacts{
			Name: spec.Metadata.Name, Protocol: spec.Spec.Protocol, Host: c.match.Host,
			Port: int64(c.origin.Destination.Port()), Labels: spec.Metadata.Labels,
		})
}

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

// connect opens the way to the true destination, as the minted account, for
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
	return postgres.UpstreamOptions{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "tcp", unmapped(c.origin.Destination).String())
		},
		TLS:      tlsConfig,
		User:     c.grant.Name,
		Password: c.grant.Secret.Reveal(),
		Database: c.client.Startup().Database,
		Params:   params,
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

// bounded is ctx with the end of the session's time: what policy gives it, or
// the end of the job's identity, whichever comes first.
func (c *connection) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline := c.job.Principal.Expires
	why := &postgres.Refusal{
		Reason: event.ReasonNoIdentity, SQLState: "57P01", Message: "the identity of this session's job has expired",
	}
	limit := time.Duration(c.bound.Session().MaxDuration)
	if limit > 0 && (deadline.IsZero() || time.Until(deadline) > limit) {
		deadline = time.Now().Add(limit)
		why = &postgres.Refusal{
			Reason: event.ReasonLimit, SQLState: "57P01",
			Message: fmt.Sprintf("policy ends sessions like this one after %s", limit),
		}
	}
	if deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadlineCause(ctx, deadline, why)
}

// refuse tells the client, and the world, why it is given no upstream.
func (s *Server) refuse(c *connection, refusal *postgres.Refusal) {
	if err := c.client.Refuse(refusal); err != nil {
		s.opts.Log.Debug().Err(err).Msg("telling a client that it is refused")
	}
	s.refused(c, refusal)
}

// refused tells the world.
func (s *Server) refused(c *connection, refusal *postgres.Refusal) {
	tell, untold := s.told.spend(c.job.ID, time.Now())
	if !tell {
		return
	}
	data := event.SessionRefused{Reason: refusal.Reason, Message: refusal.Message, Untold: untold}
	origin := event.Origin{Cluster: s.opts.Cluster, Node: s.opts.Node}
	if c.origin.Destination.IsValid() {
		data.Destination = c.origin.Destination.String()
		process := event.Process(c.origin.Process)
		data.Process = &process
	} else {
		data.Peer = c.net.RemoteAddr().String()
	}
	if c.job.ID != "" {
		principal, work := c.principal(), c.workload()
		data.Principal, data.Workload, origin.Subject = &principal, &work, c.job.ID
	}
	if c.match.Target != nil {
		data.Target = c.match.Target.Metadata.Name
		origin.Target = data.Target
	}
	s.opts.Log.Info().Str("reason", refusal.Reason).Str("job", c.job.ID).Str("destination", data.Destination).
		AnErr("cause", refusal.Err).Msg("connection refused: " + refusal.Message)
	if err := s.opts.Journal.Event(origin, data); err != nil {
		s.opts.Log.Error().Err(err).Msg("recording a refused connection")
	}
}

func (c *connection) principal() event.Principal {
	p := c.job.Principal
	return event.Principal{Subject: p.Subject, Issuer: p.Issuer, Groups: p.Groups}
}

func (c *connection) workload() event.Workload {
	kind := c.job.Kind
	if kind == "" {
		kind = workload.KindRun
	}
	return event.Workload{Name: c.job.Name, Job: c.job.ID, Kind: kind, Unit: c.job.Unit}
}

// asRefusal makes every error one that a client can be told: what is not
// meant for it stays in the node's log.
func asRefusal(err error) *postgres.Refusal {
	var refusal *postgres.Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	return &postgres.Refusal{
		Reason: event.ReasonInternal, SQLState: "XX000", Err: err,
		Message: "the node could not serve this connection", Hint: "The node's log says why.",
	}
}

// decidedBy names the rule for the client: who reads the error can tell an
// administrator which one it was.
func decidedBy(d policy.Decision) string {
	switch {
	case d.Policy == "":
		return ""
	case d.Rule == "":
		return fmt.Sprintf("Decided by policy %q.", d.Policy)
	}
	return fmt.Sprintf("Decided by policy %q, rule %q.", d.Policy, d.Rule)
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func newSessionID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("session id: %w", err)
	}
	return id.String(), nil
}

package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/lock"
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
	facts  lock.Facts // but for the session
	set    *policy.Set
	bound  *policy.Bound
	given  approvals // for the session as a whole
	grant  *credential.Grant
	cancel func(context.Context) error // what runs at the target

	session atomic.Pointer[string] // its id, once it is open
	seated  bool                   // under Server.mu: it counts as a session of its job at the target
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
	// A lock that comes into force from here on finds the connection.
	if refusal := c.locked(); refusal != nil {
		s.refuse(c, refusal)
		return
	}
	needed, refusal := c.mayOpen()
	if refusal != nil {
		s.refuse(c, refusal)
		return
	}
	if refusal := s.seat(starting, c); refusal != nil {
		s.refuse(c, refusal)
		return
	}
	if len(needed) > 0 {
		cancel() // people take longer than a server does
		if refusal := c.ask(ctx, needed); refusal != nil {
			s.refuse(c, refusal)
			return
		}
		starting, cancel = context.WithTimeout(ctx, time.Duration(s.opts.Limits.ConnectTimeout))
		defer cancel()
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
	s.meanings.session(c).prepare(starting)
	upstream, err := c.connect(starting, c.client.Startup())
	if err != nil {
		s.refuse(c, asRefusal(err))
		return
	}
	defer upstream.Close()
	c.cancel = upstream.Cancel
	process, port := upstream.Backend()
	ended := c.grant.Opened(credential.Backend{Process: process, Port: port})

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
	defer c.whileIdentified()()
	result := postgres.Relay(running, c.client, upstream, session, postgres.RelayOptions{Cancels: s.cancels, Owner: c.job.ID})
	ended(result.Err == nil)
	session.close(result)
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

// mayOpen asks policy for the session as a whole, and returns what people have to
// approve of first.
func (c *connection) mayOpen() ([]policy.Needed, *postgres.Refusal) {
	c.set = c.server.opts.Policies()
	c.bound = c.bind(c.set)
	decision := c.server.atAllTimes(c.bound.Open)
	switch decision.Action {
	case policy.Allow:
		return nil, nil
	case policy.Approve:
		return decision.Approvals, nil
	}
	return nil, &postgres.Refusal{
		Reason: event.ReasonDenied, SQLState: "42501", Message: decision.Message, Detail: decidedBy(decision),
	}
}

func (c *connection) bind(set *policy.Set) *policy.Bound {
	spec := c.match.Target
	return set.Bind(c.job.Principal,
		policy.WorkloadFacts{
			Name: c.job.Name, Node: c.server.opts.Node,
			Executable: c.origin.Process.Executable, UID: int64(c.origin.Process.UID),
			Unit: c.job.Unit, Namespace: c.job.Pod.Namespace, ServiceAccount: c.job.Pod.ServiceAccount, Labels: c.job.Pod.Labels,
			Image: c.server.opts.Image(c.job, c.origin.CgroupPath),
		},
		policy.TargetFacts{
			Name: spec.Metadata.Name, Protocol: spec.Spec.Protocol, Host: c.match.Host,
			Port: int64(c.origin.Destination.Port()), Labels: spec.Metadata.Labels,
		})
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

package session

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// open begins the session: it is on record before its first command can be.
func (c *connection) open(ctx context.Context) (*gate, *postgres.Refusal) {
	s := c.server
	rules, err := s.rulesFor(c)
	if err != nil {
		return nil, asRefusal(err)
	}
	id, err := newSessionID()
	if err != nil {
		return nil, asRefusal(err)
	}
	startup := c.client.Startup()
	g := &gate{
		connection: c,
		id:         id,
		origin: event.Origin{
			Cluster: s.opts.Cluster, Node: s.opts.Node, Target: c.match.Target.Metadata.Name, Subject: id,
		},
		started: time.Now(),
		given:   c.given,
		read:    map[*pgsql.Query]*plan{},
		catalog: s.catalogs.session(c),
		names:   newNames(),
		meaning: s.meanings.session(c),
	}
	g.timekeeper.cancel, g.timekeeper.end = c.cancel, func(why error) { c.end(why) }
	g.masks.Store(rules)
	c.session.Store(&id)
	if refusal := c.locked(); refusal != nil {
		return nil, refusal
	}
	record := c.bound.Session().Record
	g.recorder = s.opts.Journal.Session(id, g.origin, record == policy.RecordStrict)
	err = g.recorder.Started(event.SessionStarted{
		Session:   id,
		Principal: c.principal(),
		Workload:  c.workload(),
		Target: event.Target{
			Name: c.match.Target.Metadata.Name, Protocol: c.match.Target.Spec.Protocol, Host: c.match.Host,
			Address: unmapped(c.origin.Destination).String(), Database: startup.Database,
		},
		Process:        event.Process(c.origin.Process),
		Credential:     c.grant.Name,
		RequestedUser:  startup.User,
		Application:    startup.Params["application_name"],
		PolicyRevision: c.set.Revision,
		Record:         record,
	})
	if err != nil {
		return nil, unrecordable(err)
	}
	s.opts.Log.Info().Str("session", id).Str("job", c.job.ID).Str("target", g.origin.Target).Msg("session started")
	return g, nil
}

// close ends the session, and its record.
func (g *gate) close(result postgres.Result) {
	g.timekeeper.stop()
	log := g.connection.server.opts.Log
	ended := event.SessionEnded{
		Session: g.id, Reason: result.Reason, Message: result.Message,
		Commands: g.seq, Denied: g.denied.Load(), Rows: g.rows.Load(),
		BytesIn: result.BytesIn, BytesOut: result.BytesOut, Duration: time.Since(g.started),
	}
	if err := g.recorder.Ended(ended); err != nil {
		log.Error().Err(err).Str("session", g.id).Msg("the session's end can't be recorded; the next start closes it as truncated")
	}
	log.Info().Str("session", g.id).Str("reason", result.Reason).Uint64("commands", g.seq).Msg("session ended")
}

func newSessionID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("session id: %w", err)
	}
	return id.String(), nil
}

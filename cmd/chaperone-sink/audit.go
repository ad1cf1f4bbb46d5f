package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/pkg/event"
)

// nodeName stands for the node in events of the sink itself.
const nodeName = "sink"

// auditor publishes what the desk has to tell, and logs it, for the event is lost while
// NATS is away.
type auditor struct {
	conn  *nats.Conn
	log   zerolog.Logger
	queue chan audited
}

type audited struct {
	origin event.Origin
	data   event.Data
	at     time.Time
}

func newAuditor(conn *nats.Conn, log zerolog.Logger) *auditor {
	const most = 256
	return &auditor{conn: conn, log: log, queue: make(chan audited, most)}
}

// tell never blocks.
func (a *auditor) tell(o event.Origin, data event.Data) {
	o.Node = nodeName
	select {
	case a.queue <- audited{o, data, time.Now()}:
	default:
		a.log.Warn().Str("type", string(data.EventType())).Msg("an event is not published, as too many wait")
	}
}

// run publishes until ctx is done.
func (a *auditor) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-a.queue:
			if err := a.publish(n); err != nil {
				a.log.Warn().Err(err).Str("type", string(n.data.EventType())).Msg("an event is not published")
			}
		}
	}
}

func (a *auditor) publish(n audited) error {
	e, err := event.New(n.origin, n.at, n.data)
	if err != nil {
		return err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	m := nats.NewMsg(event.Subject(n.origin, n.data.EventType()))
	m.Header.Set(nats.MsgIdHdr, e.ID)
	m.Data = body
	return a.conn.PublishMsg(m)
}

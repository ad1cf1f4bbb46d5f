package journal

import (
	"errors"
	"fmt"
	"time"

	"chaperone.dev/chaperone/internal/journal/wal"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// message is one message on its way.
type message struct {
	subject string
	id      string
	body    []byte
	at      wal.LSN   // first record that it stands for
	since   time.Time // when that was read
	needs   wal.LSN   // it is not sent before the journal is synced up to here

	// Of blocks: the session, and its state once this is acknowledged.
	stream *stream
	state  *chainState
}

// outbox sends messages in order and keeps each until it and all before it are
// acknowledged. When one fails, it and all behind it are sent again, in order;
// JetStream drops by their ids those that had arrived.
//
// It doesn't use the publisher of package jetstream: that makes two channels
// and decodes a JSON object for each message, and there may be fifteen
// thousand a second.
type outbox struct {
	nc    *nats.Conn
	acks  *acks
	log   zerolog.Logger
	stats *counters

	queue      []message
	sent       int // of the queue
	bytes      int // of the queue
	reconnects uint64
	progress   time.Time // last acknowledgement, or first message sent after none was awaited
	failing    bool
	wait       time.Duration
	retryAt    time.Time
}

const (
	maxInFlight = 4096
	maxQueued   = 8 << 20 // bytes from which on nothing more is read
	minWait     = 100 * time.Millisecond
	maxWait     = 5 * time.Second
	ackTimeout  = 10 * time.Second
)

var (
	errReconnected = errors.New("the connection was lost")
	errNoAck       = fmt.Errorf("no acknowledgement within %v", ackTimeout)
)

func newOutbox(nc *nats.Conn, log zerolog.Logger, stats *counters) (*outbox, error) {
	a, err := newAcks(nc)
	if err != nil {
		return nil, err
	}
	return &outbox{nc: nc, acks: a, log: log, stats: stats}, nil
}

// close ends the subscription to acknowledgements.
func (o *outbox) close() error { return o.acks.close() }

// room says whether more may be put.
func (o *outbox) room() bool { return len(o.queue) < maxInFlight && o.bytes < maxQueued }

// put takes messages, in order. It keeps their bodies.
func (o *outbox) put(ms []message) {
	for i := range ms {
		o.bytes += len(ms[i].body)
	}
	o.queue = append(o.queue, ms...)
}

// send sends what was not sent yet and may be, now that the journal is synced
// up to a position, unless it is too early for another try.
func (o *outbox) send(now time.Time, synced wal.LSN) {
	if now.Before(o.retryAt) {
		return
	}
	if o.sent == 0 {
		o.reconnects, o.progress = o.nc.Stats().Reconnects, now
	}
	id := make([]string, 1)
	header := nats.Header{jetstream.MsgIDHeader: id}
	for o.sent < min(len(o.queue), maxInFlight) {
		m := &o.queue[o.sent]
		if m.needs > synced {
			break
		}
		id[0] = m.id // PublishMsg keeps nothing of what it is given
		err := o.nc.PublishMsg(&nats.Msg{Subject: m.subject, Reply: o.acks.reply(o.sent), Data: m.body, Header: header})
		if err != nil {
			o.fail(now, err)
			return
		}
		o.sent++
	}
	o.stats.inFlight.Store(int64(o.sent))
}

// collect takes off what is acknowledged, from the front, and tells done.
func (o *outbox) collect(now time.Time, done func(*message)) {
	n, err := o.acks.take(o.sent)
	for i := range n {
		done(&o.queue[i])
		o.bytes -= len(o.queue[i].body)
	}
	o.drop(now, n)
	switch {
	case err != nil:
	case o.sent == 0:
		return
	case o.nc.Stats().Reconnects != o.reconnects || !o.nc.IsConnected():
		err = errReconnected
	case now.Sub(o.progress) > ackTimeout:
		err = errNoAck
	default:
		return
	}
	o.fail(now, err)
}

// drop takes off the first n messages.
func (o *outbox) drop(now time.Time, n int) {
	if n == 0 {
		return
	}
	o.stats.published.Add(uint64(n))
	left := copy(o.queue, o.queue[n:])
	clear(o.queue[left:])
	o.queue = o.queue[:left]
	o.sent -= n
	o.progress = now
	o.stats.inFlight.Store(int64(o.sent))
	if o.failing {
		o.log.Info().Msg("NATS takes messages again")
	}
	o.failing, o.wait = false, 0
}

// fail makes all that is not acknowledged be sent again, after a while.
func (o *outbox) fail(now time.Time, err error) {
	if !o.failing {
		o.log.Warn().Err(err).Int("waiting", len(o.queue)).Msg("NATS does not take messages; the journal keeps them")
	}
	o.failing = true
	o.stats.resent.Add(uint64(o.sent))
	o.stats.inFlight.Store(0)
	o.sent = 0
	o.acks.forget()
	o.wait = min(max(2*o.wait, minWait), maxWait)
	o.retryAt = now.Add(o.wait)
}

// each visits every message that is not acknowledged.
func (o *outbox) each(f func(*message)) {
	for i := range o.queue {
		f(&o.queue[i])
	}
}

package resolver

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// pipelined is how many queries of one connection are answered at once. It
	// is read no further while there are that many.
	pipelined = 16
	// sendTimeout is how long a client may take to make room for an answer.
	sendTimeout = 5 * time.Second
)

// ServeTCP answers the queries that come over conn, each as soon as its answer
// is there (RFC 7766, 6.2.1.1). It returns, with conn closed, when the client has
// no more queries and the answers are sent, when the client is idle or doesn't take
// its answers, or when ctx is done.
func (r *Resolver) ServeTCP(ctx context.Context, conn net.Conn, workload uint64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()
	if !r.connections.acquire(workload) {
		r.count.overLimit.Add(1)
		return
	}
	defer r.connections.release(workload)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	s := stream{r: r, conn: conn, workload: workload, giveUp: cancel, slots: make(chan struct{}, pipelined)}
	defer s.answering.Wait()
	for s.next(ctx) {
	}
}

// stream is one connection.
type stream struct {
	r         *Resolver
	conn      net.Conn
	workload  uint64
	giveUp    context.CancelFunc // ends the connection
	slots     chan struct{}
	answering sync.WaitGroup

	mu sync.Mutex // held to write
}

// next takes one query, and says whether there may be more.
func (s *stream) next(ctx context.Context) bool {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(s.r.opts.IdleTimeout)); err != nil {
		return false
	}
	b, err := s.r.receive(s.conn)
	if err != nil {
		return false
	}
	limited := !s.r.queries.acquire(s.workload)
	s.answering.Go(func() {
		var in *counter
		if limited {
			in = s.refuse(b)
		} else {
			in = s.send(s.r.answer(ctx, overTCP, s.workload, b.message()))
			s.r.queries.release(s.workload)
		}
		s.r.buffers.put(b)
		<-s.slots
		in.Add(1)
	})
	return true
}

// refuse tells the client that it has too many queries in flight.
func (s *stream) refuse(b *buffer) *counter {
	q, err := parseQuery(b.message())
	if errors.Is(err, errNoQuery) {
		return &s.r.count.overLimit
	}
	return s.send(s.r.say(q.reply(dns.RcodeRefused), &s.r.count.overLimit))
}

// send writes an answer, and returns the counter that it belongs in. What can't be written ends the connection: the client
// could not find the next message's beginning.
func (s *stream) send(b *buffer, in *counter) *counter {
	defer s.r.buffers.put(b)
	if b != nil && s.write(b) != nil {
		s.giveUp()
		return &s.r.count.failed
	}
	return in
}

func (s *stream) write(b *buffer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(b.framed())
	return err
}

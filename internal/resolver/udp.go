package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxReadErrors is how many reads in a row may fail before a socket is given up.
const maxReadErrors = 100

// ServeUDP answers what arrives on conn until ctx is done, and then returns nil when
// the last answer is sent or given up. It doesn't close conn, but leaves its
// deadlines in the past. who tells which workload sent from an address (IPv4 as such,
// also on an IPv6 socket); it is called for one datagram after the other and must
// not wait.
func (r *Resolver) ServeUDP(ctx context.Context, conn *net.UDPConn, who func(from netip.AddrPort) (workload uint64, ok bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	var answering sync.WaitGroup
	defer stop()
	defer answering.Wait()
	defer cancel()
	for failed := 0; ; {
		b := r.buffers.get(maxDatagram)
		n, from, err := conn.ReadFromUDPAddrPort(b.space())
		if err != nil {
			r.buffers.put(b)
			failed++
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, net.ErrClosed), failed == maxReadErrors:
				return fmt.Errorf("resolver: receive queries on %s: %w", conn.LocalAddr(), err)
			}
			continue
		}
		failed = 0
		b.n = n
		workload, ok := who(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		switch {
		case !ok:
			r.count.dropped.Add(1)
			r.buffers.put(b)
		case !r.queries.acquire(workload):
			r.count.overLimit.Add(1)
			r.buffers.put(b)
		default:
			answering.Go(func() {
				in := r.answerDatagram(ctx, conn, from, workload, b)
				r.buffers.put(b)
				r.queries.release(workload)
				in.Add(1)
			})
		}
	}
}

func (r *Resolver) answerDatagram(ctx context.Context, conn *net.UDPConn, to netip.AddrPort, workload uint64, query *buffer) *counter {
	b, in := r.answer(ctx, overUDP, workload, query.message())
	defer r.buffers.put(b)
	if b != nil {
		if _, err := conn.WriteToUDPAddrPort(b.message(), to); err != nil {
			return &r.count.failed
		}
	}
	return in
}

package resolver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// The transports, as net names them.
const (
	overUDP = "udp"
	overTCP = "tcp"
)

// ailingFor is how long a server that didn't answer is asked after the others.
const ailingFor = 30 * time.Second

// answer is what a server said, verified to be the answer to the query, with the
// client's id and spelling.
type answer struct {
	*buffer
	bindings []binding
	code     int // without the bits of EDNS
}

// forward asks the node's servers in their order until one has an answer. The
// caller puts the answer's buffer back.
func (r *Resolver) forward(ctx context.Context, network string, q *query) (answer, error) {
	conf := r.conf.get()
	servers := conf.servers
	if len(r.opts.Servers) > 0 {
		servers = r.opts.Servers
	}
	timeout := min(conf.timeout, r.opts.Timeout)
	var held answer // of a server that couldn't find out; another one may
	var problems []error
	for range conf.attempts {
		for _, server := range r.ailing.last(servers) {
			a, err := r.exchange(ctx, network, server, timeout, q)
			if ctx.Err() != nil {
				r.buffers.put(a.buffer)
				r.buffers.put(held.buffer)
				return answer{}, ctx.Err()
			}
			r.ailing.note(server, err == nil)
			if err != nil {
				problems = append(problems, fmt.Errorf("%s over %s: %w", server, network, err))
				continue
			}
			switch a.code {
			case dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented:
				r.buffers.put(held.buffer)
				held = a
			default:
				r.buffers.put(held.buffer)
				return a, nil
			}
		}
		if held.buffer != nil {
			return held, nil
		}
	}
	return answer{}, fmt.Errorf("no name server answered: %w", errors.Join(problems...))
}

// exchange asks one server once, from a port and with an id of its own.
func (r *Resolver) exchange(ctx context.Context, network string, server netip.AddrPort, timeout time.Duration, q *query) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return a, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	b := r.buffers.get(maxDatagram)
	id := dns.Id()
	q.forServer(b, id)
	if network == overTCP {
		_, err = conn.Write(b.framed())
	} else {
		_, err = conn.Write(b.message())
	}
	if err != nil {
		r.buffers.put(b)
		return a, err
	}
	if network == overTCP {
		r.buffers.put(b)
		if b, err = r.receive(conn); err != nil {
			return a, err
		}
		if !q.answeredBy(b, id) {
			r.buffers.put(b)
			return a, errors.New("its answer is to another query")
		}
	} else {
		for b.n = 0; !q.answeredBy(b, id); { // other datagrams are not from the server, or late
			if b.n, err = conn.Read(b.space()); err != nil {
				r.buffers.put(b)
				return a, err
			}
		}
	}
	if a, err = q.read(network, b); err != nil {
		r.buffers.put(b)
		return answer{}, err
	}
	return a, nil
}

// receive reads one message of a stream.
func (r *Resolver) receive(conn io.Reader) (*buffer, error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	b := r.buffers.get(n)
	b.n = n
	if _, err := io.ReadFull(conn, b.message()); err != nil {
		r.buffers.put(b)
		return nil, err
	}
	return b, nil
}

// answeredBy says whether the message answers the query that had the id. A server
// that failed may leave the question out.
func (q *query) answeredBy(b *buffer, id uint16) bool {
	m := b.message()
	if len(m) < headerSize || binary.BigEndian.Uint16(m) != id {
		return false
	}
	flags := binary.BigEndian.Uint16(m[2:])
	if flags&bitResponse == 0 || flags&bitsOpcode != 0 {
		return false
	}
	switch binary.BigEndian.Uint16(m[4:]) {
	case 0:
		code := int(flags & bitsRcode)
		return len(m) == headerSize && code != dns.RcodeSuccess && code != dns.RcodeNameError
	case 1:
		end := headerSize + len(q.question)
		return len(m) >= end && sameQuestion(m[headerSize:end], q.question)
	}
	return false
}

// sameQuestion compares two questions of one length: names without regard to case.
func sameQuestion(a, b []byte) bool {
	name := len(a) - 4
	if !bytes.Equal(a[name:], b[name:]) {
		return false
	}
	for i := range name {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// read makes a server's message the answer for the client.
func (q *query) read(network string, b *buffer) (answer, error) {
	m := b.message()
	flags := binary.BigEndian.Uint16(m[2:])
	copy(m, q.header[:2])
	a := answer{buffer: b, code: int(flags & bitsRcode)}
	if binary.BigEndian.Uint16(m[4:]) == 0 {
		q.truncate(b) // to the question, which was left out
		binary.BigEndian.PutUint16(m[2:], flags&^bitTruncated)
		return a, nil
	}
	copy(m[headerSize:], q.question)
	if network == overUDP && len(m) > q.size {
		q.truncate(b)
		return a, nil
	}
	bindings, end, err := readAnswer(q, m)
	switch {
	case err == nil:
		a.bindings, b.n = bindings, end
	case network == overUDP && flags&bitTruncated != 0: // perhaps in the middle of a record
		q.truncate(b)
	default:
		return answer{}, fmt.Errorf("its answer can't be used: %w", err)
	}
	return a, nil
}

// ailing remembers which servers didn't answer.
type ailing struct {
	mu    sync.Mutex
	since map[netip.AddrPort]time.Time
}

// last returns the servers with the ailing ones behind the others.
func (a *ailing) last(servers []netip.AddrPort) []netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.since) == 0 {
		return servers
	}
	var well, ill []netip.AddrPort
	for _, server := range servers {
		if since, ok := a.since[server]; ok && time.Since(since) < ailingFor {
			ill = append(ill, server)
		} else {
			well = append(well, server)
		}
	}
	return append(well, ill...)
}

// note remembers how a server did. Only servers that are ailing are kept, and
// those of an earlier resolv.conf go when they are stale.
func (a *ailing) note(server netip.AddrPort, well bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if well {
		delete(a.since, server)
		return
	}
	for other, since := range a.since {
		if time.Since(since) >= ailingFor {
			delete(a.since, other)
		}
	}
	if a.since == nil {
		a.since = map[netip.AddrPort]time.Time{}
	}
	a.since[server] = time.Now()
}

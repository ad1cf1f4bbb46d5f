package resolver

import (
	"context"
	"errors"
	"time"

	"github.com/miekg/dns"
)

// patience bounds the time that one query may take in all. resolv.conf at its
// most patient has three servers and five attempts.
const patience = 30 * time.Second

// answer returns the answer to a message, or nil if it gets none, and the counter
// that it belongs in. The caller puts the buffer back.
func (r *Resolver) answer(ctx context.Context, network string, workload uint64, message []byte) (*buffer, *counter) {
	q, err := parseQuery(message)
	var rejected rejection
	switch {
	case errors.As(err, &rejected):
		return r.say(q.reply(int(rejected)), &r.count.rejected)
	case err != nil:
		return nil, &r.count.dropped
	case !r.opts.Watcher.Admit(workload, q.name):
		return r.say(q.refusal(), &r.count.refused)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	a, err := r.lookUp(ctx, network, q)
	if err == nil {
		err = r.tell(ctx, workload, a.bindings)
	}
	if err != nil {
		r.buffers.put(a.buffer)
		if errors.Is(err, context.Canceled) {
			return nil, &r.count.failed // nobody waits for it any more
		}
		r.log.Warn().Err(err).Uint64("workload", workload).Str("name", q.name).
			Str("type", dns.TypeToString[q.qtype]).Msg("a name could not be resolved; its asker was told SERVFAIL")
		return r.say(q.reply(dns.RcodeServerFailure), &r.count.failed)
	}
	return a.buffer, &r.count.answered
}

// lookUp answers from the hosts file, or else asks.
func (r *Resolver) lookUp(ctx context.Context, network string, q *query) (answer, error) {
	records, ok := r.hosts.get().answer(q)
	if !ok {
		return r.forward(ctx, network, q)
	}
	m := q.reply(dns.RcodeSuccess)
	m.Answer = records
	size := maxMessage
	if network == overUDP {
		size = q.size
	}
	m.Truncate(size)
	b, err := r.buffers.pack(m)
	if err != nil {
		return answer{}, err
	}
	bindings, _, err := readAnswer(q, b.message())
	if err != nil {
		r.buffers.put(b)
		return answer{}, err
	}
	return answer{buffer: b, bindings: bindings}, nil
}

// tell tells the watcher what the workload is about to learn.
func (r *Resolver) tell(ctx context.Context, workload uint64, bindings []binding) error {
	for _, b := range bindings {
		if err := r.opts.Watcher.Learned(ctx, workload, b.name, b.addrs, b.ttl); err != nil {
			return err
		}
	}
	return nil
}

// say packs an answer of our own.
func (r *Resolver) say(m *dns.Msg, in *counter) (*buffer, *counter) {
	b, err := r.buffers.pack(m)
	if err != nil {
		r.log.Error().Err(err).Msg("can't pack an answer")
		return nil, &r.count.failed
	}
	return b, in
}

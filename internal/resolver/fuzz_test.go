package resolver

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// FuzzQuery takes any bytes for a datagram of a planner. There is no server, so
// every query that is accepted fails.
func FuzzQuery(f *testing.F) {
	for _, test := range rejections(f) {
		f.Add(test.message)
	}
	f.Add(mustPack(f, edns(question("a\\.b.\\000c.test.", dns.TypeSVCB), 1232, true)))
	s := serve(f, &watcher{}, func(o *Options) {
		o.Servers = []netip.AddrPort{netip.MustParseAddrPort(stranger + ":53")}
	})
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) > maxMessage {
			return
		}
		b, in := s.answer(t.Context(), overUDP, planner, message)
		defer s.buffers.put(b)
		if in == &s.count.answered {
			t.Fatal("there was an answer without a server")
		}
		if b == nil {
			if in != &s.count.dropped || len(message) >= headerSize && message[2]&0x80 == 0 {
				t.Fatal("a query got no answer")
			}
			return
		}
		answer := new(dns.Msg)
		if err := answer.Unpack(b.message()); err != nil {
			t.Fatalf("the answer is malformed: %v", err)
		}
		if b.n > dns.MinMsgSize || !answer.Response || !bytes.Equal(b.message()[:2], message[:2]) || len(answer.Answer) != 0 {
			t.Fatalf("the answer is %v", answer)
		}
		if answer.Rcode == dns.RcodeServerFailure {
			var asked dns.Msg
			if err := asked.Unpack(message); err != nil || len(asked.Question) != 1 || asked.Question[0] != answer.Question[0] {
				t.Fatalf("%v was taken for the query %v", &asked, answer)
			}
		}
	})
}

// FuzzAnswer takes any bytes for a server's answer. What is passed on can be read
// by another reader, and no address in it is unknown.
func FuzzAnswer(f *testing.F) {
	query := edns(question("a.test.", dns.TypeA), 1232, true)
	query.Id = 0x4711 // the same in all workers
	q, err := parseQuery(mustPack(f, query))
	if err != nil {
		f.Fatal(err)
	}
	for _, lines := range [][]string{
		nil,
		{"a.test. 1 IN CNAME b.test.", "b.test. 2 IN A 10.0.0.1", "b.test. 2 IN AAAA ::ffff:10.0.0.2"},
		{"test. 1 IN DNAME c.example.", "a.c.example. 2 IN A 10.0.0.1"},
		{"a.test. 1 IN HTTPS 1 . alpn=h2 ipv4hint=10.0.0.1 ipv6hint=fd00::1", "_1._https.a.test. 1 IN SVCB 0 b.test."},
		{"a.test. 1 IN TXT \"x\"", "a.test. 1 IN RRSIG A 8 2 300 20300101000000 20200101000000 1 test. AAAA"},
	} {
		m := q.reply(dns.RcodeSuccess)
		for _, line := range lines {
			rr, err := dns.NewRR(line)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		m.Compress = true
		f.Add(mustPack(f, m), true)
		f.Add(mustPack(f, m), false)
	}
	f.Fuzz(func(t *testing.T, message []byte, tcp bool) {
		if len(message) > maxMessage {
			return
		}
		network := overUDP
		if tcp {
			network = overTCP
		}
		var pool buffers
		b := pool.get(len(message))
		b.n = copy(b.space(), message)
		if !q.answeredBy(b, query.Id) {
			return
		}
		a, err := q.read(network, b)
		if err != nil {
			return
		}
		if network == overUDP && a.n > q.size {
			t.Fatalf("%d bytes are more than the client takes", a.n)
		}
		m := new(dns.Msg)
		if m.Unpack(a.message()) != nil {
			return // types that are no addresses may be malformed
		}
		known := map[netip.Addr]bool{}
		for _, binding := range a.bindings {
			for _, addr := range binding.addrs {
				known[addr] = true
			}
		}
		for _, rr := range append(m.Answer, m.Extra...) {
			var addr netip.Addr
			switch rr := rr.(type) {
			case *dns.A:
				addr, _ = netip.AddrFromSlice(rr.A)
			case *dns.AAAA:
				addr, _ = netip.AddrFromSlice(rr.AAAA)
			default:
				continue
			}
			if !known[addr.Unmap()] {
				t.Fatalf("%v is passed on but not learned: %v", addr, a.bindings)
			}
		}
	})
}

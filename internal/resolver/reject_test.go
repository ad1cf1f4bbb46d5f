package resolver

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// read returns the next datagram.
func read(tb testing.TB, c net.Conn) []byte {
	tb.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, dns.MaxMsgSize)
	n, err := c.Read(b)
	if err != nil {
		tb.Fatal(err)
	}
	return b[:n]
}

// rejections are messages that are no queries to answer, and the code they get;
// silent ones get nothing.
func rejections(tb testing.TB) map[string]struct {
	message []byte
	code    int
} {
	const silent = -1
	packed := func(change func(m *dns.Msg)) []byte {
		m := edns(question("db.example.test.", dns.TypeA), 1232, false)
		change(m)
		b, err := m.Pack()
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	good := packed(func(*dns.Msg) {})
	patched := func(at int, with ...byte) []byte {
		b := append([]byte(nil), good...)
		copy(b[at:], with)
		return b
	}
	return map[string]struct {
		message []byte
		code    int
	}{
		"AXFR": {packed(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		"IXFR": {packed(func(m *dns.Msg) { m.SetIxfr("example.test.", 1, "a.", "b.") }), dns.RcodeRefused},
		"TKEY": {packed(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTKEY }), dns.RcodeRefused},
		"signed": {packed(func(m *dns.Msg) {
			m.Extra = append(m.Extra, &dns.TSIG{Hdr: dns.RR_Header{Name: "k.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256})
		}), dns.RcodeRefused},
		"class CH":      {packed(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		"class ANY":     {packed(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		"NOTIFY":        {packed(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		"UPDATE":        {packed(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		"no question":   {packed(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		"two questions": {packed(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		"an answer": {packed(func(m *dns.Msg) {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.", Rrtype: dns.TypeA}, A: net.IPv4(1, 2, 3, 4)}}
		}), dns.RcodeFormatError},
		"two OPTs":       {packed(func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }), dns.RcodeFormatError},
		"EDNS version 1": {packed(func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		"a header only":  {good[:headerSize], dns.RcodeFormatError},
		"cut":            {good[:len(good)-1], dns.RcodeFormatError},
		"cut question":   {good[:headerSize+9], dns.RcodeFormatError},
		"trailing bytes": {append(append([]byte(nil), good...), 0), dns.RcodeFormatError},
		"a pointer":      {patched(headerSize, 0xC0, headerSize), dns.RcodeFormatError},
		"a long label":   {patched(headerSize, 64), dns.RcodeFormatError},
		"too long":       {append(append([]byte(nil), good...), make([]byte, maxDatagram)...), dns.RcodeFormatError},
		"an answer's QR": {packed(func(m *dns.Msg) { m.Response = true }), silent},
		"half a header":  {good[:headerSize-1], silent},
		"nothing":        {nil, silent},
	}
}

func TestWhatIsNoQueryForAResolverIsRejected(t *testing.T) {
	for name, test := range rejections(t) {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &watcher{}, nil)
			c, err := net.Dial("udp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(test.message); err != nil {
				t.Fatal(err)
			}
			if test.code < 0 {
				s.eventually(t, Counters{Dropped: 1})
				// Had there been an answer, it would come before this one's.
				query, err := question("db.example.test.", dns.TypeA).Pack()
				if err != nil {
					t.Fatal(err)
				}
				binary.BigEndian.PutUint16(query, 4711)
				if _, err := c.Write(query); err != nil {
					t.Fatal(err)
				}
				if got := binary.BigEndian.Uint16(read(t, c)); got != 4711 {
					t.Errorf("it was answered")
				}
				return
			}
			var answer dns.Msg
			if err := answer.Unpack(read(t, c)); err != nil {
				t.Fatal(err)
			}
			if id := binary.BigEndian.Uint16(test.message); !answer.Response || answer.Id != id || answer.Rcode != test.code {
				t.Errorf("answered %v", &answer)
			}
			s.eventually(t, Counters{Rejected: 1})
			if s.asked != nil {
				t.Errorf("it was resolved: %v", s.asked)
			}
		})
	}
}

func TestDatagramOfAnUnknownSenderIsDropped(t *testing.T) {
	w := &watcher{}
	s := serve(t, w, nil)
	at := serveAt(t, s.Resolver, "127.0.0.1:0", func(netip.AddrPort) (uint64, bool) { return 0, false })
	unknown, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer unknown.Close()
	query, err := question("db.example.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unknown.Write(query); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, Counters{Dropped: 1})
	if w.asked != nil {
		t.Errorf("it was resolved: %v", w.asked)
	}
}

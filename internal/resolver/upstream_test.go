package resolver

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// faulty is a name server with faults that no real one can be made to have. fault
// returns the datagrams that answer the good answer's query.
func faulty(t *testing.T, fault func(good []byte) [][]byte) (at netip.AddrPort, asked *atomic.Int64) {
	t.Helper()
	c := listenUDP(t, "127.0.0.1:0")
	asked = new(atomic.Int64)
	over := make(chan struct{})
	go func() {
		defer close(over)
		b := make([]byte, maxMessage)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			asked.Add(1)
			for _, answer := range fault(rawExchange(t, realServer, b[:n])) {
				_, _ = c.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-over })
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), asked
}

func patched(message []byte, at int, xor ...byte) []byte {
	b := slices.Clone(message)
	for i, x := range xor {
		b[at+i] ^= x
	}
	return b
}

// forged is the answer with another address.
func forged(good []byte) []byte { return patched(good, len(good)-1, 0xFF) }

func TestOnlyTheAnswerToTheQueryIsTaken(t *testing.T) {
	truth := "10.1.0.1 10.1.0.2"
	tests := map[string]func(good []byte) [][]byte{
		"another id":       func(good []byte) [][]byte { return [][]byte{patched(forged(good), 0, 1), good} },
		"another question": func(good []byte) [][]byte { return [][]byte{patched(forged(good), headerSize+1, 1), good} },
		"another type": func(good []byte) [][]byte {
			return [][]byte{patched(forged(good), headerSize+len("\x02db\x07example\x04test\x00")+1, 2), good}
		},
		"a query":      func(good []byte) [][]byte { return [][]byte{patched(forged(good), 2, 0x80), good} },
		"nothing":      func(good []byte) [][]byte { return [][]byte{{}, good[:5], good} },
		"another case": func(good []byte) [][]byte { return [][]byte{patched(good, headerSize+1, 0x20, 0x20)} },
		"more behind it": func(good []byte) [][]byte {
			return [][]byte{append(slices.Clone(good), "\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x01\x02\x03\x04"...)}
		},
	}
	for name, fault := range tests {
		t.Run(name, func(t *testing.T) {
			server, _ := faulty(t, fault)
			s := serve(t, &watcher{}, func(o *Options) { o.Servers = []netip.AddrPort{server} })
			query, err := question("db.example.test.", dns.TypeA).Pack()
			if err != nil {
				t.Fatal(err)
			}
			want, got := rawExchange(t, realServer, query), rawExchange(t, s.addr, query)
			slices.Sort(want) // the server may rotate the addresses
			slices.Sort(got)
			if !slices.Equal(want, got) {
				t.Errorf("answered %x instead of %x", got, want)
			}
			if diff := cmp.Diff(map[string]string{"db.example.test": truth + " 5m0s"}, s.taught()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestServerThatDoesNotAnswerIsPassedOver(t *testing.T) {
	tests := map[string]struct {
		fault func(good []byte) [][]byte
		times int64 // it is asked for the first query
		after int64 // and for two
	}{
		"silence":         {func([]byte) [][]byte { return nil }, 1, 1},
		"garbage":         {func(good []byte) [][]byte { return [][]byte{good[:len(good)-1]} }, 1, 1},
		"a record short":  {func(good []byte) [][]byte { return [][]byte{patched(good, 7, 1)} }, 1, 1},
		"SERVFAIL":        {func(good []byte) [][]byte { return [][]byte{patched(good, 3, dns.RcodeServerFailure)} }, 1, 2},
		"a bare REFUSED":  {func(good []byte) [][]byte { return [][]byte{bare(good, dns.RcodeRefused)} }, 1, 2},
		"a bare NXDOMAIN": {func(good []byte) [][]byte { return [][]byte{bare(good, dns.RcodeNameError)} }, 1, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, asked := faulty(t, test.fault)
			s := serve(t, &watcher{}, func(o *Options) {
				o.Servers = []netip.AddrPort{server, netip.MustParseAddrPort(realServer)}
				o.Timeout = time.Second // enough for those that answer
			})
			for _, want := range []int64{test.times, test.after} {
				if got := addresses(s.ask(t, overUDP, question("db.example.test.", dns.TypeA))); !slices.Equal(got, []string{"10.1.0.1", "10.1.0.2"}) {
					t.Errorf("answered %v", got)
				}
				if got := asked.Load(); got != want {
					t.Errorf("the first server was asked %d times, want %d", got, want)
				}
			}
		})
	}
}

// bare is only the header of the answer.
func bare(good []byte, code byte) []byte {
	b := slices.Clone(good[:headerSize])
	b[3] = b[3]&^bitsRcode | code
	clear(b[4:])
	return b
}

func TestQueryFailsWhenNoServerAnswers(t *testing.T) {
	silent, asked := faulty(t, func([]byte) [][]byte { return nil })
	closed := listenUDP(t, "127.0.0.1:0")
	closed.Close()
	s := serve(t, &watcher{}, func(o *Options) {
		o.Servers = []netip.AddrPort{silent, closed.LocalAddr().(*net.UDPAddr).AddrPort()}
		o.Timeout = 50 * time.Millisecond
	})
	write(t, s.conf, "options attempts:3\n")
	for _, network := range []string{overUDP, overTCP} {
		answer := s.ask(t, network, edns(question("db.example.test.", dns.TypeA), 1232, false))
		if answer.Rcode != dns.RcodeServerFailure || answer.IsEdns0() == nil {
			t.Errorf("%s: %v", network, answer)
		}
	}
	s.eventually(t, Counters{Failed: 2})
	eventually(t, func() string {
		if got := asked.Load(); got != 3 { // TCP finds nobody
			return fmt.Sprintf("the silent server was asked %d times", got)
		}
		return ""
	})
}

func TestWhatTheServerSaysOfAFailureIsPassedOn(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(good []byte) [][]byte
		code  int
	}{
		"SERVFAIL":       {func(good []byte) [][]byte { return [][]byte{patched(good, 3, dns.RcodeServerFailure)} }, dns.RcodeServerFailure},
		"a bare REFUSED": {func(good []byte) [][]byte { return [][]byte{bare(good, dns.RcodeRefused)} }, dns.RcodeRefused},
		"a bare FORMERR": {func(good []byte) [][]byte { return [][]byte{bare(good, dns.RcodeFormatError)} }, dns.RcodeFormatError},
	} {
		server, _ := faulty(t, test.fault)
		s := serve(t, &watcher{}, func(o *Options) { o.Servers = []netip.AddrPort{server} })
		answer := s.ask(t, overUDP, question("note.example.test.", dns.TypeTXT))
		if answer.Rcode != test.code || answer.Question[0].Name != "note.example.test." {
			t.Errorf("%s became %v", name, answer)
		}
	}
}

func TestAnswerThatIsTruncatedAnywhereSendsTheClientToTCP(t *testing.T) {
	const truncated = bitTruncated >> 8
	for name, fault := range map[string]func(good []byte) [][]byte{
		"in a record":    func(good []byte) [][]byte { return [][]byte{patched(good, 2, truncated)[:len(good)-3]} },
		"after a header": func(good []byte) [][]byte { return [][]byte{patched(good, 2, truncated)[:len(good)-16]} },
		"with garbage": func(good []byte) [][]byte {
			return [][]byte{append(patched(good, 2, truncated)[:len(good)-16], "\xC0\xFFgarbage"...)}
		},
		"larger than asked": func(good []byte) [][]byte { return [][]byte{append(slices.Clone(good), make([]byte, 5000)...)} },
	} {
		server, _ := faulty(t, fault)
		s := serve(t, &watcher{}, func(o *Options) { o.Servers = []netip.AddrPort{server} })
		answer := s.ask(t, overUDP, edns(question("db.example.test.", dns.TypeA), 512, false))
		if !answer.Truncated || answer.Rcode != dns.RcodeSuccess || len(answer.Answer) != 0 || answer.IsEdns0() == nil {
			t.Errorf("%s: %v", name, answer)
		}
	}
}

func TestServerIsAskedAsTheClientAsked(t *testing.T) {
	var seen atomic.Pointer[dns.Msg]
	c := listenUDP(t, "127.0.0.1:0")
	var ports, ids [2]uint16
	over := make(chan struct{})
	go func() {
		defer close(over)
		b := make([]byte, maxMessage)
		for i := range ids {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			m := new(dns.Msg)
			if err := m.Unpack(b[:n]); err != nil {
				t.Error(err)
			}
			ids[i], ports[i] = m.Id, from.Port()
			seen.Store(m)
			_, _ = c.WriteToUDPAddrPort(rawExchange(t, realServer, b[:n]), from)
		}
	}()
	server := c.LocalAddr().(*net.UDPAddr).AddrPort()
	s := serve(t, &watcher{}, func(o *Options) { o.Servers = []netip.AddrPort{server} })

	query := edns(question("dB.eXample.test.", dns.TypeA), 1400, true)
	query.AuthenticatedData = true
	query.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
	s.ask(t, overUDP, query)
	got := seen.Load()
	opt := got.IsEdns0()
	if got.Question[0] != query.Question[0] || !got.RecursionDesired || !got.AuthenticatedData || got.CheckingDisabled {
		t.Errorf("asked %v", got)
	}
	if opt == nil || opt.UDPSize() != 1400 || !opt.Do() || len(opt.Option) != 0 {
		t.Errorf("asked with EDNS %v", opt)
	}
	plain := question("db.example.test.", dns.TypeA)
	plain.RecursionDesired, plain.CheckingDisabled = false, true
	plain.Id = query.Id
	s.ask(t, overUDP, plain)
	<-over
	if got = seen.Load(); got.IsEdns0() != nil || got.RecursionDesired || !got.CheckingDisabled {
		t.Errorf("asked %v", got)
	}
	if ports[0] == ports[1] && ids[0] == ids[1] {
		t.Errorf("two queries had the same id and port, %v %v", ids, ports)
	}
}

func TestDNAMEWithoutItsCNAMEIsFollowed(t *testing.T) {
	// Servers add the CNAME, so the answer is made here.
	q, err := parseQuery(mustPack(t, question("host.old.example.test.", dns.TypeA)))
	if err != nil {
		t.Fatal(err)
	}
	m := q.reply(dns.RcodeSuccess)
	for _, line := range []string{
		"old.example.test. 70 IN DNAME new.example.test.",
		"example.test. 80 IN DNAME example.net.",
		"host.new.example.test. 90 IN A 10.1.0.7",
		"host.new.example.net. 50 IN A 10.1.0.6",
		"else.example.test. 60 IN A 10.1.0.5",
	} {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	bindings, _, err := readAnswer(q, mustPack(t, m))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, b := range bindings {
		for _, addr := range b.addrs {
			got[b.name] += addr.String() + " "
		}
		got[b.name] += b.ttl.String()
	}
	want := map[string]string{
		"host.old.example.test": "10.1.0.5 10.1.0.6 10.1.0.7 50s",
		"host.new.example.test": "10.1.0.6 10.1.0.7 50s",
		"host.new.example.net":  "10.1.0.6 50s",
		"else.example.test":     "10.1.0.5 1m0s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnswerWithEndlessAliasesIsNotPassedOn(t *testing.T) {
	q, err := parseQuery(mustPack(t, question("a.test.", dns.TypeA)))
	if err != nil {
		t.Fatal(err)
	}
	m := q.reply(dns.RcodeSuccess)
	for i := range maxAliases + 1 {
		label := strings.Repeat("a", 1+i/60) + string(rune('a'+i%20)) + string(rune('a'+i/20))
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: label + ".test.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: "a.test."})
	}
	if _, _, err := readAnswer(q, mustPack(t, m)); err == nil {
		t.Error("it was read")
	}
	loop := q.reply(dns.RcodeSuccess)
	for _, line := range []string{"a.test. 9 IN CNAME b.test.", "b.test. 9 IN CNAME a.test.", "test. 9 IN DNAME a.test.", "b.test. 7 IN A 10.0.0.1"} {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		loop.Answer = append(loop.Answer, rr)
	}
	bindings, _, err := readAnswer(q, mustPack(t, loop))
	if err != nil || len(bindings) < 2 || bindings[0].ttl != 7*time.Second {
		t.Errorf("a loop was read as %v, %v", bindings, err)
	}
}

func mustPack(tb testing.TB, m *dns.Msg) []byte {
	tb.Helper()
	b, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

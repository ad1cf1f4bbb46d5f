package resolver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func TestAddressesAreLearnedByEveryNameThatLeadsToThem(t *testing.T) {
	s := serve(t, &watcher{}, nil)
	write(t, s.hosts, "10.3.0.1 printer.example.test printer # upstairs\nfd00::33 printer.example.test\n")
	tests := []struct {
		ask   string
		qtype uint16
		code  int
		want  map[string]string
	}{
		{ask: "db.example.test.", qtype: dns.TypeA, want: map[string]string{"db.example.test": "10.1.0.1 10.1.0.2 5m0s"}},
		{ask: "DB.Example.TEST.", qtype: dns.TypeAAAA, want: map[string]string{"db.example.test": "fd00::1 1m0s"}},
		{ask: "www.example.test.", qtype: dns.TypeA, want: map[string]string{
			"www.example.test": "10.1.0.1 10.1.0.2 1m40s",
			"app.example.test": "10.1.0.1 10.1.0.2 1m40s",
			"db.example.test":  "10.1.0.1 10.1.0.2 5m0s",
		}},
		{ask: "mapped.example.test.", qtype: dns.TypeAAAA, want: map[string]string{"mapped.example.test": "10.1.0.9 5m0s"}},
		{ask: "host.old.example.test.", qtype: dns.TypeA, want: map[string]string{
			"host.old.example.test": "10.1.0.7 5m0s",
			"host.new.example.test": "10.1.0.7 5m0s",
		}},
		{ask: "any.wild.example.test.", qtype: dns.TypeA, want: map[string]string{"any.wild.example.test": "10.1.0.8 5m0s"}},
		{ask: "mx.example.test.", qtype: dns.TypeMX, want: map[string]string{"db.example.test": "10.1.0.1 10.1.0.2 fd00::1 1m0s"}},
		{ask: "svc.example.test.", qtype: dns.TypeHTTPS, want: map[string]string{"svc.example.test": "10.1.0.3 fd00::3 5m0s"}},
		{ask: "_8443._https.api.example.test.", qtype: dns.TypeHTTPS, want: map[string]string{
			"_8443._https.api.example.test": "10.1.0.4 10.1.0.5 5m0s",
			"api.example.test":              "10.1.0.4 10.1.0.5 5m0s",
			"pool.example.test":             "10.1.0.4 10.1.0.5 5m0s",
		}},
		{ask: "printer.example.test.", qtype: dns.TypeA, want: map[string]string{"printer.example.test": "10.3.0.1 10s"}},
		{ask: "printer.", qtype: dns.TypeANY, want: map[string]string{"printer": "10.3.0.1 10s"}},
		{ask: "note.example.test.", qtype: dns.TypeTXT},
		{ask: "db.example.test.", qtype: dns.TypeSRV}, // no data
		{ask: "none.example.test.", qtype: dns.TypeA, code: dns.RcodeNameError},
		{ask: "1.0.1.10.in-addr.arpa.", qtype: dns.TypePTR},
	}
	for _, network := range []string{overUDP, overTCP} {
		for _, test := range tests {
			t.Run(network+"/"+test.ask+dns.TypeToString[test.qtype], func(t *testing.T) {
				query := edns(question(test.ask, test.qtype), 1232, false)
				answer := s.ask(t, network, query)
				if answer.Rcode != test.code {
					t.Errorf("the answer is %s", dns.RcodeToString[answer.Rcode])
				}
				if answer.Question[0].Name != test.ask {
					t.Errorf("the question came back as %s", answer.Question[0].Name)
				}
				if diff := cmp.Diff(test.want, s.taught()); diff != "" {
					t.Errorf("learned (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// The queries of one client are answered as they are ready, so an answer
// to the second shows that there was none to the first yet.
func TestAnswerIsSentAfterItWasLearned(t *testing.T) {
	for _, network := range []string{overUDP, overTCP} {
		t.Run(network, func(t *testing.T) {
			w, learning, learned := &watcher{}, make(chan string, 1), make(chan struct{})
			w.onLearned = func(_ context.Context, workload uint64, name string) {
				learning <- fmt.Sprint(workload, " ", name)
				<-learned
			}
			s := serve(t, w, nil)
			c, err := dns.Dial(network, s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			first, second := question("db.example.test.", dns.TypeA), question("none.example.test.", dns.TypeA)
			if err := c.WriteMsg(first); err != nil {
				t.Fatal(err)
			}
			if got := <-learning; got != "7 db.example.test" {
				t.Errorf("learned by %s", got)
			}
			if err := c.WriteMsg(second); err != nil {
				t.Fatal(err)
			}
			early, err := c.ReadMsg()
			close(learned)
			if err != nil {
				t.Fatal(err)
			}
			if early.Id != second.Id || early.Rcode != dns.RcodeNameError {
				t.Errorf("before the address was learned, there was the answer %v", early)
			}
			late, err := c.ReadMsg()
			if err != nil {
				t.Fatal(err)
			}
			if got := addresses(late); late.Id != first.Id || !slices.Equal(got, []string{"10.1.0.1", "10.1.0.2"}) {
				t.Errorf("answered %v", late)
			}
		})
	}
}

func TestAnswerThatCannotBeLearnedIsWithheld(t *testing.T) {
	s := serve(t, &watcher{fail: errors.New("map full")}, nil)
	write(t, s.hosts, "10.3.0.1 printer.example.test\n")
	for _, name := range []string{"db.example.test.", "printer.example.test."} {
		answer := s.ask(t, overUDP, question(name, dns.TypeA))
		if answer.Rcode != dns.RcodeServerFailure || len(answer.Answer) != 0 {
			t.Errorf("%s was answered %s with %v", name, dns.RcodeToString[answer.Rcode], answer.Answer)
		}
	}
	if answer := s.ask(t, overUDP, question("note.example.test.", dns.TypeTXT)); len(answer.Answer) != 1 {
		t.Errorf("an answer without addresses was withheld: %v", answer)
	}
	s.eventually(t, Counters{Answered: 1, Failed: 2})
}

func TestNameThatIsNotAdmittedDoesNotExist(t *testing.T) {
	for _, name := range []string{"db.example.test", "1.0.1.10.in-addr.arpa"} {
		s := serve(t, &watcher{deny: name}, nil)
		qtype := dns.TypeA
		if strings.HasSuffix(name, "arpa") {
			qtype = dns.TypePTR
		}
		plain := s.ask(t, overUDP, question(strings.ToUpper(name)+".", qtype))
		if plain.Rcode != dns.RcodeNameError || plain.IsEdns0() != nil || len(plain.Answer) != 0 {
			t.Errorf("without EDNS: %v", plain)
		}
		extended := s.ask(t, overTCP, edns(question(name+".", qtype), 1232, false))
		if extended.Rcode != dns.RcodeNameError || !strings.Contains(extended.String(), "EDE: 18 (Prohibited)") {
			t.Errorf("with EDNS: %v", extended)
		}
		if got := s.taught(); got != nil {
			t.Errorf("learned %v of a name that is not admitted", got)
		}
		s.eventually(t, Counters{Refused: 2})
	}
}

func TestSignedAnswerComesByteByByte(t *testing.T) {
	s := serve(t, &watcher{}, nil)
	for _, query := range []*dns.Msg{
		edns(question("db.signed.test.", dns.TypeA), 4096, true),
		edns(question("none.signed.test.", dns.TypeA), 1232, true),
		edns(question("sIgNeD.test.", dns.TypeDNSKEY), 1232, true),
		question("db.signed.test.", dns.TypeA),
	} {
		query.AuthenticatedData, query.CheckingDisabled = true, true
		asked, err := query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		direct, through := rawExchange(t, realServer, asked), rawExchange(t, s.addr, asked)
		if !bytes.Equal(direct, through) {
			t.Errorf("%s differs:\n%x\n%x", query.Question[0].Name, direct, through)
		}
	}
	keys := s.ask(t, overTCP, edns(question("signed.test.", dns.TypeDNSKEY), 1232, true))
	answer := s.ask(t, overUDP, edns(question("db.signed.test.", dns.TypeA), 1232, true))
	if len(answer.Answer) != 2 {
		t.Fatalf("no signature: %v", answer)
	}
	sig, _ := answer.Answer[1].(*dns.RRSIG)
	verified := slices.ContainsFunc(keys.Answer, func(rr dns.RR) bool {
		key, ok := rr.(*dns.DNSKEY)
		return ok && sig != nil && sig.Verify(key, answer.Answer[:1]) == nil
	})
	if !verified {
		t.Errorf("the signature doesn't verify: %v by %v", answer, keys)
	}
}

// rawExchange sends a datagram and returns the next one.
func rawExchange(tb testing.TB, addr string, message []byte) []byte {
	tb.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(message); err != nil {
		tb.Fatal(err)
	}
	return read(tb, c)
}

func TestLargeAnswersAreTruncatedToWhatTheClientTakes(t *testing.T) {
	s := serve(t, &watcher{}, nil)
	var lines strings.Builder
	for i := range 60 {
		fmt.Fprintf(&lines, "10.4.0.%d crowd.example.test\n", i)
	}
	write(t, s.hosts, lines.String())
	tests := []struct {
		name      string
		size      uint16 // 0: no EDNS
		truncated bool
		total     int
	}{
		{"many.example.test.", 0, true, 40},
		{"many.example.test.", 100, true, 40},
		{"many.example.test.", 1232, false, 40},
		{"huge.example.test.", 65535, true, 2000},
		{"crowd.example.test.", 0, true, 60},
		{"crowd.example.test.", 1400, false, 60},
	}
	for _, test := range tests {
		query := question(test.name, dns.TypeA)
		if test.size != 0 {
			edns(query, test.size, false)
		}
		answer := s.ask(t, overUDP, query)
		if answer.Truncated != test.truncated {
			t.Errorf("%s of %d bytes: truncated is %v", test.name, test.size, answer.Truncated)
		}
		if !test.truncated && len(answer.Answer) != test.total {
			t.Errorf("%s of %d bytes: %d addresses", test.name, test.size, len(answer.Answer))
		}
		s.taught()
		if got := s.ask(t, overTCP, query); got.Truncated || len(got.Answer) != test.total {
			t.Errorf("%s over TCP: %d addresses, truncated is %v", test.name, len(got.Answer), got.Truncated)
		}
		if got := len(strings.Fields(s.taught()[canonical(test.name)])); got != test.total+1 {
			t.Errorf("%s over TCP: learned %d addresses of %d", test.name, got-1, test.total)
		}
	}
}

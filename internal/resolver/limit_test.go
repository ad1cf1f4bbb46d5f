package resolver

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// held makes a resolver whose answers for workload 1 wait until the test ends or
// release is called. Senders from 127.0.0.1 are workload 1, those from 127.0.0.2 are 2.
func held(t *testing.T, limits Limits) (s served, learning chan string, release func()) {
	t.Helper()
	learning = make(chan string, 16)
	released, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	w := &watcher{onLearned: func(ctx context.Context, workload uint64, name string) {
		if workload == 1 {
			learning <- name
			<-released.Done()
		}
	}}
	s = serve(t, w, func(o *Options) { o.Limits = limits })
	s.addr = serveAt(t, s.Resolver, "127.0.0.1:0", func(from netip.AddrPort) (uint64, bool) {
		return uint64(from.Addr().As4()[3]), true
	})
	t.Cleanup(cancel) // before the servers are waited for
	return s, learning, cancel
}

// dialFrom connects from the address.
func dialFrom(t *testing.T, network, from, to string) *dns.Conn {
	t.Helper()
	var local net.Addr = &net.UDPAddr{IP: net.ParseIP(from)}
	if network == overTCP {
		local = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	d := net.Dialer{LocalAddr: local}
	c, err := d.Dial(network, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &dns.Conn{Conn: c}
}

func send(t *testing.T, c *dns.Conn, m *dns.Msg) {
	t.Helper()
	if err := c.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c *dns.Conn) *dns.Msg {
	t.Helper()
	m, err := c.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFloodOfOneWorkloadLeavesTheOthersAlone(t *testing.T) {
	s, learning, release := held(t, Limits{InFlight: 3, InFlightPerWorkload: 2})
	flood := dialFrom(t, overUDP, "127.0.0.1", s.addr)
	flood2 := dialFrom(t, overTCP, "127.0.0.1", s.addr)
	for range 2 {
		send(t, flood, question("db.example.test.", dns.TypeA))
		<-learning
	}
	send(t, flood, question("db.example.test.", dns.TypeA))
	s.eventually(t, Counters{OverLimit: 1})
	over := question("db.example.test.", dns.TypeA)
	send(t, flood2, over)
	if answer := receive(t, flood2); answer.Id != over.Id || answer.Rcode != dns.RcodeRefused {
		t.Errorf("over the limit, TCP is answered %v", answer)
	}
	s.eventually(t, Counters{OverLimit: 2})

	for i, network := range []string{overUDP, overTCP} {
		other := dialFrom(t, network, "127.0.0.2", s.addr)
		send(t, other, question("db.example.test.", dns.TypeA))
		if got := addresses(receive(t, other)); len(got) != 2 {
			t.Errorf("another workload is answered %v over %s", got, network)
		}
		s.eventually(t, Counters{OverLimit: 2, Answered: uint64(i) + 1})
	}
	release()
	for range 2 {
		receive(t, flood)
	}
	s.eventually(t, Counters{OverLimit: 2, Answered: 4})
	send(t, flood2, question("db.example.test.", dns.TypeA)) // its connection goes on
	if got := addresses(receive(t, flood2)); len(got) != 2 {
		t.Errorf("after the flood it is answered %v", got)
	}
}

func TestAllWorkloadsTogetherAreLimited(t *testing.T) {
	s, learning, _ := held(t, Limits{InFlight: 1})
	send(t, dialFrom(t, overUDP, "127.0.0.1", s.addr), question("db.example.test.", dns.TypeA))
	<-learning
	other := dialFrom(t, overTCP, "127.0.0.2", s.addr)
	send(t, other, question("db.example.test.", dns.TypeA))
	if answer := receive(t, other); answer.Rcode != dns.RcodeRefused {
		t.Errorf("answered %v", answer)
	}
}

func TestConnectionsOfOneWorkloadAreLimited(t *testing.T) {
	s, _, _ := held(t, Limits{ConnectionsPerWorkload: 1})
	ask := func(c *dns.Conn) {
		t.Helper()
		send(t, c, question("none.example.test.", dns.TypeA))
		if answer := receive(t, c); answer.Rcode != dns.RcodeNameError {
			t.Errorf("answered %v", answer)
		}
	}
	first := dialFrom(t, overTCP, "127.0.0.1", s.addr)
	ask(first)
	if b, err := io.ReadAll(dialFrom(t, overTCP, "127.0.0.1", s.addr).Conn); err != nil || len(b) != 0 {
		t.Errorf("a second connection ended with %q, %v", b, err)
	}
	ask(dialFrom(t, overTCP, "127.0.0.2", s.addr))
	ask(first)
	s.eventually(t, Counters{Answered: 3, OverLimit: 1})
}

func TestConnectionEnds(t *testing.T) {
	query := mustPack(t, question("none.example.test.", dns.TypeA))
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	for name, test := range map[string]struct {
		sent    []byte
		answers int
		idle    time.Duration
		half    bool // whether the client closes its side
	}{
		"when it is idle":                    {sent: framed, answers: 1, idle: 50 * time.Millisecond},
		"when it is idle from the beginning": {idle: 50 * time.Millisecond},
		"when a message doesn't come":        {sent: framed[:len(framed)-1], idle: 50 * time.Millisecond},
		"when the client has no more":        {sent: bytes.Repeat(framed, 3), answers: 3, half: true},
		"in the middle of a message":         {sent: framed[:9], half: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &watcher{}, func(o *Options) { o.IdleTimeout = test.idle })
			c := dialFrom(t, overTCP, "127.0.0.1", s.addr)
			if _, err := c.Conn.Write(test.sent); err != nil {
				t.Fatal(err)
			}
			if test.half {
				if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			for range test.answers {
				receive(t, c)
			}
			if b, err := io.ReadAll(c.Conn); err != nil || len(b) != 0 {
				t.Errorf("it ended with %q, %v", b, err)
			}
		})
	}
}

func TestServingEndsWithItsContext(t *testing.T) {
	s, learning, release := held(t, Limits{})
	ctx, cancel := context.WithCancel(context.Background())
	conn := listenUDP(t, "127.0.0.1:0")
	listener := listenTCP(t, "127.0.0.1:0")
	served := make(chan error, 2)
	go func() {
		served <- s.ServeUDP(ctx, conn, func(netip.AddrPort) (uint64, bool) { return 1, true })
	}()
	go func() {
		c, err := listener.Accept()
		if err == nil {
			s.ServeTCP(ctx, c, 1)
		}
		served <- err
	}()
	send(t, dialFrom(t, overUDP, "127.0.0.1", conn.LocalAddr().String()), question("db.example.test.", dns.TypeA))
	c := dialFrom(t, overTCP, "127.0.0.1", listener.Addr().String())
	send(t, c, question("db.example.test.", dns.TypeA))
	<-learning
	<-learning
	cancel()
	if _, err := c.ReadMsg(); err == nil {
		t.Error("a connection that ended was answered")
	}
	select {
	case err := <-served:
		t.Fatalf("it ended with a query in flight: %v", err)
	default:
	}
	release()
	for range 2 {
		if err := <-served; err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
	// Whether the datagram was still sent is a matter of moments.
	if got := s.Counters(); got.Failed+got.Answered != 2 || got.Failed == 0 {
		t.Errorf("counters are %+v", got)
	}
}

func TestServeUDPSaysWhenItsSocketIsGone(t *testing.T) {
	s := serve(t, &watcher{}, nil)
	conn := listenUDP(t, "127.0.0.1:0")
	conn.Close()
	if err := s.ServeUDP(t.Context(), conn, nil); err == nil {
		t.Error("no error")
	}
}

package resolver

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// BenchmarkQuery is one query after the other to the real server, and through the
// resolver to the same server.
func BenchmarkQuery(b *testing.B) {
	s := serve(b, &watcher{}, nil)
	for _, name := range []string{"db.example.test.", "www.example.test."} {
		for at, addr := range map[string]string{"direct": realServer, "resolver": s.addr} {
			b.Run(fmt.Sprintf("%s/%s", at, name), func(b *testing.B) { benchmarkQuery(b, addr, name) })
		}
	}
}

func benchmarkQuery(b *testing.B, addr, name string) {
	c, err := dns.Dial(overUDP, addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	query := mustPack(b, edns(question(name, dns.TypeA), 1232, false))
	answer := make([]byte, maxDatagram)
	for b.Loop() {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Conn.Write(query); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Conn.Read(answer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadAnswer is what an answer costs to be read.
func BenchmarkReadAnswer(b *testing.B) {
	query := mustPack(b, edns(question("www.example.test.", dns.TypeA), 1232, false))
	q, err := parseQuery(query)
	if err != nil {
		b.Fatal(err)
	}
	message := rawExchange(b, realServer, query)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := readAnswer(q, message); err != nil {
			b.Fatal(err)
		}
	}
}

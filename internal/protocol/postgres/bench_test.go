package postgres

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// nullSession allows everything and looks at nothing: what is left is the cost
// of the wire.
type nullSession struct{}

func (nullSession) Prepare(context.Context, string) (Prepared, error) { return nullPrepared{}, nil }
func (nullSession) Function(context.Context, uint32, int) (Function, error) {
	return Function{}, &Refusal{SQLState: "0A000"}
}
func (nullSession) Begin(context.Context, Prepared, Params) (Command, error) {
	return nullCommand{}, nil
}
func (nullSession) Text(_ Command, _ byte, s string) string { return s }
func (nullSession) Parameter(string, string) error          { return nil }

type nullPrepared struct{}

func (nullPrepared) Statements() int        { return 1 }
func (nullPrepared) Copy(int) CopyDirection { return CopyNone }

type nullCommand struct{}

func (nullCommand) Fields(int, []Field) (bool, error)    { return false, nil }
func (nullCommand) Row(body []byte) ([]byte, error)      { return body, nil }
func (nullCommand) CopyOut(int, bool) (bool, error)      { return false, nil }
func (nullCommand) CopyData(body []byte) ([]byte, error) { return body, nil }
func (nullCommand) End(Outcome)                          {}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tcpPair is a connection over loopback.
func tcpPair(b testing.TB) (near, far net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		b.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// relayBetween runs a relay between a client and an upstream that the
// benchmark plays itself.
func relayBetween(b *testing.B, pair func() (net.Conn, net.Conn)) (client, upstream net.Conn) {
	client, near := pair()
	far, upstream := pair()
	c := &Client{conn: near, socket: near, startup: Startup{User: "u"}}
	u := &Upstream{conn: far, options: UpstreamOptions{Dial: func(context.Context) (net.Conn, error) { return nil, io.EOF }}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Relay(ctx, c, u, nullSession{}, RelayOptions{})
	}()
	b.Cleanup(func() { client.Close(); stop(); <-done })
	fe := pgproto3.NewFrontend(client, client)
	for {
		m, err := fe.Receive()
		if err != nil {
			b.Fatal(err)
		}
		if _, ok := m.(*pgproto3.ReadyForQuery); ok {
			return client, upstream
		}
	}
}

func selectAnswer() []byte {
	var out []byte
	for _, m := range []pgproto3.BackendMessage{
		&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("abalance"), DataTypeOID: 23, DataTypeSize: 4}}},
		&pgproto3.DataRow{Values: [][]byte{[]byte("0")}},
		&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	} {
		out, _ = m.Encode(out)
	}
	return out
}

// answer plays an upstream that answers each thing it reads at once.
func answer(upstream net.Conn, reply []byte) {
	buf := make([]byte, 4096)
	for {
		if _, err := upstream.Read(buf); err != nil {
			return
		}
		if _, err := upstream.Write(reply); err != nil {
			return
		}
	}
}

// BenchmarkFraming is one simple query and its answer without any system call:
// what framing, matching and the ledger cost.
func BenchmarkFraming(b *testing.B) {
	l := newLedger(4096)
	lim := RelayOptions{}.limits()
	query := appendMessage(nil, msgQuery, []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 12345;\x00"))
	reply := selectAnswer()
	front := newFrontend(nil, io.Discard, l, nullSession{}, lim)
	back := newBackend(nil, io.Discard, l, nullSession{}, lim, nil)
	b.ReportAllocs()
	for b.Loop() {
		for _, side := range []struct {
			r       *reader
			bytes   []byte
			message func(byte, int) error
		}{
			{front.in, query, func(t byte, n int) error { return front.message(context.Background(), t, n) }},
			{back.in, reply, back.message},
		} {
			side.r.beforeRead()
			side.r.r, side.r.w = 0, copy(side.r.buf, side.bytes)
			for side.r.r < side.r.w {
				typ, size, err := side.r.header()
				if err == nil {
					err = side.message(typ, size)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

// BenchmarkQuery is one simple query at a time over loopback TCP, between a
// client and an upstream in the same process. "direct" has no relay: the
// difference is what the relay costs.
func BenchmarkQuery(b *testing.B) {
	query := appendMessage(nil, msgQuery, []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 12345;\x00"))
	reply := selectAnswer()
	for _, direct := range []bool{true, false} {
		b.Run(map[bool]string{true: "direct", false: "relay"}[direct], func(b *testing.B) {
			var client, upstream net.Conn
			if direct {
				client, upstream = tcpPair(b)
			} else {
				client, upstream = relayBetween(b, func() (net.Conn, net.Conn) { return tcpPair(b) })
			}
			go answer(upstream, reply)
			buf := make([]byte, len(reply))
			b.ReportAllocs()
			began := cpuTime()
			for b.Loop() {
				if _, err := client.Write(query); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N)/1000, "cpu-µs/op")
		})
	}
}

// BenchmarkRows is a large result on its way through, in bytes.
func BenchmarkRows(b *testing.B) {
	for _, size := range []int{50, 1000} {
		b.Run(fmt.Sprintf("%d-byte rows", size), func(b *testing.B) {
			client, upstream := relayBetween(b, func() (net.Conn, net.Conn) { return tcpPair(b) })
			var rows []byte
			row := &pgproto3.DataRow{Values: [][]byte{make([]byte, size)}}
			for len(rows) < 1<<20 {
				rows, _ = row.Encode(rows)
			}
			fields, _ := (&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x")}}}).Encode(nil)
			client.Write(appendMessage(nil, msgQuery, []byte("SELECT\x00")))
			io.ReadFull(upstream, make([]byte, 12))
			upstream.Write(fields)
			io.ReadFull(client, make([]byte, len(fields)))
			go func() {
				for {
					if _, err := upstream.Write(rows); err != nil {
						return
					}
				}
			}()
			buf := make([]byte, len(rows))
			b.SetBytes(int64(len(rows)))
			began := cpuTime()
			for b.Loop() {
				if _, err := io.ReadFull(client, buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N)/float64(len(rows)>>20)/1e6, "cpu-ms/MiB")
		})
	}
}

// BenchmarkPostgres is pgx and a real server, with and without the relay.
func BenchmarkPostgres(b *testing.B) {
	p := newProxy(b, func(p *proxy) { p.wrap = func(*testSession) Session { return nullSession{} } })
	direct := directClient(b)
	through := p.raw()
	for name, c := range map[string]*rawClient{"direct": direct, "relay": through} {
		for kind, send := range map[string][]pgproto3.FrontendMessage{
			"simple":   {q("SELECT name FROM people WHERE id = 1")},
			"extended": {parse("", "SELECT name FROM people WHERE id = $1"), bind("", "", "1"), describeP(""), execute("", 0), sync_},
			"prepared": {bind("", "s", "1"), describeP(""), execute("", 0), sync_},
		} {
			b.Run(kind+"/"+name, func(b *testing.B) {
				c.conn.SetDeadline(time.Now().Add(time.Minute))
				c.send(closeS("s"), parse("s", "SELECT name FROM people WHERE id = $1"), sync_)
				c.read()
				began := cpuTime()
				for b.Loop() {
					c.send(send...)
					for {
						m, err := c.fe.Receive()
						if err != nil {
							b.Fatal(err)
						}
						if _, ok := m.(*pgproto3.ReadyForQuery); ok {
							break
						}
					}
				}
				b.ReportMetric(float64(cpuTime()-began)/float64(b.N)/1000, "cpu-µs/op")
			})
		}
	}
}

package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"chaperone.dev/chaperone/pkg/event"
)

func frame(typ byte, body string) []byte { return appendMessage(nil, typ, []byte(body)) }

func header(typ byte, length uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{typ}, length)
}

func TestMalformedMessages(t *testing.T) {
	shared := database(t)
	for _, tt := range []struct {
		name string
		sent []byte
		want string
	}{
		{"query without end", frame('Q', "SELECT 1"), "FATAL:08P01"},
		{"query with a zero in it", frame('Q', "SELECT 1\x00; DROP TABLE people\x00"), "FATAL:08P01"},
		{"parse without types", frame('P', "\x00SELECT 1\x00"), "FATAL:08P01"},
		{"parse with too few types", frame('P', "\x00SELECT 1\x00\x00\x02\x00\x00\x00\x17"), "FATAL:08P01"},
		{"bind that ends early", frame('B', "\x00\x00\x00\x00\x00\x01\x00\x00\x00\x09x"), "FATAL:08P01"},
		{"bind with a negative length", frame('B', "\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00"), "FATAL:08P01"},
		{"bind with formats that don't match", frame('B', "\x00\x00\x00\x02\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\x00\x00"), "FATAL:08P01"},
		{"bind with bytes behind", frame('B', "\x00\x00\x00\x00\x00\x00\x00\x00x"), "FATAL:08P01"},
		{"describe of neither", frame('D', "X\x00"), "FATAL:08P01"},
		{"close without a name", frame('C', "S"), "FATAL:08P01"},
		{"execute without a limit", frame('E', "\x00"), "FATAL:08P01"},
		{"sync with a body", frame('S', "x"), "FATAL:08P01"},
		{"flush with a body", frame('H', "x"), "FATAL:08P01"},
		{"copy end with a body", frame('c', "x"), "FATAL:08P01"},
		{"copy fail without end", frame('f', "x"), "FATAL:08P01"},
		{"length below its own size", header('Q', 3), "FATAL:08P01"},
		{"length that is negative", header('Q', 0xffffffff), "FATAL:08P01"},
		{"length beyond the limit", header('Q', 1<<30), "FATAL:54000"},
		{"copy data beyond the limit", header('d', 1<<30), "FATAL:54000"},
		{"a long name", header('E', 20000), "FATAL:54000"},
		{"function call that ends early", frame('F', "\x00\x00\x03\x67\x00\x00\x00\x01\x00\x00\x00\x05ann"), "FATAL:08P01"},
		{"function call with formats that don't match", frame('F', "\x00\x00\x03\x67\x00\x02\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\x00\x00"), "FATAL:08P01"},
		{"function call without a result format", frame('F', "\x00\x00\x03\x67\x00\x00\x00\x00"), "FATAL:08P01"},
		{"function call for an unknown format", frame('F', "\x00\x00\x03\x67\x00\x00\x00\x00\x00\x02"), "FATAL:08P01"},
		{"function call in an unknown format", frame('F', "\x00\x00\x03\x67\x00\x01\x00\x02\x00\x01\xff\xff\xff\xff\x00\x00"), "FATAL:08P01"},
		{"function call with bytes behind", frame('F', "\x00\x00\x03\x67\x00\x00\x00\x00\x00\x00x"), "FATAL:08P01"},
		{"password", frame('p', "x\x00"), "FATAL:08P01"},
		{"a server's message", frame('Z', "I"), "FATAL:08P01"},
		{"zero", frame(0, ""), "FATAL:08P01"},
		{"a second startup", startupBytes(3<<16, "user", "u"), "FATAL:08P01"},
		{"an SSLRequest", packet(codeSSLRequest), "FATAL:08P01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, func(p *proxy) { p.database = shared })
			c := p.raw()
			c.write(tt.sent)
			c.want(tt.name, tt.want+" end")
			if r := p.result(); r.Reason != event.ReasonProtocol && r.Reason != event.ReasonLimit {
				t.Errorf("ended with %+v", r)
			}
			if begun := p.only().begun(); len(begun) != 0 {
				t.Errorf("begun: %q", begun)
			}
		})
	}
}

func TestGiantLengthTakesNoMemory(t *testing.T) {
	p := newProxy(t, nil)
	c := p.raw()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.write(append(header('Q', 60<<20), "SELECT"...))
	c.write(make([]byte, 1000))
	c.conn.Close()
	p.result()
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated for a length field", grown)
	}
}

func TestLargeValues(t *testing.T) {
	const size = 10 << 20
	for _, blind := range []bool{false, true} {
		t.Run(fmt.Sprintf("blind=%v", blind), func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, func(p *proxy) { p.session = func() *testSession { return &testSession{blind: blind} } })
			conn := p.pgx("")
			value := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			var back []byte
			if err := conn.QueryRow(testContext(t), "SELECT $1::bytea", value).Scan(&back); err != nil || !bytes.Equal(back, value) {
				t.Errorf("%d bytes came back, %v", len(back), err)
			}
			var n int
			if err := conn.QueryRow(testContext(t), "SELECT length('"+string(value)+"')", pgx.QueryExecModeSimpleProtocol).Scan(&n); err != nil || n != size {
				t.Errorf("length %d, %v", n, err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	p := newProxy(t, func(p *proxy) {
		p.relay = RelayOptions{MaxMessage: 100 << 10, MaxStatements: 3, MaxPortals: 2, MaxOutstanding: 4}
	})
	c := p.raw()

	c.send(parse("a", "SELECT 1"), parse("b", "SELECT 1"), parse("c", "SELECT 1"), sync_)
	c.want("three statements", "1 1 1 Z:I")
	c.send(parse("d", "SELECT 1"), sync_)
	c.want("a fourth", "E:54000 Z:I")
	c.send(closeS("a"), closeS("b"), parse("d", "SELECT $1::text"), sync_)
	c.want("in place of another", "3 3 1 Z:I")

	c.send(bind("p", "c"), bind("q", "c"), bind("r", "c"), sync_)
	c.want("a third portal", "2 2 E:54000 Z:I")
	big := strings.Repeat("x", 60<<10)
	c.send(bind("p", "d", big), bind("q", "d", big), sync_)
	c.want("large parameters", "2 E:54000 Z:I")
	c.send(bind("", "d", big), execute("", 0), bind("", "d", big), execute("", 0), sync_)
	c.want("one after the other", "2 D:(61440) C:SELECT 1 2 D:(61440) C:SELECT 1 Z:I")

	// More messages than may be outstanding, and no Sync that would make the
	// server answer: it has to be asked to.
	var many []pgproto3.FrontendMessage
	want := ""
	for range 50 {
		many = append(many, bind("", "c"), execute("", 0))
		want += "2 D:1 C:SELECT 1 "
	}
	c.send(append(many, sync_)...)
	c.want("many messages", want+"Z:I")

	c.send(q("SELECT repeat('x', 200000)"))
	c.want("a row beyond the limit", "T1 E:54000 Z:I")
	c.send(q("SELECT 1"))
	c.want("afterwards", "T1 D:1 C:SELECT 1 Z:I")
	c.send(q("SELECT '" + strings.Repeat("x", 200000) + "'"))
	c.want("a query beyond the limit", "FATAL:54000 end")
}

// A client that doesn't read makes the server wait, not the proxy grow.
func TestSlowReader(t *testing.T) {
	p := newProxy(t, func(p *proxy) { p.session = func() *testSession { return &testSession{blind: true} } })
	c := p.raw()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c.send(q("SELECT repeat('x', 1000) FROM generate_series(1, 300000)"))
	eventually(t, "the server waits", func() bool {
		return column(t, p.database, "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'") == "1"
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	rows := 0
	for {
		m, err := c.fe.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := m.(*pgproto3.DataRow); ok {
			rows++
		}
		if _, ok := m.(*pgproto3.ReadyForQuery); ok {
			break
		}
	}
	if rows != 300000 {
		t.Errorf("%d rows", rows)
	}
}

type panicSession struct{ testSession }

func (*panicSession) Begin(context.Context, Prepared, Params) (Command, error) {
	panic("a fault in the session")
}

func TestPanicEndsOneSession(t *testing.T) {
	p := newProxy(t, nil)
	other := p.raw()
	p.wrap = func(s *testSession) Session { return &panicSession{} }
	c := p.raw()
	c.send(q("SELECT 1"))
	c.want("the session with the fault", "FATAL:XX000 end")
	if r := p.result(); r.Reason != event.ReasonInternal || !strings.Contains(r.Err.(*Refusal).Err.Error(), "a fault in the session") {
		t.Errorf("ended with %+v", r)
	}
	other.send(q("SELECT 1"))
	other.want("another session", "T1 D:1 C:SELECT 1 Z:I")
}

func TestSettingsThatHideQueries(t *testing.T) {
	p := newProxy(t, nil)
	c := p.raw()
	c.send(q("SET client_encoding TO SJIS"))
	c.want("SJIS", "C:SET FATAL:0A000 end")
	c = p.raw()
	c.send(q("SET standard_conforming_strings TO off"))
	c.want("strings", "C:SET FATAL:0A000 end")
	c = p.dial()
	c.startup(pgproto3.ProtocolVersion30, map[string]string{"user": "u", "options": "-c standard_conforming_strings=off"})
	if got := c.read(); got != "FATAL:0A000 end" {
		t.Errorf("strings at the start: %s", got)
	}
	c = p.raw()
	c.send(q("SET client_encoding TO LATIN1"))
	c.want("LATIN1", "C:SET Z:I")
}

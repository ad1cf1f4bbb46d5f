package postgres

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// script is a connection that reads what it was given and swallows what is
// written to it.
type script struct {
	io.Reader
	written bytes.Buffer
}

func (s *script) Write(p []byte) (int, error)    { return s.written.Write(p) }
func (*script) Close() error                     { return nil }
func (*script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

func FuzzStartup(f *testing.F) {
	f.Add(startupBytes(3<<16, "user", "u", "options", `-c a=b\ c --d=e`))
	f.Add(append(packet(codeGSSENCRequest), append(packet(codeSSLRequest), startupBytes(3<<16|9, "user", "u", "_pq_.x", "")...)...))
	f.Add(packet(codeCancelRequest, 0, 0, 0, 1, 0, 0, 0, 2))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn := &script{Reader: bytes.NewReader(sent)}
		c, err := Accept(context.Background(), conn, AcceptOptions{})
		if err != nil {
			var r *Refusal
			if !errors.As(err, &r) && !errors.Is(err, ErrSilent) {
				t.Fatalf("%T %v", err, err)
			}
			if r != nil && len(r.SQLState) != 5 {
				t.Fatalf("refused with %#v", r)
			}
			return
		}
		if _, cancel := c.CancelKey(); cancel {
			return
		}
		s := c.Startup()
		if s.User == "" || s.Database == "" {
			t.Fatalf("accepted %+v", s)
		}
		for name, value := range s.Params {
			if name == "user" || name == "replication" || bytes.IndexByte([]byte(name+value), 0) >= 0 {
				t.Fatalf("parameter %q = %q", name, value)
			}
		}
		s.Settings()
	})
}

// FuzzFrontend sends what a client may send. All that goes upstream must be
// messages that pgproto3 reads too, and nothing that wasn't begun.
func FuzzFrontend(f *testing.F) {
	add := func(messages ...pgproto3.FrontendMessage) {
		var all []byte
		for _, m := range messages {
			all, _ = m.Encode(all)
		}
		f.Add(all)
	}
	add(q("SELECT 1"), q("forbidden"), q("unreadable"), &pgproto3.Terminate{})
	add(parse("s", "SELECT $1"), bind("p", "s", "x"), describeS("s"), describeP("p"), execute("p", 1), closeS("s"), flush, sync_)
	add(parse("s", "forbidden"), bind("p", "s", "x"), execute("p", 1), copyData("x"), copyDone, &pgproto3.CopyFail{Message: "x"}, sync_)
	add(call(oidTrim, 0, "x"), call(oidLower, 1, "\x00"), call(1, 0), sync_)
	f.Add(header('Q', 1<<31))
	f.Fuzz(func(t *testing.T, sent []byte) {
		var up bytes.Buffer
		l := newLedger(1 << 20) // nobody answers, so nothing may wait
		s := &testSession{}
		lim := limits{message: 1 << 20, statements: 100, portals: 100, outstanding: 1 << 20}
		front := newFrontend(bytes.NewReader(sent), &up, l, s, lim)
		// What would wait for an answer ends instead.
		l.ended = true
		if err := front.run(context.Background()); err == nil {
			t.Fatal("no error at the end")
		}
		backend := pgproto3.NewBackend(&up, io.Discard)
		begun := s.begun()
		for {
			m, err := backend.Receive()
			if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatalf("sent upstream what can't be read: %v", err)
			}
			if query, ok := m.(*pgproto3.Query); ok && query.String+"\x00" != refusedText {
				for len(begun) > 0 && begun[0] != query.String {
					begun = begun[1:]
				}
				if len(begun) == 0 {
					t.Fatalf("%q went upstream and wasn't begun", query.String)
				}
			}
		}
	})
}

// FuzzBackend answers requests with anything. Nothing may reach the client
// that isn't framed, and no row that wasn't inspected.
func FuzzBackend(f *testing.F) {
	add := func(messages ...pgproto3.BackendMessage) {
		var all []byte
		for _, m := range messages {
			all, _ = m.Encode(all)
		}
		f.Add(all)
	}
	fields := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("ssn")}}}
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("clear")}}
	add(fields, row, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.ReadyForQuery{TxStatus: 'I'},
		&pgproto3.ParseComplete{}, &pgproto3.ParameterDescription{ParameterOIDs: []uint32{23}}, fields,
		&pgproto3.BindComplete{}, row, &pgproto3.PortalSuspended{}, &pgproto3.CloseComplete{}, &pgproto3.ReadyForQuery{TxStatus: 'T'},
		&pgproto3.CopyOutResponse{}, &pgproto3.CopyData{Data: []byte("1-2")}, &pgproto3.CopyDone{})
	add(&pgproto3.NoticeResponse{Message: "topsecret"}, &pgproto3.ErrorResponse{SeverityUnlocalized: "ERROR", Message: "topsecret"},
		&pgproto3.ReadyForQuery{TxStatus: 'I'}, &pgproto3.ErrorResponse{SeverityUnlocalized: "ERROR", Code: "42P01"},
		&pgproto3.ReadyForQuery{TxStatus: 'E'}, &pgproto3.NotificationResponse{Channel: "c", Payload: "topsecret"})
	done := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	add(done, &pgproto3.ParseComplete{}, &pgproto3.ParameterDescription{}, &pgproto3.NoData{}, &pgproto3.BindComplete{}, &pgproto3.CommandComplete{},
		&pgproto3.CloseComplete{}, done, done, &pgproto3.FunctionCallResponse{Result: []byte("clear")}, done)
	add(row, &pgproto3.ParameterStatus{Name: "client_encoding", Value: "SJIS"})
	f.Fuzz(func(t *testing.T, answers []byte) {
		l := newLedger(100)
		s := &testSession{}
		prepared, _ := s.Prepare(context.Background(), "COPY x TO STDOUT; COPY y FROM STDIN")
		command := func() Command { c, _ := s.Begin(context.Background(), prepared, Params{}); return c }
		st := &statement{prepared: prepared}
		for _, r := range []request{
			{kind: kindQuery, prepared: prepared, command: command(), copyIn: true},
			{kind: kindParse, name: "s", statement: st}, {kind: kindLearn, statement: st},
			{kind: kindBind, name: "p", portal: &portal{statement: st}},
			{kind: kindExecute, prepared: prepared, command: command(), portal: &portal{statement: st, results: []byte{0, 1}}},
			{kind: kindCloseStatement, name: "s"}, {kind: kindSync},
			{kind: kindQuery, prepared: prepared, command: command(), copyIn: true},
			{kind: kindFunctionCall, prepared: prepared, command: command(), result: []Field{{Name: "ssn"}}},
			{kind: kindQuery, refusal: &Refusal{SQLState: "42501", Message: "no"}},
		} {
			l.push(r)
		}
		var out bytes.Buffer
		back := newBackend(bytes.NewReader(answers), &out, l, s, limits{message: 1 << 20}, func() {})
		if err := back.run(); err == nil {
			t.Fatal("no error at the end")
		}
		for _, c := range l.drain() {
			c.End(Outcome{Unfinished: true})
		}
		if got := len(s.ended()); got != 4 {
			t.Fatalf("%d of 4 commands ended", got)
		}
		frames := newReader(&out, func() error { return nil })
		for {
			typ, size, err := frames.header()
			if err != nil {
				if !errors.Is(err, io.EOF) && !back.out.middle {
					t.Fatalf("the client can't read it: %v", err)
				}
				return
			}
			frame, err := frames.frame(size)
			if err != nil {
				if !back.out.middle {
					t.Fatal(err)
				}
				return
			}
			if typ == msgErrorResponse || typ == msgNoticeResponse {
				if e, _ := readErrorResponse(frame); strings.Contains(e.message, "topsecret") {
					t.Fatalf("%q reached the client", frame)
				}
			}
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("Z\x00\x00\x00\x05I"), uint8(3), true)
	f.Add(append(frame('D', string(make([]byte, 100000))), frame('C', "x")...), uint8(200), false)
	f.Fuzz(runStream)
}

func runStream(t *testing.T, sent []byte, piece uint8, made bool) {
	// However it is cut and by whatever way it goes, what comes out is
	// what went in.
	var out bytes.Buffer
	w := &writer{dst: &out}
	r := newReader(&pieces{bytes.NewReader(sent), int(piece)%50000*300 + 1}, w.flush)
	taken := 0
	for i := 0; ; i++ {
		_, size, err := r.header()
		if err != nil || size > len(sent)-taken {
			break
		}
		switch {
		case made && i%3 == 0:
			frame, err := r.frame(size)
			if err != nil {
				t.Fatal(err)
			}
			room, err := w.room()
			if err != nil {
				t.Fatal(err)
			}
			w.made(append(room, frame...))
		case i%3 == 1:
			if err := w.stream(r, size); err != nil {
				t.Fatal(err)
			}
		default:
			frame, err := r.frame(size)
			if err != nil {
				t.Fatal(err)
			}
			w.pass(frame)
		}
		taken += size
	}
	w.flush()
	if !bytes.Equal(out.Bytes(), sent[:taken]) {
		t.Fatalf("%d bytes went in, %d came out", taken, out.Len())
	}
}

type pieces struct {
	r io.Reader
	n int
}

func (p *pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }

package postgres

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"chaperone.dev/chaperone/pkg/event"
)

// A server that doesn't answer what it was asked ends the session before
// anything of the answer is shown: what it means can't be told any more.
func TestUnexpectedAnswers(t *testing.T) {
	fields := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x")}}}
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("clear")}}
	st := &statement{fields: []Field{{Name: "x"}}, described: true}
	query := func(c Command, p Prepared) request { return request{kind: kindQuery, command: c, prepared: p} }
	refused := func(Command, Prepared) request {
		return request{kind: kindQuery, refusal: &Refusal{SQLState: "42501"}}
	}
	called := func(c Command, p Prepared) request {
		return request{kind: kindFunctionCall, command: c, prepared: p, result: []Field{{Name: "x"}}}
	}
	bound := func(Command, Prepared) request { return request{kind: kindBind} }
	learned := func(Command, Prepared) request { return request{kind: kindLearn, statement: st} }
	executed := func(c Command, p Prepared) request {
		return request{kind: kindExecute, command: c, prepared: p, portal: &portal{statement: st}}
	}
	for _, tt := range []struct {
		name    string
		request func(Command, Prepared) request
		answer  []byte
	}{
		{"rows without a description", query, encode(row)},
		{"rows to a Bind", bound, encode(row)},
		{"rows to a refused query", refused, encode(row)},
		{"a result of a refused query", refused, encode(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})},
		{"a description of a refused query", refused, encode(fields)},
		{"a refused query that didn't fail", refused, encode(&pgproto3.ReadyForQuery{TxStatus: 'I'})},
		{"COPY data of a SELECT", query, encode(&pgproto3.CopyData{Data: []byte("clear")})},
		{"a SELECT that asks for data", query, encode(&pgproto3.CopyInResponse{})},
		{"a SELECT that copies", query, encode(&pgproto3.CopyOutResponse{})},
		{"replication", query, encode(&pgproto3.CopyBothResponse{})},
		{"the end of no COPY", query, encode(&pgproto3.CopyDone{})},
		{"another request's answer", query, encode(&pgproto3.BindComplete{})},
		{"a description within an Execute", executed, encode(fields)},
		{"a ReadyForQuery in the midst", executed, encode(&pgproto3.ReadyForQuery{TxStatus: 'I'})},
		{"an end of no statement", learned, encode(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})},
		{"parameters of nothing", executed, encode(&pgproto3.ParameterDescription{})},
		{"authentication", query, encode(&pgproto3.AuthenticationOk{})},
		{"another key", query, encode(&pgproto3.BackendKeyData{SecretKey: []byte("1234")})},
		{"the answer of a function call", query, encode(&pgproto3.FunctionCallResponse{})},
		{"two answers of a function call", called, append(frame('V', "\x00\x00\x00\x05clear"), frame('V', "\xff\xff\xff\xff")...)},
		{"a row of a function call", called, encode(row)},
		{"a malformed answer of a function call", called, frame('V', "\x00\x00\x00\x09clear")},
		{"an unknown type", query, frame('?', "")},
		{"a wrong length", query, header('D', 1)},
		{"a giant message", query, header('T', 1<<30)},
		{"a malformed description", query, frame('T', "\xff\xff")},
		{"a malformed error", query, frame('E', "Mclear")},
		{"a malformed notice", query, frame('N', "Mclear")},
		{"a malformed notification", query, frame('A', "clear")},
		{"a malformed parameter", query, frame('S', "clear")},
		{"a malformed tag", query, frame('C', "clear")},
		{"an unknown transaction status", query, frame('Z', "clear")},
		{"malformed parameter types", learned, frame('t', "clear")},
		{"a malformed learned description", learned, frame('T', "clear")},
		{"something that nobody asked for", nil, encode(&pgproto3.ParseComplete{})},
		{"a row that nobody asked for", nil, encode(row)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(10)
			s := &testSession{}
			if tt.request != nil {
				p, _ := s.Prepare(context.Background(), "SELECT 1")
				c, _ := s.Begin(context.Background(), p, Params{})
				l.push(tt.request(c, p))
			}
			var out bytes.Buffer
			back := newBackend(bytes.NewReader(tt.answer), &out, l, s, limits{message: 1 << 20}, func() {})
			err := back.run()
			var r *Refusal
			if !errors.As(err, &r) || r.Reason != event.ReasonInternal && r.Reason != event.ReasonLimit {
				t.Errorf("ended with %v", err)
			}
			if out.Len() > 0 {
				t.Errorf("the client was sent %q", out.Bytes())
			}
		})
	}
}

func encode(messages ...pgproto3.BackendMessage) []byte {
	var all []byte
	for _, m := range messages {
		all, _ = m.Encode(all)
	}
	return all
}

func TestNoticesOfTheStart(t *testing.T) {
	p := newProxy(t, nil)
	c := p.dial()
	c.startup(pgproto3.ProtocolVersion30, map[string]string{"user": "u", "options": "-c client_min_messages=debug5"})
	if got := c.read(); !strings.Contains(got, "N:") || !strings.HasSuffix(got, "K Z:I") {
		t.Errorf("greeted with %s", got)
	}
}

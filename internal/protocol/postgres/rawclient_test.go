package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// rawClient speaks the protocol message by message.
type rawClient struct {
	t    testing.TB
	conn net.Conn
	fe   *pgproto3.Frontend
	key  pgproto3.BackendKeyData
}

func (p *proxy) dial() *rawClient {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &rawClient{t: p.t, conn: conn, fe: pgproto3.NewFrontend(conn, conn)}
}

// raw is a client that was let in.
func (p *proxy) raw() *rawClient {
	p.t.Helper()
	c := p.dial()
	c.startup(pgproto3.ProtocolVersion30, map[string]string{"user": "planner"})
	if got := c.read(); !strings.HasPrefix(got, "R") || !strings.HasSuffix(got, "K Z:I") {
		p.t.Fatalf("greeted with %s", got)
	}
	return c
}

func (c *rawClient) startup(version uint32, params map[string]string) {
	c.send(&pgproto3.StartupMessage{ProtocolVersion: version, Parameters: params})
}

func (c *rawClient) send(messages ...pgproto3.FrontendMessage) {
	c.t.Helper()
	for _, m := range messages {
		c.fe.Send(m)
	}
	if err := c.fe.Flush(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawClient) write(p []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(p); err != nil {
		c.t.Fatal(err)
	}
}

// read reads up to ReadyForQuery, CopyInResponse or the end of the connection,
// and puts down what came: "1 2 T D:ann|masked C:SELECT 1 Z:I". Parameters and
// repeated letters aside.
func (c *rawClient) read() string {
	c.t.Helper()
	var words []string
	for {
		m, err := c.fe.Receive()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				words = append(words, err.Error())
			}
			c.conn.Close()
			return strings.Join(append(words, "end"), " ")
		}
		word := describe(m)
		if word != "S" {
			words = append(words, word)
		}
		if k, ok := m.(*pgproto3.BackendKeyData); ok {
			c.key = pgproto3.BackendKeyData{ProcessID: k.ProcessID, SecretKey: append([]byte(nil), k.SecretKey...)}
		}
		if word[0] == 'Z' || word[0] == 'G' {
			return strings.Join(words, " ")
		}
	}
}

func (c *rawClient) want(what, want string) {
	c.t.Helper()
	if got := c.read(); got != want {
		c.t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func describe(m pgproto3.BackendMessage) string {
	switch m := m.(type) {
	case *pgproto3.AuthenticationOk:
		return "R"
	case *pgproto3.ParameterStatus:
		return "S"
	case *pgproto3.BackendKeyData:
		return "K"
	case *pgproto3.ReadyForQuery:
		return "Z:" + string(m.TxStatus)
	case *pgproto3.ParseComplete:
		return "1"
	case *pgproto3.BindComplete:
		return "2"
	case *pgproto3.CloseComplete:
		return "3"
	case *pgproto3.ParameterDescription:
		return fmt.Sprintf("t%d", len(m.ParameterOIDs))
	case *pgproto3.RowDescription:
		return fmt.Sprintf("T%d", len(m.Fields))
	case *pgproto3.NoData:
		return "n"
	case *pgproto3.DataRow:
		var values []string
		for _, v := range m.Values {
			if len(v) > 40 {
				v = fmt.Appendf(nil, "(%d)", len(v))
			}
			values = append(values, string(v))
		}
		return "D:" + strings.Join(values, "|")
	case *pgproto3.CommandComplete:
		return "C:" + string(m.CommandTag)
	case *pgproto3.EmptyQueryResponse:
		return "I"
	case *pgproto3.PortalSuspended:
		return "s"
	case *pgproto3.ErrorResponse:
		if m.Severity == "FATAL" {
			return "FATAL:" + m.Code
		}
		return "E:" + m.Code
	case *pgproto3.NoticeResponse:
		return "N:" + m.Message
	case *pgproto3.CopyInResponse:
		return "G"
	case *pgproto3.CopyOutResponse:
		return "H"
	case *pgproto3.CopyData:
		return "d:" + strings.TrimSpace(string(m.Data))
	case *pgproto3.CopyDone:
		return "c"
	case *pgproto3.NotificationResponse:
		return fmt.Sprintf("A:%d", m.PID)
	case *pgproto3.FunctionCallResponse:
		if m.Result == nil {
			return "V"
		}
		return "V:" + string(m.Result)
	case *pgproto3.NegotiateProtocolVersion:
		return fmt.Sprintf("v:%d.%d:%s", m.NewestMinorProtocol>>16, m.NewestMinorProtocol&0xffff, strings.Join(m.UnrecognizedOptions, ","))
	default:
		return fmt.Sprintf("%T", m)
	}
}

// Short names for messages.

func q(sql string) *pgproto3.Query { return &pgproto3.Query{String: sql} }

func parse(name, sql string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: sql} }

func bind(portal, statement string, params ...string) *pgproto3.Bind {
	b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement}
	for _, p := range params {
		b.Parameters = append(b.Parameters, []byte(p))
	}
	return b
}

func execute(portal string, rows uint32) *pgproto3.Execute {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

// call is a function call with arguments in text format. A "\x00" is NULL.
func call(oid uint32, result uint16, arguments ...string) *pgproto3.FunctionCall {
	c := &pgproto3.FunctionCall{Function: oid, ResultFormatCode: result}
	for _, a := range arguments {
		value := []byte(a)
		if a == "\x00" {
			value = nil
		}
		c.Arguments = append(c.Arguments, value)
	}
	return c
}

func describeS(name string) *pgproto3.Describe {
	return &pgproto3.Describe{ObjectType: 'S', Name: name}
}

func describeP(name string) *pgproto3.Describe {
	return &pgproto3.Describe{ObjectType: 'P', Name: name}
}

func closeS(name string) *pgproto3.Close { return &pgproto3.Close{ObjectType: 'S', Name: name} }

func copyData(s string) *pgproto3.CopyData { return &pgproto3.CopyData{Data: []byte(s)} }

var (
	sync_    = &pgproto3.Sync{}
	flush    = &pgproto3.Flush{}
	copyDone = &pgproto3.CopyDone{}
)

// directClient speaks with the server itself.
func directClient(t testing.TB) *rawClient {
	t.Helper()
	pg := realServer(t)
	name := database(t)
	up, err := Connect(testContext(t), UpstreamOptions{
		Dial: dialer(pg.Addr()), User: "postgres", Password: pg.Password(), Database: name,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Close() })
	up.conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &rawClient{t: t, conn: up.conn, fe: pgproto3.NewFrontend(up.conn, up.conn)}
}

func dialer(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}

// column runs a query on the server itself; the values come comma-separated.
func column(t testing.TB, database, sql string) string {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, realServer(t).AdminDSN(database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(values, ",")
}

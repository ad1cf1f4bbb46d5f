package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/pkg/event"
)

// server is one real PostgreSQL for all tests of the package, with TLS on
// offer. Each test makes a database of its own.
var server struct {
	once sync.Once
	pg   *lab.Postgres
	ca   *lab.CA
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if server.pg != nil {
		server.pg.Stop(context.Background())
	}
	os.Exit(code)
}

func realServer(t testing.TB) *lab.Postgres {
	t.Helper()
	server.once.Do(func() {
		var pair *lab.KeyPair
		if server.ca, server.err = lab.NewCA(); server.err != nil {
			return
		}
		if pair, server.err = server.ca.Issue("orders.db.test", "127.0.0.1"); server.err != nil {
			return
		}
		server.pg, server.err = lab.StartPostgres(context.Background(), lab.PostgresOptions{
			TLS: pair, Config: map[string]string{"max_connections": "200"},
		})
	})
	if server.err != nil {
		t.Fatal(server.err)
	}
	return server.pg
}

// database makes a database with a table of secrets.
func database(t testing.TB) string {
	t.Helper()
	pg := realServer(t)
	ctx := testContext(t)
	name := "t_" + strings.ToLower(fmt.Sprintf("%x", time.Now().UnixNano()))
	if err := pg.Exec(ctx, "postgres", "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pg.Exec(context.Background(), "postgres", "DROP DATABASE "+name+" WITH (FORCE)")
	})
	err := pg.Exec(ctx, name,
		"CREATE TABLE people (id int PRIMARY KEY, name text, ssn text)",
		"INSERT INTO people VALUES (1, 'ann', '111-11-1111'), (2, 'bob', '222-22-2222'), (3, 'eve', NULL)",
	)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// proxy is Accept, Connect and Relay on a plain listener.
type proxy struct {
	t        testing.TB
	addr     string
	host     string
	port     string
	database string
	accept   AcceptOptions
	upstream UpstreamOptions
	relay    RelayOptions
	session  func() *testSession
	wrap     func(*testSession) Session // for new sessions; set it while none starts
	ctx      context.Context
	stop     context.CancelCauseFunc
	cancels  Cancels

	mu       sync.Mutex
	sessions []*testSession
	results  chan Result
	refusals chan error
	wg       sync.WaitGroup
}

func newProxy(t testing.TB, change func(*proxy)) *proxy {
	t.Helper()
	p := &proxy{t: t, results: make(chan Result, 100), refusals: make(chan error, 100)}
	p.session = func() *testSession { return &testSession{} }
	if change != nil {
		change(p)
	}
	if p.upstream.Dial == nil {
		if p.database == "" {
			p.database = database(t)
		}
		pg := realServer(t)
		p.upstream.Dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", pg.Addr())
		}
		if p.upstream.User == "" {
			p.upstream.User, p.upstream.Password = "postgres", pg.Password()
		}
		if p.upstream.Database == "" {
			p.upstream.Database = p.database
		}
	}
	p.relay.Cancels = &p.cancels
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	p.host, p.port, _ = net.SplitHostPort(p.addr)
	p.ctx, p.stop = context.WithCancelCause(context.Background())
	p.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.stop(&Refusal{Reason: event.ReasonShutdown, SQLState: "57P01", Message: "test over"})
		p.wg.Wait()
	})
	return p
}

func (p *proxy) serve(conn net.Conn) {
	client, err := Accept(p.ctx, conn, p.accept)
	if err != nil {
		p.refusals <- err
		return
	}
	if key, ok := client.CancelKey(); ok {
		if err := p.cancels.Cancel(p.ctx, key, p.relay.Owner); err != nil {
			p.refusals <- err
		}
		client.Close()
		return
	}
	o := p.upstream
	o.Params = client.Startup().Params
	up, err := Connect(p.ctx, o)
	if err != nil {
		var r *Refusal
		if !errors.As(err, &r) {
			panic(err)
		}
		client.Refuse(r)
		p.refusals <- err
		return
	}
	s := p.session()
	p.mu.Lock()
	p.sessions = append(p.sessions, s)
	p.mu.Unlock()
	var session Session = s
	if p.wrap != nil {
		session = p.wrap(s)
	}
	p.results <- Relay(p.ctx, client, up, session, p.relay)
}

// result waits for the end of a session.
func (p *proxy) result() Result {
	p.t.Helper()
	select {
	case r := <-p.results:
		return r
	case <-time.After(30 * time.Second):
		p.t.Fatal("the session didn't end")
		return Result{}
	}
}

func (p *proxy) refusal() error {
	p.t.Helper()
	select {
	case err := <-p.refusals:
		return err
	case <-time.After(30 * time.Second):
		p.t.Fatal("the connection wasn't refused")
		return nil
	}
}

func (p *proxy) only() *testSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sessions) != 1 {
		p.t.Fatalf("%d sessions", len(p.sessions))
	}
	return p.sessions[0]
}

// dsn is what a planner's client would use: another user, no password.
func (p *proxy) dsn(extra string) string {
	return fmt.Sprintf("host=%s port=%s user=planner dbname=whatever sslmode=disable %s", p.host, p.port, extra)
}

func (p *proxy) pgx(extra string) *pgx.Conn {
	p.t.Helper()
	ctx := testContext(p.t)
	conn, err := pgx.Connect(ctx, p.dsn(extra))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func certificate(t testing.TB, names ...string) *tls.Certificate {
	t.Helper()
	realServer(t)
	pair, err := server.ca.Issue(names...)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pair.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

// testSession denies what holds "forbidden", refuses to prepare what holds
// "unreadable", covers columns named ssn and the word "topsecret" in texts.
type testSession struct {
	mu     sync.Mutex
	log    []string  // texts that were begun, "DENY text" when denied
	ends   []Outcome // with the Tags copied
	params []string
	blind  bool     // rows aren't inspected
	refuse *Refusal // for the rows
}

type testPrepared struct {
	text   string
	copies []CopyDirection
}

func (p *testPrepared) Statements() int          { return len(p.copies) }
func (p *testPrepared) Copy(i int) CopyDirection { return p.copies[i] }

func (s *testSession) Prepare(_ context.Context, text string) (Prepared, error) {
	if i := strings.Index(text, "unreadable"); i >= 0 {
		return nil, &Refusal{Reason: event.ReasonDenied, SQLState: "42601", Message: "can't be read", Position: i + 1}
	}
	p := &testPrepared{text: text}
	for part := range strings.SplitSeq(text, ";") {
		part = strings.ToUpper(strings.TrimSpace(part))
		switch {
		case part == "":
			continue
		case strings.HasPrefix(part, "COPY") && strings.Contains(part, "FROM STDIN"):
			p.copies = append(p.copies, CopyIn)
		case strings.HasPrefix(part, "COPY") && strings.Contains(part, "TO STDOUT"):
			p.copies = append(p.copies, CopyOut)
		default:
			p.copies = append(p.copies, CopyNone)
		}
	}
	return p, nil
}

// OIDs of PostgreSQL's own functions of one text.
const (
	oidTrim    = 885
	oidLower   = 870  // denied
	oidReverse = 3062 // what it returns is covered
	oidASCII   = 1620
)

// Function knows those, and those of people that are not there.
func (s *testSession) Function(ctx context.Context, oid uint32, arguments int) (Function, error) {
	const text = 25
	f := Function{Result: Field{Name: "x", Type: text}, Types: []uint32{text}}
	called := "call of a function"
	switch oid {
	case oidLower:
		called = "forbidden " + called
	case oidReverse:
		f.Result.Name = "ssn"
	case oidTrim, oidASCII:
	default:
		return f, &Refusal{Reason: event.ReasonDenied, SQLState: "42883", Message: "no such function"}
	}
	var err error
	f.Prepared, err = s.Prepare(ctx, fmt.Sprintf("%s of %d", called, arguments))
	return f, err
}

func (s *testSession) Begin(ctx context.Context, p Prepared, params Params) (Command, error) {
	text := p.(*testPrepared).text
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Contains(text, "forbidden") {
		s.log = append(s.log, "DENY "+text)
		return nil, &Refusal{
			Reason: event.ReasonDenied, SQLState: "42501", Message: "not allowed here",
			Detail: "the rule says so", Hint: "ask", Position: strings.Index(text, "forbidden") + 1,
		}
	}
	s.log = append(s.log, text)
	for i, v := range params.Values {
		typ := uint32(0)
		if i < len(params.Types) {
			typ = params.Types[i]
		}
		s.params = append(s.params, fmt.Sprintf("%d:%s", typ, v))
	}
	return &testCommand{s: s}, nil
}

func (s *testSession) Text(_ Command, _ byte, text string) string {
	return strings.ReplaceAll(text, "topsecret", "*********")
}

func (s *testSession) Parameter(name, value string) error { return nil }

func (s *testSession) begun() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.log...)
}

func (s *testSession) ended() []Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Outcome(nil), s.ends...)
}

type testCommand struct {
	s      *testSession
	masked map[int]bool
	out    []byte
	done   bool
}

func (c *testCommand) Fields(_ int, fields []Field) (bool, error) {
	if c.s.refuse != nil {
		return false, c.s.refuse
	}
	c.masked = map[int]bool{}
	for i, f := range fields {
		if f.Name == "ssn" {
			c.masked[i] = true
		}
	}
	return !c.s.blind, nil
}

func (c *testCommand) Row(body []byte) ([]byte, error) {
	if len(c.masked) == 0 {
		return body, nil
	}
	b := readerOf(body)
	n := int(b.uint16())
	out := binary.BigEndian.AppendUint16(c.out[:0], uint16(n))
	for i := range n {
		size := b.uint32()
		value := b.take(max(int(int32(size)), 0))
		if b.bad {
			return nil, unexpected("malformed row")
		}
		if c.masked[i] && size != 0xffffffff {
			size, value = 6, []byte("masked")
		}
		out = append(binary.BigEndian.AppendUint32(out, size), value...)
	}
	c.out = out
	return out, nil
}

func readerOf(b []byte) *body { return &body{rest: b} }

func (c *testCommand) CopyOut(int, bool) (bool, error) { return true, nil }

func (c *testCommand) CopyData(body []byte) ([]byte, error) {
	if c.s.refuse != nil {
		return nil, c.s.refuse
	}
	if strings.Contains(string(body), "-") {
		return []byte("masked line\n"), nil
	}
	return body, nil
}

func (c *testCommand) End(o Outcome) {
	if c.done {
		panic("End called twice")
	}
	c.done = true
	o.Tags = append([]string(nil), o.Tags...)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.ends = append(c.s.ends, o)
}

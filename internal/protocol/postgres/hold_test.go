package postgres

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chaperone.dev/chaperone/pkg/event"
)

// holdingSession holds what contains "held" until answered.
type holdingSession struct {
	*testSession
	asked  chan struct{} // one for each wait that has begun
	answer chan error    // nil: approved
}

func (s *holdingSession) Begin(ctx context.Context, p Prepared, params Params) (Command, error) {
	if !strings.Contains(p.(*testPrepared).text, "held") {
		return s.testSession.Begin(ctx, p, params)
	}
	return nil, &Held{Wait: func(ctx context.Context, notify func(Notice)) (Command, error) {
		notify(Notice{Message: "waiting for dba", Hint: "be patient"})
		s.asked <- struct{}{}
		select {
		case err := <-s.answer:
			if err != nil {
				return nil, err
			}
			return s.testSession.Begin(ctx, p, params)
		case <-ctx.Done():
			var refusal *Refusal
			if errors.As(context.Cause(ctx), &refusal) {
				return nil, refusal
			}
			return nil, &Refusal{Reason: event.ReasonInternal, SQLState: "XX000", Message: "gone", Err: context.Cause(ctx)}
		}
	}}
}

func newHoldingProxy(t *testing.T) (*proxy, *holdingSession) {
	h := &holdingSession{asked: make(chan struct{}, 10), answer: make(chan error, 10)}
	p := newProxy(t, func(p *proxy) {
		p.wrap = func(s *testSession) Session {
			h.testSession = s
			return h
		}
	})
	return p, h
}

func TestAHeldCommandWaitsAndTheClientIsToldSo(t *testing.T) {
	no := &Refusal{Reason: event.ReasonApproval, SQLState: "42501", Message: "denied by ann"}
	for _, tt := range []struct {
		name   string
		mode   pgx.QueryExecMode
		answer error
	}{
		{"simple, approved", pgx.QueryExecModeSimpleProtocol, nil},
		{"extended, approved", pgx.QueryExecModeDescribeExec, nil},
		{"simple, denied", pgx.QueryExecModeSimpleProtocol, no},
		{"extended, denied", pgx.QueryExecModeDescribeExec, no},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, h := newHoldingProxy(t)
			config, err := pgx.ParseConfig(p.dsn(""))
			if err != nil {
				t.Fatal(err)
			}
			notices := make(chan *pgconn.Notice, 10)
			config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices <- n }
			conn, err := pgx.ConnectConfig(testContext(t), config)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(testContext(t))
			go func() {
				<-h.asked
				h.answer <- tt.answer
			}()
			var got string
			err = conn.QueryRow(testContext(t), "SELECT 'held' || $1::text", tt.mode, "!").Scan(&got)
			if tt.answer == nil && (err != nil || got != "held!") {
				t.Errorf("got %q, %v", got, err)
			}
			if tt.answer != nil && pgError(t, err).Message != "denied by ann" {
				t.Errorf("got %v", err)
			}
			if n := <-notices; n.Message != "waiting for dba" || n.Hint != "be patient" || n.Code != "01000" {
				t.Errorf("notice %+v", n)
			}
			if err := conn.Ping(testContext(t)); err != nil {
				t.Errorf("the session does not go on: %v", err)
			}
		})
	}
}

func TestWhatIsHeldInAPipelineComesAfterWhatWasSentBefore(t *testing.T) {
	p, h := newHoldingProxy(t)
	conn := p.pgx("")
	go func() {
		<-h.asked
		h.answer <- nil
	}()
	batch := &pgx.Batch{}
	batch.Queue("SELECT 1")
	batch.Queue("SELECT 'held'")
	batch.Queue("SELECT 3")
	if err := conn.SendBatch(testContext(t), batch).Close(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.only().begun(), "|"); got != "SELECT 1|SELECT 'held'|SELECT 3" {
		t.Errorf("ran %s", got)
	}
	// A command behind one that failed is skipped, and nobody is asked.
	batch = &pgx.Batch{}
	batch.Queue("SELECT 1/(1-1)")
	batch.Queue("SELECT 'held'")
	err := conn.SendBatch(testContext(t), batch).Close()
	if pgError(t, err).Code != "22012" {
		t.Errorf("got %v", err)
	}
	if len(h.asked) != 0 {
		t.Error("somebody was asked about a command that the server skips")
	}
}

func TestACancelRequestEndsTheWait(t *testing.T) {
	p, h := newHoldingProxy(t)
	conn := p.pgx("")
	go func() {
		<-h.asked
		if err := conn.PgConn().CancelRequest(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	_, err := conn.Exec(testContext(t), "SELECT 'held'")
	if e := pgError(t, err); e.Code != "57014" || e.Severity != "ERROR" {
		t.Errorf("got %v", err)
	}
	if err := conn.Ping(testContext(t)); err != nil {
		t.Errorf("the session does not go on: %v", err)
	}
}

func TestAClientThatLeavesIsNotWaitedFor(t *testing.T) {
	p, h := newHoldingProxy(t)
	conn := p.pgx("")
	go conn.Exec(context.Background(), "SELECT 'held'")
	<-h.asked
	// The library may send a cancel request as well: either ends the wait.
	conn.PgConn().Conn().(*net.TCPConn).Close()
	if r := p.result(); r.Reason != event.ReasonClientClosed {
		t.Errorf("ended with %+v", r)
	}
}

func TestAHeldSessionCanBeCut(t *testing.T) {
	p, h := newHoldingProxy(t)
	conn := p.pgx("")
	go func() {
		<-h.asked
		p.stop(&Refusal{Reason: event.ReasonLocked, SQLState: "57P01", Message: "locked by ann"})
	}()
	_, err := conn.Exec(testContext(t), "SELECT 'held'")
	if e := pgError(t, err); e.Message != "locked by ann" {
		t.Errorf("got %v", err)
	}
	if r := p.result(); r.Reason != event.ReasonLocked {
		t.Errorf("ended with %+v", r)
	}
}

func TestAClientIsHeldBeforeItIsLetIn(t *testing.T) {
	for _, leave := range []bool{false, true} {
		theirs, ours := tcpPair(t)
		c := &Client{conn: ours, socket: ours}
		held := make(chan error, 1)
		go c.Hold(context.Background(), func(ctx context.Context, notify func(Notice)) {
			notify(Notice{Message: "one"})
			notify(Notice{Message: "two"})
			if !leave {
				held <- nil
				return
			}
			select {
			case <-ctx.Done():
				held <- context.Cause(ctx)
			case <-time.After(30 * time.Second):
				held <- nil
			}
		})
		want := appendMessage(nil, msgAuthentication, make([]byte, 4))
		want = appendOwnNotice(appendOwnNotice(want, Notice{Message: "one"}), Notice{Message: "two"})
		got := make([]byte, len(want))
		theirs.SetReadDeadline(time.Now().Add(30 * time.Second))
		for n := 0; n < len(got); {
			m, err := theirs.Read(got[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if !bytes.Equal(got, want) {
			t.Errorf("the client was sent %q, want %q", got, want)
		}
		if leave {
			theirs.Close()
		}
		if err := <-held; leave != errors.Is(err, ErrClientGone) {
			t.Errorf("left %v: the wait ended with %v", leave, err)
		}
	}
}

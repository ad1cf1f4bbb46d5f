package masking

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// answerTimeout bounds the wait for one answer.
const answerTimeout = 20 * time.Second

// message is one that the server sent, as it came.
type message struct {
	kind byte
	body []byte
}

// wire is a connection that is past its start, and keeps all that it receives.
type wire struct {
	conn *tee
}

// tee keeps what is read from a connection.
type tee struct {
	net.Conn
	received bytes.Buffer
}

func (c *tee) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Write(p[:n])
	return n, err
}

// route is a way to a server.
type route struct {
	address, user, password string
	dial                    pgconn.DialFunc
	pool                    pool
}

// pool keeps connections that are as they were opened, one a database.
type pool struct {
	mu   sync.Mutex
	free map[string]*wire
}

func (p *pool) take(database string) *wire {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn := p.free[database]
	delete(p.free, database)
	return conn
}

func (p *pool) give(database string, conn *wire) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == nil {
		p.free = map[string]*wire{}
	}
	p.free[database] = conn
}

func (p *pool) close() {
	for _, conn := range p.free {
		conn.close()
	}
}

// connect opens a connection in clear, for its bytes to be read. It is the caller's to close.
func (r *route) connect(ctx context.Context, database string) (*wire, error) {
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=5432 dbname=%s user=%s sslmode=disable connect_timeout=20", r.address, database, r.user))
	if err != nil {
		return nil, err
	}
	config.Password = r.password
	config.RuntimeParams["application_name"] = "masking"
	w := &wire{}
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		dial := r.dial
		if dial == nil {
			dial = (&net.Dialer{}).DialContext
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		w.conn = &tee{Conn: conn}
		return w.conn, nil
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := conn.SyncConn(ctx); err != nil {
		return nil, err
	}
	_, err = conn.Hijack()
	return w, err
}

// close says goodbye, and waits until the other side has ended too.
func (w *wire) close() {
	w.conn.SetDeadline(time.Now().Add(answerTimeout))
	if bye, err := (&pgproto3.Terminate{}).Encode(nil); err == nil {
		w.conn.Write(bye)
		io.Copy(io.Discard, w.conn)
	}
	w.conn.Close()
}

// send sends messages, and returns what comes up to the last of as many
// ReadyForQuery as they ask for. COPY FROM STDIN is given data.
func (w *wire) send(data [][]byte, messages ...pgproto3.FrontendMessage) ([]message, error) {
	w.conn.SetDeadline(time.Now().Add(answerTimeout))
	var out []byte
	var err error
	ready := 0
	for _, m := range messages {
		if out, err = m.Encode(out); err != nil {
			return nil, err
		}
		switch m.(type) {
		case *pgproto3.Query, *pgproto3.Sync, *pgproto3.FunctionCall:
			ready++
		}
	}
	extended := messages[0]
	if _, err := w.conn.Write(out); err != nil {
		return nil, err
	}
	var answer []message
	for ready > 0 {
		m, err := w.read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return answer, nil // its last message says why
			}
			return answer, err
		}
		answer = append(answer, m)
		switch m.kind {
		case 'Z':
			ready--
		case 'G':
			if err := w.copyIn(data, extended); err != nil {
				return answer, err
			}
		}
	}
	return answer, nil
}

func (w *wire) read() (message, error) {
	var head [5]byte
	if _, err := io.ReadFull(w.conn, head[:]); err != nil {
		return message{}, err
	}
	size := int(binary.BigEndian.Uint32(head[1:]))
	if size < 4 || size > 64<<20 {
		return message{}, fmt.Errorf("a message %q of %d bytes", head[0], size)
	}
	m := message{head[0], make([]byte, size-4)}
	_, err := io.ReadFull(w.conn, m.body)
	return m, err
}

func (w *wire) copyIn(data [][]byte, first pgproto3.FrontendMessage) error {
	var out []byte
	var err error
	for _, d := range data {
		if out, err = (&pgproto3.CopyData{Data: d}).Encode(out); err != nil {
			return err
		}
	}
	if out, err = (&pgproto3.CopyDone{}).Encode(out); err != nil {
		return err
	}
	if _, simple := first.(*pgproto3.Query); !simple {
		// The Sync that went with Execute was ignored while data was expected.
		if out, err = (&pgproto3.Sync{}).Encode(out); err != nil {
			return err
		}
	}
	_, err = w.conn.Write(out)
	return err
}

// values are the columns of a DataRow; nil is NULL.
func values(m message) [][]byte {
	if m.kind != 'D' || len(m.body) < 2 {
		return nil
	}
	rest := m.body[2:]
	columns := make([][]byte, 0, 8)
	for len(rest) >= 4 {
		size := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if size < 0 {
			columns = append(columns, nil)
			continue
		}
		columns = append(columns, slices.Clip(rest[:size:size]))
		rest = rest[size:]
	}
	return columns
}

// field is one of an error or notice: C is its SQLSTATE, M its message.
func field(m message, which byte) string {
	for rest := m.body; len(rest) > 1; {
		end := bytes.IndexByte(rest, 0)
		if end < 1 {
			break
		}
		if rest[0] == which {
			return string(rest[1:end])
		}
		rest = rest[end+1:]
	}
	return ""
}

package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"chaperone.dev/chaperone/internal/lab"
)

// Each version of the protocol is spoken with each server, and a query can be
// cancelled in each pair.
func TestCancelKeysOfEachVersion(t *testing.T) {
	versions, err := lab.PostgresVersions()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		pg, err := lab.StartPostgres(testContext(t), lab.PostgresOptions{Version: version})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pg.Stop(context.Background()) })
		upstream := 4
		if version >= 18 {
			upstream = 32
		}
		for _, tt := range []struct {
			name    string
			version uint32
			dial    func(context.Context) (net.Conn, error)
			// How long the secrets are.
			client, upstream int
		}{
			{"a client of 3.0", pgproto3.ProtocolVersion30, dialer(pg.Addr()), 4, upstream},
			{"a client of 3.2", pgproto3.ProtocolVersion32, dialer(pg.Addr()), 32, upstream},
			{"a client that asks for more", pgproto3.ProtocolVersion32 + 7, dialer(pg.Addr()), 32, upstream},
			{"a pooler of 3.0 only", pgproto3.ProtocolVersion32, pooler(t, pg.Addr()), 32, 4},
		} {
			t.Run(fmt.Sprintf("%s at PostgreSQL %d", tt.name, version), func(t *testing.T) {
				p := newProxy(t, func(p *proxy) {
					p.upstream = UpstreamOptions{Dial: tt.dial, User: "postgres", Password: pg.Password(), Database: "postgres"}
				})
				up, err := Connect(testContext(t), p.upstream)
				if err != nil {
					t.Fatal(err)
				}
				defer up.Close()
				if len(up.secret) != tt.upstream {
					t.Errorf("the server's secret has %d bytes", len(up.secret))
				}
				c := p.dial()
				c.startup(tt.version, map[string]string{"user": "planner"})
				c.read()
				if len(c.key.SecretKey) != tt.client {
					t.Errorf("the client's secret has %d bytes", len(c.key.SecretKey))
				}
				c.send(q("SELECT pg_backend_pid()"), q("LISTEN l"), q("NOTIFY l"), q("SELECT pg_sleep(30)"))
				c.want("its process", fmt.Sprintf("T1 D:%d C:SELECT 1 Z:I", c.key.ProcessID))
				c.want("before", "C:LISTEN Z:I")
				c.want("its own notification", fmt.Sprintf("C:NOTIFY A:%d Z:I", c.key.ProcessID))
				eventually(t, "the query runs", func() bool {
					d := p.dial()
					d.send(&pgproto3.CancelRequest{ProcessID: c.key.ProcessID, SecretKey: c.key.SecretKey})
					d.read()
					c.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					defer c.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
					m, err := c.fe.Receive()
					_, failed := m.(*pgproto3.ErrorResponse)
					return err == nil && failed
				})
			})
		}
	}
}

// pooler is in front of a server, and refuses what isn't 3.0 as old releases of
// pgbouncer do.
func pooler(t *testing.T, addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		up, err := dialer(addr)(ctx)
		if err != nil {
			return nil, err
		}
		near, far := net.Pipe()
		t.Cleanup(func() { far.Close() })
		go func() {
			defer up.Close()
			defer far.Close()
			first := make([]byte, 4)
			if _, err := io.ReadFull(far, first); err != nil {
				return
			}
			first = append(first, make([]byte, binary.BigEndian.Uint32(first)-4)...)
			if _, err := io.ReadFull(far, first[4:]); err != nil {
				return
			}
			if v := binary.BigEndian.Uint32(first[4:]); v != pgproto3.ProtocolVersion30 && v != codeCancelRequest {
				far.Write(appendRefusal(nil, severityFatal, protocolError("unsupported protocol version", nil)))
				return
			}
			up.Write(first)
			go func() {
				defer up.Close()
				io.Copy(up, far)
			}()
			io.Copy(far, up)
		}()
		return near, nil
	}
}

package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/pkg/event"
)

// eventually waits for what another process does.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

const slow = "SELECT pg_sleep(300)"

func (p *proxy) running(t *testing.T) string {
	return column(t, p.database, "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'")
}

func TestCancel(t *testing.T) {
	p := newProxy(t, func(p *proxy) { p.relay.Owner = "job-1" })
	c := p.raw()
	c.send(q(slow))
	eventually(t, "the query runs", func() bool { return p.running(t) == "1" })

	cancel := func(key pgproto3.BackendKeyData) {
		d := p.dial()
		d.send(&pgproto3.CancelRequest{ProcessID: key.ProcessID, SecretKey: key.SecretKey})
		if got := d.read(); got != "end" {
			t.Errorf("a cancel request was answered with %s", got)
		}
	}
	wrong := c.key
	wrong.SecretKey = binary.BigEndian.AppendUint32(nil, ^binary.BigEndian.Uint32(c.key.SecretKey))
	cancel(wrong)
	if err := p.refusal(); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("wrong secret: %v", err)
	}
	wrong = c.key
	wrong.ProcessID++
	cancel(wrong)
	if err := p.refusal(); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("wrong process: %v", err)
	}
	if err := p.cancels.Cancel(testContext(t), CancelKey{c.key.ProcessID, c.key.SecretKey}, "job-2"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("another job: %v", err)
	}
	if err := p.cancels.Cancel(testContext(t), CancelKey{c.key.ProcessID, nil}, "job-1"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("no secret: %v", err)
	}
	if got := p.running(t); got != "1" {
		t.Fatalf("%s queries run after keys of nobody", got)
	}
	cancel(c.key)
	c.want("its own key", "T1 E:57014 Z:I")
	key := c.key
	c.send(&pgproto3.Terminate{})
	if r := p.result(); r.Reason != event.ReasonClientClosed {
		t.Errorf("ended with %+v", r)
	}
	cancel(key)
	if err := p.refusal(); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("a session that is over: %v", err)
	}
}

func TestHowSessionsEnd(t *testing.T) {
	jobEnded := &Refusal{Reason: event.ReasonJobEnded, SQLState: "57P01", Message: "the job is over"}
	for _, tt := range []struct {
		name       string
		do         func(*testing.T, *proxy, *rawClient)
		want       string // what the client reads
		reason     string
		unfinished bool
	}{
		{"the client goes away in mid query", func(_ *testing.T, _ *proxy, c *rawClient) {
			c.send(q(slow))
			c.conn.Close()
		}, "", event.ReasonClientClosed, true},
		{"the client half-closes in mid query", func(_ *testing.T, _ *proxy, c *rawClient) {
			c.send(q(slow))
			c.conn.(*net.TCPConn).CloseWrite()
		}, "end", event.ReasonClientClosed, true},
		{"the client says goodbye and what it sent still runs", func(t *testing.T, _ *proxy, c *rawClient) {
			c.send(q("INSERT INTO people VALUES (42)"), &pgproto3.Terminate{})
			c.want("the insert", "C:INSERT 0 1 Z:I")
		}, "end", event.ReasonClientClosed, false},
		{"the backend is terminated", func(t *testing.T, p *proxy, c *rawClient) {
			c.send(q(slow))
			eventually(t, "the query runs", func() bool { return p.running(t) == "1" })
			column(t, p.database, "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		}, "T1 FATAL:57P01 end", event.ReasonUpstreamClosed, true},
		{"the job ends", func(t *testing.T, p *proxy, c *rawClient) {
			c.send(q(slow))
			eventually(t, "the query runs", func() bool { return p.running(t) == "1" })
			p.stop(jobEnded)
		}, "FATAL:57P01 end", event.ReasonJobEnded, true},
		{"the job ends while the client idles", func(t *testing.T, p *proxy, c *rawClient) {
			c.send(q("SELECT 1"))
			c.want("a query", "T1 D:1 C:SELECT 1 Z:I")
			p.stop(jobEnded)
		}, "FATAL:57P01 end", event.ReasonJobEnded, false},
		{"the job ends while rows flow to a client that doesn't read", func(t *testing.T, p *proxy, c *rawClient) {
			c.send(q("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)"))
			eventually(t, "the server waits for us to read", func() bool {
				return column(t, p.database, "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'") == "1"
			})
			p.stop(jobEnded)
			p.results <- p.result()
			c.conn.Close()
		}, "", event.ReasonJobEnded, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, nil)
			c := p.raw()
			tt.do(t, p, c)
			if tt.want != "" {
				c.want(tt.name, tt.want)
			}
			if r := p.result(); r.Reason != tt.reason {
				t.Errorf("ended with %+v, want %s", r, tt.reason)
			}
			o := p.only().ended()
			if len(o) != 1 || o[0].Unfinished != tt.unfinished {
				t.Errorf("outcomes %+v", o)
			}
			eventually(t, "the server runs nothing for us any more", func() bool { return p.running(t) == "0" })
		})
	}
}

func TestTerminateKeepsWhatWasSent(t *testing.T) {
	p := newProxy(t, nil)
	c := p.raw()
	c.send(q("INSERT INTO people VALUES (42)"), &pgproto3.Terminate{})
	c.conn.Close()
	p.result()
	if got := column(t, p.database, "SELECT id::text FROM people WHERE id = 42"); got != "42" {
		t.Errorf("found %q", got)
	}
}

func TestConnectRefusals(t *testing.T) {
	pg := realServer(t)
	name := database(t)
	ctx := testContext(t)
	secret := "s3cret-" + name
	err := pg.Exec(ctx, "postgres",
		"CREATE ROLE r_"+name+" LOGIN PASSWORD '"+secret+"' CONNECTION LIMIT 0",
		"CREATE ROLE m_"+name+" LOGIN PASSWORD '"+secret+"'")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pg.Exec(context.Background(), "postgres", "DROP ROLE r_"+name, "DROP ROLE m_"+name) })
	other, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	closed, err := lab.FreePort(ctx)
	if err != nil {
		t.Fatal(err)
	}
	nowhere := net.JoinHostPort("127.0.0.1", strconv.Itoa(closed))
	good := func() UpstreamOptions {
		return UpstreamOptions{Dial: dialer(pg.Addr()), User: "m_" + name, Password: secret, Database: name}
	}
	for _, tt := range []struct {
		name          string
		change        func(*UpstreamOptions)
		reason, state string
		message       string
	}{
		{"nothing listens", func(o *UpstreamOptions) { o.Dial = dialer(nowhere) }, event.ReasonUpstreamDown, "08001", "can't be reached"},
		{"wrong password", func(o *UpstreamOptions) { o.Password = secret + "!" }, event.ReasonUpstreamAuth, "28P01", "refused the account"},
		{"no such role", func(o *UpstreamOptions) { o.User = "nobody" }, event.ReasonUpstreamAuth, "28P01", "refused the account"},
		{"no such database", func(o *UpstreamOptions) { o.Database = "nowhere" }, event.ReasonUpstreamDown, "3D000", `database "nowhere" does not exist`},
		{"too many connections", func(o *UpstreamOptions) { o.User = "r_" + name }, event.ReasonUpstreamDown, "53300", "too many connections"},
		{"bad parameter", func(o *UpstreamOptions) { o.Params = map[string]string{"datestyle": "x"} }, event.ReasonUpstreamDown, "22023", "DateStyle"},
		{"another authority", func(o *UpstreamOptions) {
			o.TLS = &tls.Config{RootCAs: other.Pool(), ServerName: "orders.db.test"}
		}, event.ReasonUpstreamTLS, "08001", "isn't trusted"},
		{"another name", func(o *UpstreamOptions) {
			o.TLS = &tls.Config{RootCAs: server.ca.Pool(), ServerName: "other.db.test"}
		}, event.ReasonUpstreamTLS, "08001", `isn't for "other.db.test"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := good()
			tt.change(&o)
			up, err := Connect(ctx, o)
			if err == nil {
				up.Close()
				t.Fatal("connected")
			}
			var r *Refusal
			if !errors.As(err, &r) || r.Reason != tt.reason || r.SQLState != tt.state || !strings.Contains(r.Message, tt.message) {
				t.Errorf("%#v", err)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if strings.Contains(e.Error(), secret) {
					t.Errorf("the password is in %q", e)
				}
			}
		})
	}
	t.Run("no TLS on offer", func(t *testing.T) {
		plain, err := lab.StartPostgres(ctx, lab.PostgresOptions{HBA: []string{"host all all all md5"}, Config: map[string]string{"password_encryption": "md5"}})
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Stop(context.Background())
		o := UpstreamOptions{Dial: dialer(plain.Addr()), User: "postgres", Password: plain.Password(), Database: "postgres",
			TLS: &tls.Config{RootCAs: server.ca.Pool(), ServerName: "orders.db.test"}}
		var r *Refusal
		if _, err := Connect(ctx, o); !errors.As(err, &r) || r.Reason != event.ReasonUpstreamTLS {
			t.Errorf("%#v", err)
		}
		// And one that asks for the password's MD5 doesn't get it.
		if err := plain.Exec(ctx, "postgres", "CREATE ROLE old LOGIN PASSWORD 'x'"); err != nil {
			t.Fatal(err)
		}
		o.TLS, o.User, o.Password = nil, "old", "x"
		if _, err := Connect(ctx, o); !errors.As(err, &r) || r.Reason != event.ReasonUpstreamAuth || r.SQLState != "28000" {
			t.Errorf("%#v", err)
		}
		if _, err := ConnectOwn(ctx, o); !errors.As(err, &r) || r.Reason != event.ReasonUpstreamAuth || r.SQLState != "28000" {
			t.Errorf("a connection of the daemon's own: %#v", err)
		}
	})
	t.Run("the daemon's own environment is nothing to it", func(t *testing.T) {
		for _, v := range []string{"PGUSER", "PGPASSWORD", "PGDATABASE", "PGOPTIONS", "PGAPPNAME", "PGSSLMODE", "PGREQUIREAUTH", "PGTZ"} {
			t.Setenv(v, map[string]string{"PGSSLMODE": "verify-full", "PGREQUIREAUTH": "md5", "PGOPTIONS": "-c role=postgres", "PGTZ": "Mars"}[v])
		}
		up, err := Connect(ctx, good())
		if err != nil {
			t.Fatal(err)
		}
		up.Close()
		o := good()
		o.Params = map[string]string{"application_name": "mine", "search_path": "elsewhere"}
		own, err := ConnectOwn(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close(ctx)
		var user, application, path string
		err = own.QueryRow(ctx, "SELECT session_user, current_setting('application_name'), current_setting('search_path')").Scan(&user, &application, &path)
		if err != nil || user != o.User || application != "mine" || path != "elsewhere" {
			t.Errorf("user %q, application %q, path %q, %v", user, application, path, err)
		}
	})
	t.Run("a server that never answers", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
		defer stop()
		o := good()
		o.Dial = dialer(l.Addr().String())
		var r *Refusal
		if _, err := Connect(short, o); !errors.As(err, &r) || r.Reason != event.ReasonUpstreamDown || !strings.Contains(r.Message, "in time") {
			t.Errorf("%#v", err)
		}
	})
}

// SCRAM-SHA-256-PLUS: the proof is bound to this TLS channel.
func TestConnectBindsTheChannel(t *testing.T) {
	pg := realServer(t)
	o := UpstreamOptions{
		Dial: dialer(pg.Addr()), User: "postgres", Password: pg.Password(), Database: "postgres",
		TLS: &tls.Config{RootCAs: server.ca.Pool(), ServerName: "orders.db.test"},
	}
	config, err := (&Upstream{options: o}).config(o)
	if err != nil {
		t.Fatal(err)
	}
	config.ChannelBinding = "require"
	conn, err := pgconn.ConnectConfig(testContext(t), config)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(context.Background())
}

func TestClientIsToldOfAFailedUpstream(t *testing.T) {
	p := newProxy(t, func(p *proxy) {
		realServer(t)
		p.upstream.Dial = dialer("127.0.0.1:1")
	})
	out := p.psql("", "-c", "SELECT 1")
	if !strings.Contains(out, "FATAL:  the target can't be reached") {
		t.Errorf("psql said %s", out)
	}
}

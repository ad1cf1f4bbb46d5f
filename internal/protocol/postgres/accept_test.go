package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"

	"chaperone.dev/chaperone/pkg/event"
)

func packet(code uint32, rest ...byte) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest)))
	return append(binary.BigEndian.AppendUint32(p, code), rest...)
}

func startupBytes(version uint32, pairs ...string) []byte {
	return packet(version, []byte(strings.Join(pairs, "\x00")+"\x00\x00")...)
}

// accepted runs Accept on one end of a real connection and a client on the
// other, and returns what Accept did and all that the client read.
func accepted(t *testing.T, options AcceptOptions, client func(net.Conn)) (*Client, []byte, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	read := make(chan []byte, 1)
	go func() {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			read <- nil
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		client(conn)
		answer, _ := io.ReadAll(conn)
		read <- answer
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Accept(testContext(t), conn, options)
	if err == nil {
		c.socket.Close()
	}
	return c, <-read, err
}

func TestAcceptPackets(t *testing.T) {
	const v30, v32, v39 = 3 << 16, 3<<16 | 2, 3<<16 | 9
	ssl, gss := packet(codeSSLRequest), packet(codeGSSENCRequest)
	for _, tt := range []struct {
		name   string
		sent   []byte
		want   *Startup
		state  string // SQLSTATE of the refusal
		answer string // how what the client read begins
	}{
		{"3.0", startupBytes(v30, "user", "u"), &Startup{User: "u", Database: "u", Params: map[string]string{}}, "", ""},
		{"3.2", startupBytes(v32, "user", "u", "database", "d", "application_name", "a"),
			&Startup{User: "u", Database: "d", Minor: 2, Params: map[string]string{"application_name": "a"}}, "", ""},
		{"a newer minor version is negotiated", startupBytes(v39, "user", "u"),
			&Startup{User: "u", Database: "u", Minor: 2, Params: map[string]string{}}, "", "v\x00\x00\x00\x0c\x00\x03\x00\x02\x00\x00\x00\x00"},
		{"so are protocol options", startupBytes(v30, "user", "u", "_pq_.x", "1"),
			&Startup{User: "u", Database: "u", Params: map[string]string{}}, "", "v\x00\x00\x00\x13\x00\x03\x00\x00\x00\x00\x00\x01_pq_.x\x00"},
		{"GSS and SSL are declined without a certificate", append(append(gss[:8:8], ssl...), startupBytes(v30, "user", "u")...),
			&Startup{User: "u", Database: "u", Params: map[string]string{}}, "", "NN"},
		{"the other way round", append(append(ssl[:8:8], gss...), startupBytes(v30, "user", "u")...),
			&Startup{User: "u", Database: "u", Params: map[string]string{}}, "", "NN"},
		{"replication=false", startupBytes(v30, "user", "u", "replication", "false"),
			&Startup{User: "u", Database: "u", Params: map[string]string{}}, "", ""},

		{"GSS twice", append(gss[:8:8], gss...), nil, "0A000", "NE"},
		{"SSL twice", append(ssl[:8:8], ssl...), nil, "0A000", "NE"},
		{"protocol 2", startupBytes(2<<16, "user", "u"), nil, "0A000", "E"},
		{"protocol 4", startupBytes(4<<16, "user", "u"), nil, "0A000", "E"},
		{"no user", startupBytes(v30, "database", "d"), nil, "28000", "E"},
		{"replication", startupBytes(v30, "user", "u", "replication", "database"), nil, "0A000", "E"},
		{"not ended", packet(v30, []byte("user\x00u")...), nil, "08P01", "E"},
		{"bytes behind the end", packet(v30, []byte("user\x00u\x00\x00x")...), nil, "08P01", "E"},
		{"no value", packet(v30, []byte("user\x00")...), nil, "08P01", "E"},
		{"too short", []byte{0, 0, 0, 7, 0, 3, 0, 0}, nil, "08P01", "E"},
		{"too long", startupBytes(v30, "user", strings.Repeat("u", maxStartupPacket)), nil, "08P01", "E"},
		{"another protocol", []byte("GET / HTTP/1.1\r\n\r\n"), nil, "08P01", "E"},
		{"TLS where none is offered", []byte("\x16\x03\x01\x00\x05hello"), nil, "08P01", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, answer, err := accepted(t, AcceptOptions{}, func(conn net.Conn) { conn.Write(tt.sent) })
			if !strings.HasPrefix(string(answer), tt.answer) {
				t.Errorf("the client read %q, want %q…", answer, tt.answer)
			}
			if tt.want != nil {
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(*tt.want, c.Startup()); diff != "" {
					t.Errorf("startup (-want +got):\n%s", diff)
				}
				return
			}
			var r *Refusal
			if !errors.As(err, &r) || r.SQLState != tt.state || r.Reason != event.ReasonProtocol {
				t.Fatalf("refused with %#v", err)
			}
			if tt.answer != "" && !bytes.Contains(answer, []byte("VFATAL\x00C"+tt.state+"\x00M"+r.Message+"\x00")) {
				t.Errorf("the client was told %q", answer)
			}
		})
	}
}

func TestAcceptGoneClient(t *testing.T) {
	for _, sent := range []string{"", "\x00", "\x00\x00\x00\x20\x00\x03\x00\x00us", string(packet(codeGSSENCRequest))} {
		_, _, err := accepted(t, AcceptOptions{}, func(conn net.Conn) {
			conn.Write([]byte(sent))
			conn.(*net.TCPConn).CloseWrite()
		})
		if !errors.Is(err, ErrSilent) {
			t.Errorf("after %q: %v", sent, err)
		}
	}
}

func TestAcceptTimeout(t *testing.T) {
	_, answer, err := accepted(t, AcceptOptions{Timeout: time.Millisecond}, func(conn net.Conn) { conn.Write([]byte("\x00\x00")) })
	var r *Refusal
	if !errors.As(err, &r) || r.Reason != event.ReasonTimeout || !strings.Contains(string(answer), "VFATAL\x00") {
		t.Errorf("%v, and the client read %q", err, answer)
	}
}

func TestAcceptCancelRequest(t *testing.T) {
	for _, n := range []int{4, 32, 256} {
		secret := bytes.Repeat([]byte{7}, n)
		c, _, err := accepted(t, AcceptOptions{}, func(conn net.Conn) {
			conn.Write(packet(codeCancelRequest, append([]byte{0, 0, 1, 2}, secret...)...))
		})
		if err != nil {
			t.Fatal(err)
		}
		if key, ok := c.CancelKey(); !ok || key.Process != 0x102 || !bytes.Equal(key.Secret, secret) {
			t.Errorf("key %v", key)
		}
	}
	for _, n := range []int{0, 3, 257} {
		_, answer, err := accepted(t, AcceptOptions{}, func(conn net.Conn) {
			conn.Write(packet(codeCancelRequest, make([]byte, 4+n)...))
		})
		if err == nil || len(answer) > 0 {
			t.Errorf("secret of %d bytes: %v, answered %q", n, err, answer)
		}
	}
}

// What stands in clear behind an SSLRequest must not be taken for something
// that came through TLS (CVE-2021-23214).
func TestAcceptInjectionBeforeTLS(t *testing.T) {
	cert := certificate(t, "orders.db.test")
	options := AcceptOptions{Certificate: func(context.Context, string) (*tls.Certificate, error) { return cert, nil }}
	c, answer, err := accepted(t, options, func(conn net.Conn) {
		conn.Write(append(packet(codeSSLRequest), startupBytes(3<<16, "user", "mallory")...))
		io.ReadFull(conn, make([]byte, 1))
		tls.Client(conn, &tls.Config{RootCAs: server.ca.Pool(), ServerName: "orders.db.test"}).Handshake()
	})
	if err == nil {
		t.Fatalf("accepted %+v", c.Startup())
	}
	if bytes.Contains(answer, []byte("R\x00")) {
		t.Errorf("answered %q", answer)
	}
}

func tlsProxy(t *testing.T) *proxy {
	return newProxy(t, func(p *proxy) {
		p.accept.Certificate = func(_ context.Context, name string) (*tls.Certificate, error) {
			if name != "orders.db.test" {
				return nil, errors.New("another name")
			}
			return certificate(t, "orders.db.test"), nil
		}
		realServer(t)
		p.upstream.TLS = &tls.Config{RootCAs: server.ca.Pool(), ServerName: "orders.db.test"}
	})
}

func TestTLSWithPsql(t *testing.T) {
	p := tlsProxy(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	const query = "SELECT ssn FROM people WHERE id = 1"
	full := "host=orders.db.test hostaddr=127.0.0.1 sslmode=verify-full sslrootcert=" + ca
	if out := p.psql(full, "-c", query); !strings.Contains(out, "masked") {
		t.Errorf("verify-full: %s", out)
	}
	if out := p.psql("host=other.db.test hostaddr=127.0.0.1 sslmode=verify-full sslrootcert="+ca, "-c", query); !strings.Contains(out, "SSL error") {
		t.Errorf("a name that there's no certificate for: %s", out)
	}
	if out := p.psql(full+" gssencmode=prefer", "-c", query); !strings.Contains(out, "masked") {
		t.Errorf("after GSS: %s", out)
	}
	if out := p.psql("sslmode=disable", "-c", query); !strings.Contains(out, "masked") {
		t.Errorf("disable: %s", out)
	}
	if got := column(t, p.database, "SELECT 1::text"); got != "1" {
		t.Error(got)
	}
}

func TestDirectTLS(t *testing.T) {
	p := tlsProxy(t)
	config := &tls.Config{RootCAs: server.ca.Pool(), ServerName: "orders.db.test", NextProtos: []string{ALPN}}
	c := p.dial()
	secure := tls.Client(c.conn, config)
	c.conn, c.fe = secure, pgproto3.NewFrontend(secure, secure)
	c.startup(pgproto3.ProtocolVersion32, map[string]string{"user": "u"})
	if got := c.read(); !strings.HasSuffix(got, "K Z:I") {
		t.Fatal(got)
	}
	if len(c.key.SecretKey) != 32 {
		t.Errorf("cancel secret of %d bytes in protocol 3.2", len(c.key.SecretKey))
	}
	c.send(q("SELECT ssn FROM people WHERE id = 1"))
	c.want("direct TLS", "T1 D:masked C:SELECT 1 Z:I")

	// Without the protocol's name it could be any TLS client's handshake.
	c = p.dial()
	config.NextProtos = nil
	secure = tls.Client(c.conn, config)
	c.conn, c.fe = secure, pgproto3.NewFrontend(secure, secure)
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	if got := c.read(); got != "FATAL:08P01 end" {
		t.Errorf("without ALPN: %s", got)
	}
}

func TestPgxVariants(t *testing.T) {
	p := tlsProxy(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, extra := range []string{
		"max_protocol_version=3.2 min_protocol_version=3.2",
		"min_protocol_version=3.0",
		"default_query_exec_mode=simple_protocol",
		"default_query_exec_mode=exec",
		"default_query_exec_mode=describe_exec",
		"default_query_exec_mode=cache_describe",
	} {
		t.Run(extra, func(t *testing.T) {
			conn := p.pgx(extra)
			for range 3 {
				var id int
				var ssn string
				err := conn.QueryRow(testContext(t), "SELECT id, ssn FROM people WHERE id = $1", 2).Scan(&id, &ssn)
				if err != nil || id != 2 || ssn != "masked" {
					t.Errorf("%d, %q, %v", id, ssn, err)
				}
			}
		})
	}
}

func TestStartupParametersGoUpstream(t *testing.T) {
	p := newProxy(t, nil)
	conn := p.pgx("application_name=planner-7 options='-c search_path=pg_catalog,public -c statement_timeout=12345'")
	var app, path, timeout, user string
	err := conn.QueryRow(testContext(t), "SELECT current_setting('application_name'), current_setting('search_path'), current_setting('statement_timeout'), current_user").
		Scan(&app, &path, &timeout, &user)
	if err != nil || app != "planner-7" || path != "pg_catalog,public" || timeout != "12345ms" || user != "postgres" {
		t.Errorf("%q %q %q %q %v", app, path, timeout, user, err)
	}
}

func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		options string
		want    []Setting
		refused bool
	}{
		{"", nil, false},
		{"-c role=admin", []Setting{{"role", "admin"}}, false},
		{"  -csearch_path=a,b\t--Work-Mem=1MB ", []Setting{{"search_path", "a,b"}, {"work_mem", "1MB"}}, false},
		{`-c x=a\ b\\c`, []Setting{{"x", `a b\c`}}, false},
		{`-c x=a\`, []Setting{{"x", "a"}}, false},
		{"-c x=a=b", []Setting{{"x", "a=b"}}, false},
		{"-c", nil, true},
		{"-c x", nil, true},
		{"-c =x", nil, true},
		{"-B 100", nil, true},
		{"x=y", nil, true},
	} {
		got, err := Startup{Params: map[string]string{"options": tt.options}}.Settings()
		if (err != nil) != tt.refused {
			t.Errorf("%q: %v", tt.options, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.options, diff)
		}
	}
	got, err := Startup{Params: map[string]string{"options": "-c a=1", "DateStyle": "ISO", "B": "2"}}.Settings()
	if diff := cmp.Diff([]Setting{{"a", "1"}, {"b", "2"}, {"datestyle", "ISO"}}, got); diff != "" || err != nil {
		t.Errorf("(-want +got):\n%s%v", diff, err)
	}
}

package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chaperone.dev/chaperone/pkg/event"
)

// UpstreamOptions are the options of [Connect].
type UpstreamOptions struct {
	// Dial connects to the server. It is called again for each cancel request.
	Dial func(ctx context.Context) (net.Conn, error)
	// TLS verifies the server; it must hold the name to verify. nil: the
	// connection isn't encrypted.
	TLS      *tls.Config
	User     string
	Password string
	// Stored says that Password is none that was made for the job: the server may
	// know it in older forms, and ask for it by MD5 or, within TLS, as it is.
	Stored bool
	// Certificate is what the connection proves itself by, in place of a password.
	// The server must ask for it.
	Certificate *tls.Certificate
	Database    string
	// Params are run-time parameters for the startup packet, usually those
	// that the client asked for, once they were judged.
	Params map[string]string
}

// Upstream is a connection to a PostgreSQL server that is ready for queries.
type Upstream struct {
	conn    net.Conn
	options UpstreamOptions // without the password and the certificate
	asked   bool            // for the certificate
	process uint32
	secret  []byte
	params  map[string]string // what the server reported
	notices []*pgconn.Notice
}

// maxNotices bounds the notices that are kept from the start of a connection.
const maxNotices = 32

// Connect opens a connection to the server: with protocol 3.2, for its long cancel
// keys, or 3.0 where the server has no newer one, and SCRAM-SHA-256, bound to the TLS channel where
// the server offers that (SCRAM-SHA-256-PLUS), or a client certificate. Methods
// that would show the password, or an MD5 of it, are refused unless it is a stored
// one. An error is a *[Refusal] that never holds the password. ctx bounds the
// connecting only.
func Connect(ctx context.Context, options UpstreamOptions) (*Upstream, error) {
	u := newUpstream(options)
	config, err := u.config(options)
	if err != nil {
		return nil, u.refusal(ctx, err)
	}
	config.MaxProtocolVersion = "3.2"
	pg, err := pgconn.ConnectConfig(ctx, config)
	if refusesVersion(err) {
		config.MaxProtocolVersion = "3.0"
		pg, err = pgconn.ConnectConfig(ctx, config)
	}
	if err != nil {
		return nil, u.refusal(ctx, err)
	}
	if err := u.checkAsked(options); err != nil {
		pg.Conn().Close()
		return nil, err
	}
	// Anything that the server sent behind ReadyForQuery is taken in first.
	if err := pg.SyncConn(ctx); err != nil {
		pg.Conn().Close()
		return nil, u.refusal(ctx, err)
	}
	hijacked, err := pg.Hijack()
	if err != nil {
		pg.Conn().Close()
		return nil, u.refusal(ctx, err)
	}
	u.conn, u.process, u.secret = hijacked.Conn, hijacked.PID, hijacked.SecretKey
	u.params = hijacked.ParameterStatuses
	return u, nil
}

// ConnectOwn opens a connection of the daemon's own, for queries, in the same
// way and under the same rules as [Connect]. The caller closes it.
func ConnectOwn(ctx context.Context, options UpstreamOptions) (*pgx.Conn, error) {
	u := newUpstream(options)
	config, err := u.config(options)
	if err != nil {
		return nil, u.refusal(ctx, err)
	}
	own, err := pgx.ParseConfig(neutral)
	if err != nil {
		return nil, u.refusal(ctx, err)
	}
	own.Config = *config
	own.MaxProtocolMessageBodyLen = ownMessage
	conn, err := pgx.ConnectConfig(ctx, own)
	if err != nil {
		return nil, u.refusal(ctx, err)
	}
	if err := u.checkAsked(options); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

func newUpstream(options UpstreamOptions) *Upstream {
	u := &Upstream{options: options}
	u.options.Password, u.options.Params, u.options.Certificate = "", nil, nil
	return u
}

// methods are the ways of authentication that the server may ask for, as libpq's
// require_auth names them.
func (o *UpstreamOptions) methods() string {
	switch {
	case o.Certificate != nil:
		return "none" // it is asked for in TLS
	case o.Stored && o.TLS != nil:
		return "scram-sha-256,md5,password,none"
	case o.Stored:
		return "scram-sha-256,md5,none"
	}
	return "scram-sha-256,none"
}

// checkAsked refuses a server that lets the account in without its certificate: so
// it would anybody.
func (u *Upstream) checkAsked(options UpstreamOptions) error {
	if options.Certificate == nil || u.asked {
		return nil
	}
	return &Refusal{
		Reason: event.ReasonUpstreamAuth, SQLState: "28000",
		Message: "the target let the account in without asking for its certificate",
		Hint:    "Its ssl_ca_file must be set, and its pg_hba.conf let the account in by the method cert alone.",
	}
}

// ownMessage bounds, in bytes, what the server sends in one message to a
// connection of the daemon's own.
const ownMessage = 64 << 20

// neutral is a connection string that leaves nothing to the environment. What
// it says is replaced.
const neutral = "host=upstream port=5432 user=- password=- database=- sslmode=disable " +
	"sslnegotiation=postgres sslcertmode=disable target_session_attrs=any channel_binding=prefer " +
	"require_auth='' min_protocol_version=3.0 max_protocol_version=3.0 connect_timeout=0"

// config makes a pgconn configuration that takes nothing from the daemon's own
// environment and files (PGPASSFILE, ~/.pgpass, PGSERVICE, …), which ParseConfig
// would: all that they could have set is set here.
func (u *Upstream) config(options UpstreamOptions) (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(neutral)
	if err != nil {
		return nil, fmt.Errorf("the daemon's environment holds PG… variables that can't be read: %w", err)
	}
	config.User, config.Password, config.Database = options.User, options.Password, options.Database
	config.RuntimeParams = maps.Clone(options.Params)
	maps.DeleteFunc(config.RuntimeParams, func(name, _ string) bool {
		return name == "user" || name == "database" || name == "replication" || strings.HasPrefix(name, "_pq_.")
	})
	config.Fallbacks, config.TLSConfig, config.ConnectTimeout = nil, nil, 0
	config.KerberosSrvName, config.KerberosSpn = "", ""
	config.RequireAuth = options.methods()
	config.MaxProtocolMessageBodyLen = 1 << 20
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	secure := options.TLS
	if options.Certificate != nil && secure != nil {
		secure = secure.Clone()
		secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			u.asked = true
			return options.Certificate, nil
		}
	}
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return u.dial(ctx, secure) }
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if len(u.notices) < maxNotices {
			u.notices = append(u.notices, n)
		}
	}
	return config, nil
}

// dial opens a connection and, if wanted, TLS on it. pgconn finds the TLS
// connection in the result and binds SCRAM to it.
func (u *Upstream) dial(ctx context.Context, config *tls.Config) (net.Conn, error) {
	conn, err := u.options.Dial(ctx)
	if err != nil {
		return nil, &dialError{err}
	}
	if config == nil {
		return conn, nil
	}
	stop := interruptOn(ctx, conn)
	secure, err := upgrade(ctx, conn, config)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// upgrade asks the server for TLS and verifies it. One byte is read, no more:
// what a stranger puts behind it in clear ends in the TLS handshake, which
// fails (CVE-2021-23222).
func upgrade(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	request := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeSSLRequest)
	if _, err := conn.Write(request); err != nil {
		return nil, &dialError{err}
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, &dialError{err}
	}
	if answer[0] != 'S' {
		return nil, &tlsError{errors.New("the server doesn't offer TLS")}
	}
	if len(config.NextProtos) == 0 {
		config = config.Clone()
		config.NextProtos = []string{ALPN}
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, &tlsError{err}
	}
	return secure, nil
}

// Parameters are the run-time parameters that the server reported.
func (u *Upstream) Parameters() map[string]string { return maps.Clone(u.params) }

// Backend is the server's process of this connection, and our port of it.
func (u *Upstream) Backend() (process uint32, port uint16) {
	if address, ok := u.conn.LocalAddr().(*net.TCPAddr); ok {
		port = uint16(address.Port)
	}
	return u.process, port
}

// Cancel asks the server to cancel what this connection runs. It returns when
// the server has taken the request; whether that came in time isn't known.
func (u *Upstream) Cancel(ctx context.Context) error {
	conn, err := u.dial(ctx, u.options.TLS) // it takes no account to cancel
	if err != nil {
		return fmt.Errorf("cancel request: %w", err)
	}
	defer conn.Close()
	defer interruptOn(ctx, conn)()
	packet := binary.BigEndian.AppendUint32(nil, uint32(12+len(u.secret)))
	packet = binary.BigEndian.AppendUint32(packet, codeCancelRequest)
	packet = binary.BigEndian.AppendUint32(packet, u.process)
	packet = append(packet, u.secret...)
	if _, err := conn.Write(packet); err != nil {
		return fmt.Errorf("cancel request: %w", err)
	}
	// The server closes once the signal is sent.
	var end [1]byte
	conn.Read(end[:])
	return nil
}

// Close closes the connection. A transaction that is open is rolled back.
func (u *Upstream) Close() error { return u.conn.Close() }

// greeting is what the client is told of the server before its first command.
func (u *Upstream) greeting(dst []byte, s Session) ([]byte, error) {
	for _, name := range slices.Sorted(maps.Keys(u.params)) {
		if err := checkParameter(s, name, u.params[name]); err != nil {
			return nil, err
		}
		dst = appendParameterStatus(dst, name, u.params[name])
	}
	for _, n := range u.notices {
		dst = appendNotice(dst, n, s)
	}
	return dst, nil
}

func appendNotice(dst []byte, n *pgconn.Notice, s Session) []byte {
	dst, start := beginMessage(dst, msgNoticeResponse)
	dst = appendErrorField(dst, 'S', n.Severity)
	dst = appendErrorField(dst, 'V', n.SeverityUnlocalized)
	dst = appendErrorField(dst, 'C', n.Code)
	dst = appendErrorField(dst, 'M', s.Text(nil, 'M', n.Message))
	dst = appendErrorField(dst, 'D', s.Text(nil, 'D', n.Detail))
	dst = appendErrorField(dst, 'H', s.Text(nil, 'H', n.Hint))
	return endMessage(append(dst, 0), start)
}

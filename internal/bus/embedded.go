package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Options of [Embedded].
type Options struct {
	Dir     string // state folder; keys and messages go to its "nats" folder
	Cluster string // names that the node role may publish under
	Node    string
	Listen  string // "address:port", port 0 for any; empty: this process only
	Limits  Limits
	Log     zerolog.Logger
}

// MaxPayload is the largest message in bytes: a recording's block and room.
const MaxPayload = 8 << 20

// Server is an embedded NATS server with JetStream on disk.
type Server struct {
	ns    *server.Server
	store string
	keys  map[Role]nkeys.KeyPair
}

// Embedded starts a server and makes the streams. Shut it down with
// [Server.Shutdown], after its clients.
func Embedded(ctx context.Context, o Options) (*Server, error) {
	dir := filepath.Join(o.Dir, "nats")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("NATS: %w", err)
	}
	s := &Server{store: filepath.Join(dir, "store"), keys: map[Role]nkeys.KeyPair{}}
	var users []*server.NkeyUser
	for _, r := range []Role{RoleNode, RoleSink, RoleAuditor, RoleAdmin} {
		kp, err := nkeys.CreateUser()
		if r != RoleAdmin {
			kp, err = loadKey(dir, r)
		}
		if err != nil {
			return nil, err
		}
		pub, err := kp.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("NATS key: %w", err)
		}
		s.keys[r] = kp
		users = append(users, &server.NkeyUser{Nkey: pub, Permissions: permissions(r, o.Cluster, o.Node)})
	}
	opts := &server.Options{
		ServerName: "chaperone-" + o.Node,
		Nkeys:      users,
		NoSigs:     true,
		MaxPayload: MaxPayload,
		JetStream:  true,
		StoreDir:   s.store,
		// An acknowledged message is on the disk a second later. The journal
		// keeps what was acknowledged for longer than that.
		SyncInterval:       time.Second,
		JetStreamMaxMemory: 16 << 20,
		JetStreamMaxStore:  16 << 30,
		DontListen:         o.Listen == "",
	}
	if o.Listen != "" {
		host, port, err := net.SplitHostPort(o.Listen)
		if err != nil {
			return nil, fmt.Errorf("NATS listen address: %w", err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			return nil, fmt.Errorf("NATS listen address %q: the port is no number", o.Listen)
		}
		if n == 0 {
			n = server.RANDOM_PORT
		}
		opts.Host, opts.Port = host, n
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("NATS: %w", err)
	}
	ns.SetLoggerV2(logger{o.Log}, false, false, false)
	s.ns = ns
	ns.Start()
	if err := s.ready(ctx, o.Limits); err != nil {
		s.Shutdown()
		return nil, fmt.Errorf("NATS: %w", err)
	}
	return s, nil
}

// ready waits for the server and makes the streams.
func (s *Server) ready(ctx context.Context, l Limits) error {
	wait := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(d))
	}
	if !s.ns.ReadyForConnections(wait) {
		return errors.New("the embedded server did not start in time; its log says why")
	}
	nc, err := s.Connect(RoleAdmin)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	// This server dies only with the daemon in its process. The daemon's
	// journal then sends again what was acknowledged in its last seconds, so
	// no message needs a write of its own before it is acknowledged.
	return setup(ctx, js, l, jetstream.AsyncPersistMode)
}

// Connect returns a connection inside the process. Close it before the server
// is shut down.
func (s *Server) Connect(r Role) (*nats.Conn, error) {
	kp := s.keys[r]
	if kp == nil {
		return nil, fmt.Errorf("NATS: no role %q", r)
	}
	pub, err := kp.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("NATS key: %w", err)
	}
	opts := append(common(r), nats.InProcessServer(s.ns), nats.Nkey(pub, kp.Sign))
	nc, err := nats.Connect("", opts...)
	if err != nil {
		return nil, fmt.Errorf("NATS, role %s: %w", r, err)
	}
	return nc, nil
}

// URL is where other processes connect, or "" when the server doesn't listen.
func (s *Server) URL() string {
	if a, ok := s.ns.Addr().(*net.TCPAddr); ok && a != nil {
		return "nats://" + a.String()
	}
	return ""
}

// Shutdown stops the server and waits until what it holds is on the disk.
func (s *Server) Shutdown() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
	if dir, err := os.Open(s.store); err == nil {
		_ = unix.Syncfs(int(dir.Fd()))
		_ = dir.Close()
	}
}

// logger passes the server's log on.
type logger struct{ log zerolog.Logger }

func (l logger) Noticef(f string, v ...any) { l.log.Debug().Msgf("nats: "+f, v...) }
func (l logger) Warnf(f string, v ...any)   { l.log.Warn().Msgf("nats: "+f, v...) }
func (l logger) Errorf(f string, v ...any)  { l.log.Error().Msgf("nats: "+f, v...) }
func (l logger) Fatalf(f string, v ...any)  { l.log.Error().Msgf("nats: "+f, v...) }
func (l logger) Debugf(string, ...any)      {}
func (l logger) Tracef(string, ...any)      {}

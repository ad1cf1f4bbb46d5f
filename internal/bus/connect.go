package bus

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Remote says how to reach a NATS server that is not embedded.
type Remote struct {
	URL      string // "tls://host:4222", several separated by ","
	Role     Role
	SeedFile string // NKEY seed; or
	// CredsFile holds a user JWT and its seed.
	CredsFile string
	CAFile    string // PEM; empty: the system's
	// Changed, if set, is told when the connection is lost and is back. It
	// must not block.
	Changed func(connected bool, err error)
}

// Connect connects to a real NATS. It goes on trying for as long as the
// connection is open, so it succeeds while the server is away.
func Connect(r Remote) (*nats.Conn, error) {
	opts := append(common(r.Role), nats.RetryOnFailedConnect(true))
	if r.SeedFile != "" {
		key, err := nats.NkeyOptionFromSeed(r.SeedFile)
		if err != nil {
			return nil, fmt.Errorf("NATS key %s: %w", r.SeedFile, err)
		}
		opts = append(opts, key)
	}
	if r.CredsFile != "" {
		opts = append(opts, nats.UserCredentials(r.CredsFile))
	}
	if r.CAFile != "" {
		opts = append(opts, nats.RootCAs(r.CAFile))
	}
	if r.Changed != nil {
		opts = append(opts,
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { r.Changed(false, err) }),
			nats.ReconnectHandler(func(*nats.Conn) { r.Changed(true, nil) }))
	}
	nc, err := nats.Connect(r.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("NATS %s: %w", r.URL, err)
	}
	return nc, nil
}

// common are the options of every connection. Nothing is kept in memory while
// the server is away: the journal sends it again, in order.
func common(r Role) []nats.Option {
	return []nats.Option{
		nats.Name("chaperone-" + string(r)),
		nats.CustomInboxPrefix(inbox(r)),
		nats.ReconnectBufSize(-1),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.PingInterval(20 * time.Second),
		nats.MaxPingsOutstanding(2),
	}
}

// JetStream returns what the journal publishes through: pending messages are
// bounded, and one that is not acknowledged in time fails.
func JetStream(nc *nats.Conn) (jetstream.JetStream, error) {
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(2*MaxInFlight),
		jetstream.WithPublishAsyncTimeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("JetStream: %w", err)
	}
	return js, nil
}

// MaxInFlight is how many messages a publisher sends ahead of their
// acknowledgements.
const MaxInFlight = 4096

package bus

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Remote says how to reach a NATS server that is not embedded.
type Remote struct {
	URL  string // "tls://host:4222", several separated by ","
	Role Role
	// One of: an NKEY seed, or a user JWT and its seed. Neither: no
	// authentication, as a server on loopback may have it in tests.
	SeedFile  string
	CredsFile string
	CAFile    string // PEM; empty: the system's
	// Once makes Connect fail when no server takes the connection. Else it
	// goes on trying for as long as the connection is open, and succeeds while
	// the servers are away.
	Once bool
	// Changed, if set, is told when there is no connection, or another reason
	// for that, and when there is one again. It must not block.
	Changed func(connected bool, err error)
}

// Connect connects to a real NATS.
func Connect(r Remote) (*nats.Conn, error) {
	opts := append(common(r.Role), nats.RetryOnFailedConnect(!r.Once))
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
		opts = append(opts, changes(r.Changed)...)
	}
	nc, err := nats.Connect(r.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("NATS %s: %w", r.URL, err)
	}
	return nc, nil
}

// changes tells what is news. The client calls the handlers one after another.
func changes(changed func(connected bool, err error)) []nats.Option {
	connected, reason := true, ""
	lost := func(_ *nats.Conn, err error) {
		text := ""
		if err != nil {
			text = err.Error()
		}
		if connected || text != reason {
			connected, reason = false, text
			changed(false, err)
		}
	}
	found := func(*nats.Conn) {
		if !connected {
			connected, reason = true, ""
			changed(true, nil)
		}
	}
	return []nats.Option{
		nats.DisconnectErrHandler(lost), nats.ReconnectErrHandler(lost),
		nats.ConnectHandler(found), nats.ReconnectHandler(found),
	}
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

package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Watcher decides what is resolved and learns what was. Its methods are called
// from many goroutines.
//
// Names are lower case, in the escaped form of RFC 1035 section 5.1, and without
// the trailing dot; the root is "".
type Watcher interface {
	// Admit says whether the workload may resolve the name. Reverse lookups
	// ask with their own names, under in-addr.arpa or ip6.arpa.
	Admit(workload uint64, name string) bool
	// Learned is told, before the answer is sent, which addresses the workload
	// is about to learn for a name. It is called once per name; IPv4 addresses
	// in IPv6 clothes come as IPv4. An error withholds the whole answer: the
	// workload is told SERVFAIL.
	Learned(ctx context.Context, workload uint64, name string, addrs []netip.Addr, ttl time.Duration) error
}

// Limits bound what queries may hold. Zero means the default.
type Limits struct {
	InFlight            int // queries being answered; 1024
	InFlightPerWorkload int // 128
	// Connections over TCP, each of which may have 16 queries in flight.
	Connections            int // 1024
	ConnectionsPerWorkload int // 64
}

// Options configure a [Resolver]. Only Watcher is required.
type Options struct {
	Watcher Watcher
	// ResolvConf is "/etc/resolv.conf" and HostsFile "/etc/hosts" if empty.
	// Both are read again when they change, and may be missing.
	ResolvConf string
	HostsFile  string
	// Servers are asked in place of those that ResolvConf names.
	Servers []netip.AddrPort
	// Timeout bounds one attempt at one server; ResolvConf can only make it
	// shorter. It is 2 s if zero, less than the 5 s after which clients ask
	// again, so that they learn what the second server says.
	Timeout time.Duration
	// IdleTimeout is how long a TCP connection may take to deliver its next
	// query. 10 s if zero.
	IdleTimeout time.Duration
	Limits      Limits
	Log         zerolog.Logger
}

// Resolver answers DNS queries. Its methods may be called from any goroutine.
type Resolver struct {
	opts        Options
	log         zerolog.Logger // a few lines per minute, of what planners can provoke
	hosts       watched[hosts]
	conf        watched[resolvConf]
	queries     *limiter
	connections *limiter
	buffers     buffers
	ailing      ailing
	count       counts
}

// New returns a resolver. It fails when a file is there but can't be read.
func New(opts Options) (*Resolver, error) {
	if opts.Watcher == nil {
		return nil, errors.New("resolver: a Watcher is required")
	}
	for _, server := range opts.Servers {
		if !server.IsValid() || server.Port() == 0 {
			return nil, fmt.Errorf("resolver: server %s: an address and a port are required", server)
		}
	}
	setDefault(&opts.ResolvConf, "/etc/resolv.conf")
	setDefault(&opts.HostsFile, "/etc/hosts")
	setDefault(&opts.Timeout, 2*time.Second)
	setDefault(&opts.IdleTimeout, 10*time.Second)
	setDefault(&opts.Limits.InFlight, 1024)
	setDefault(&opts.Limits.InFlightPerWorkload, 128)
	setDefault(&opts.Limits.Connections, 1024)
	setDefault(&opts.Limits.ConnectionsPerWorkload, 64)

	r := &Resolver{
		opts:        opts,
		log:         opts.Log.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Minute}),
		queries:     newLimiter(opts.Limits.InFlight, opts.Limits.InFlightPerWorkload),
		connections: newLimiter(opts.Limits.Connections, opts.Limits.ConnectionsPerWorkload),
	}
	r.hosts = watched[hosts]{path: opts.HostsFile, limit: maxHosts, parse: parseHosts, log: opts.Log}
	r.conf = watched[resolvConf]{path: opts.ResolvConf, limit: maxResolvConf, parse: parseResolvConf, log: opts.Log}
	if err := errors.Join(r.hosts.refresh(), r.conf.refresh()); err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	return r, nil
}

func setDefault[T comparable](value *T, byDefault T) {
	var zero T
	if *value == zero {
		*value = byDefault
	}
}

// SearchDomains returns the domains that the node's resolver appends to relative
// names, in order: those of resolv.conf as it is now, else the host name's domain.
func (r *Resolver) SearchDomains() []string { return r.conf.get().searchDomains() }

// Counters are totals since [New]. Each message is in exactly one of them, as is
// each connection that was turned away.
type Counters struct {
	Answered  uint64 // by a server or from the hosts file, also that there is no such name
	Refused   uint64 // by [Watcher.Admit]
	Rejected  uint64 // malformed, or nothing that a resolver is asked: FORMERR, NOTIMP, REFUSED, BADVERS
	Dropped   uint64 // without an answer: of an unknown asker, or no query at all
	Failed    uint64 // SERVFAIL: no server answered, or [Watcher.Learned] failed; or the answer couldn't be sent
	OverLimit uint64 // more than [Limits]: dropped on UDP, REFUSED on TCP, or a connection closed
}

type counter = atomic.Uint64

type counts struct {
	answered, refused, rejected, dropped, failed, overLimit counter
}

// Counters returns the totals so far.
func (r *Resolver) Counters() Counters {
	return Counters{
		Answered:  r.count.answered.Load(),
		Refused:   r.count.refused.Load(),
		Rejected:  r.count.rejected.Load(),
		Dropped:   r.count.dropped.Load(),
		Failed:    r.count.failed.Load(),
		OverLimit: r.count.overLimit.Load(),
	}
}

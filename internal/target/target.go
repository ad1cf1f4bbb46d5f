// Package target knows where targets are: it resolves the host names of
// Target documents, and those that workloads' egress allows, and answers
// which target a destination belongs to. Planners' own lookups, which the
// daemon answers, tell it of new addresses before the planner. It
// knows nothing of connections, jobs or policies.
package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/pkg/policy"
)

// The errors of [Registry.Find], which wrap one of these.
var (
	ErrNone      = errors.New("no target")
	ErrAmbiguous = errors.New("ambiguous target")
)

// Match is the target that a destination belongs to.
type Match struct {
	Target *policy.Target
	// Host is the name or address by which the destination is known: what a
	// client asked for, or else how the document spells it.
	Host string
}

// Options configure a [Registry].
type Options struct {
	// Resolver resolves host names; nil is the node's own.
	Resolver *net.Resolver
	// Search returns the domains that the node's resolver appends to relative
	// names; nil is none.
	Search func() []string
	// Every is how often names are resolved again; 0 means 30 s.
	Every time.Duration
	// Changed is called after names were resolved to other addresses than before, by one
	// goroutine at a time, and not for [Registry.Learn]. May be nil.
	Changed func()
	Log     zerolog.Logger
}

// Registry answers which target a destination belongs to. Its methods may be
// called from any goroutine.
type Registry struct {
	opts Options

	resolving sync.Mutex // held while names are asked for and the change is told
	mu        sync.RWMutex
	hosts     []host
	names     map[string]addresses // of each name that is wanted
	asked     map[uint64]*lookups  // by workload
}

// host is one entry of a Target document's hosts.
type host struct {
	policy.Host
	target *policy.Target
}

// New returns a registry without targets.
func New(opts Options) *Registry {
	if opts.Resolver == nil {
		opts.Resolver = net.DefaultResolver
	}
	if opts.Search == nil {
		opts.Search = func() []string { return nil }
	}
	if opts.Every == 0 {
		opts.Every = 30 * time.Second
	}
	return &Registry{opts: opts, names: map[string]addresses{}, asked: map[uint64]*lookups{}}
}

// Set replaces the targets and the other names that are to be known, and
// resolves them all. One that can't be resolved now is no error: it is tried
// again.
func (r *Registry) Set(ctx context.Context, targets []*policy.Target, others []string) error {
	var hosts []host
	names := map[string]addresses{}
	for _, t := range targets {
		for _, text := range t.Spec.Hosts {
			parsed, err := policy.ParseHost(text)
			if err != nil {
				return fmt.Errorf("target %s: %w", t.Metadata.Name, err)
			}
			hosts = append(hosts, host{parsed, t})
			if parsed.Name != "" {
				names[parsed.Name] = addresses{}
			}
		}
	}
	for _, name := range others {
		names[canonical(name)] = addresses{}
	}
	r.mu.Lock()
	for name := range names {
		if known, ok := r.names[name]; ok {
			names[name] = known
		}
	}
	r.hosts, r.names = hosts, names
	r.mu.Unlock()
	r.resolve(ctx, func(string) bool { return true })
	return nil
}

// Ports returns the ports that targets listen on, with the protocol each one
// speaks. A port of two protocols is an error, since a refused client could
// not be told so in its own.
func Ports(targets []*policy.Target) (map[uint16]string, error) {
	ports := map[uint16]string{}
	for _, t := range targets {
		for _, text := range t.Spec.Hosts {
			h, err := policy.ParseHost(text)
			if err != nil {
				return nil, fmt.Errorf("target %s: %w", t.Metadata.Name, err)
			}
			if protocol, ok := ports[h.Port]; ok && protocol != t.Spec.Protocol {
				return nil, fmt.Errorf("target %s: port %d speaks %s at another target and %s here",
					t.Metadata.Name, h.Port, protocol, t.Spec.Protocol)
			}
			ports[h.Port] = t.Spec.Protocol
		}
	}
	return ports, nil
}

// Run resolves names again and again until ctx is done.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(r.opts.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.resolve(ctx, func(string) bool { return true })
		}
	}
}

// Asker is who opened the connection that [Registry.Find] is asked about.
type Asker struct {
	// ServerName is what the client asked for in its TLS handshake, or "".
	ServerName string
	// Workload is whose lookups count; see [Registry.Learn].
	Workload uint64
}

// Find returns the target of a true destination. Where several targets share
// one address and port, the client's TLS server name decides, else what its workload
// resolved last. Neither ever adds a target that the address does not belong to.
func (r *Registry) Find(ctx context.Context, destination netip.AddrPort, asker Asker) (Match, error) {
	destination = netip.AddrPortFrom(destination.Addr().Unmap(), destination.Port())
	found, names := r.lookUp(destination)
	if len(found) == 0 && len(names) > 0 {
		// The client may have been told an address that is newer than ours.
		r.resolve(ctx, func(name string) bool { return slices.Contains(names, name) })
		found, _ = r.lookUp(destination)
	}
	return choose(found, destination, canonical(asker.ServerName), r.askedLast(asker.Workload, destination.Addr()))
}

// lookUp returns the hosts that a destination belongs to, and the names of all that have
// its port.
func (r *Registry) lookUp(destination netip.AddrPort) (found []host, names []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, h := range r.hosts {
		if h.Port != destination.Port() {
			continue
		}
		if h.Name == "" {
			if h.Prefix.Contains(destination.Addr()) {
				found = append(found, h)
			}
			continue
		}
		names = append(names, h.Name)
		if _, ok := r.names[h.Name][destination.Addr()]; ok {
			found = append(found, h)
		}
	}
	return found, names
}

// choose picks the most precise of the hosts: the name the client asked for, in its
// handshake or before it, else a single target among names and addresses, else the
// longest prefix.
func choose(found []host, destination netip.AddrPort, serverName, resolved string) (Match, error) {
	if len(found) == 0 {
		return Match{}, fmt.Errorf("%w: no target document has %s among its hosts", ErrNone, destination)
	}
	for _, name := range []string{serverName, resolved} {
		for _, h := range found {
			if h.Name != "" && h.Name == name {
				return Match{Target: h.target, Host: h.Name}, nil
			}
		}
	}
	bits := func(h host) int {
		if h.Name != "" {
			return destination.Addr().BitLen()
		}
		return h.Prefix.Bits()
	}
	best := slices.MaxFunc(found, func(a, b host) int { return bits(a) - bits(b) })
	rivals := slices.DeleteFunc(slices.Clone(found), func(h host) bool {
		return h.target == best.target || bits(h) < bits(best)
	})
	if len(rivals) > 0 {
		return Match{}, fmt.Errorf("%w: %s belongs to %s and to %s, and neither the client's TLS server name %q nor what it resolved tells them apart",
			ErrAmbiguous, destination, best.target.Metadata.Name, rivals[0].target.Metadata.Name, serverName)
	}
	match := Match{Target: best.target, Host: best.Name}
	if best.Name == "" {
		match.Host = destination.Addr().String()
		if serverName != "" && best.Prefix.Bits() < destination.Addr().BitLen() {
			match.Host = serverName
		}
	}
	return match, nil
}

func canonical(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

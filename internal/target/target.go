// Package target knows where targets are: it resolves the host names of
// Target documents and answers which target a destination belongs to. It
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
	// Every is how often names are resolved again; 0 means 30 s.
	Every time.Duration
	Log   zerolog.Logger
}

// keep is how long an address stays a name's after an answer no longer holds
// it: clients cache answers too, and use what they were told.
const keep = 10 * time.Minute

// resolveTimeout bounds one round of resolving.
const resolveTimeout = 5 * time.Second

// Registry answers which target a destination belongs to. Its methods may be
// called from any goroutine.
type Registry struct {
	opts Options

	mu    sync.RWMutex
	hosts []host
	names map[string]map[netip.Addr]time.Time // name → address → when it was last in an answer
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
	if opts.Every == 0 {
		opts.Every = 30 * time.Second
	}
	return &Registry{opts: opts, names: map[string]map[netip.Addr]time.Time{}}
}

// Set replaces the targets, and resolves their names. A name that can't be
// resolved now is no error: it is tried again.
func (r *Registry) Set(ctx context.Context, targets []*policy.Target) error {
	var hosts []host
	for _, t := range targets {
		for _, text := range t.Spec.Hosts {
			parsed, err := policy.ParseHost(text)
			if err != nil {
				return fmt.Errorf("target %s: %w", t.Metadata.Name, err)
			}
			hosts = append(hosts, host{parsed, t})
		}
	}
	r.mu.Lock()
	r.hosts = hosts
	r.mu.Unlock()
	r.resolve(ctx, func(host) bool { return true })
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
			r.resolve(ctx, func(host) bool { return true })
		}
	}
}

// Find returns the target of a true destination. serverName is what the
// client asked for in its TLS handshake, or "": it decides where several
// targets share one address and port, and never adds a target that the
// address does not belong to.
func (r *Registry) Find(ctx context.Context, destination netip.AddrPort, serverName string) (Match, error) {
	destination = netip.AddrPortFrom(destination.Addr().Unmap(), destination.Port())
	found := r.lookUp(destination)
	if len(found) == 0 {
		// The client may have been told an address that is newer than ours.
		r.resolve(ctx, func(h host) bool { return h.Port == destination.Port() })
		found = r.lookUp(destination)
	}
	return choose(found, destination, canonical(serverName))
}

func (r *Registry) lookUp(destination netip.AddrPort) []host {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var found []host
	for _, h := range r.hosts {
		if h.Port != destination.Port() {
			continue
		}
		if h.Name == "" {
			if h.Prefix.Contains(destination.Addr()) {
				found = append(found, h)
			}
		} else if _, ok := r.names[h.Name][destination.Addr()]; ok {
			found = append(found, h)
		}
	}
	return found
}

// choose picks the most precise of the hosts: the name the client asked for,
// else a single target among names and addresses, else the longest prefix.
func choose(found []host, destination netip.AddrPort, serverName string) (Match, error) {
	if len(found) == 0 {
		return Match{}, fmt.Errorf("%w: no target document has %s among its hosts", ErrNone, destination)
	}
	for _, h := range found {
		if h.Name != "" && h.Name == serverName {
			return Match{Target: h.target, Host: h.Name}, nil
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
		return Match{}, fmt.Errorf("%w: %s belongs to %s and to %s, and the client's TLS server name %q tells them not apart",
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

// resolve asks for the names of the hosts that want chooses, all at once.
func (r *Registry) resolve(ctx context.Context, want func(host) bool) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	r.mu.RLock()
	names := map[string]bool{}
	for _, h := range r.hosts {
		if h.Name != "" && want(h) {
			names[h.Name] = true
		}
	}
	r.mu.RUnlock()

	var asking sync.WaitGroup
	slots := make(chan struct{}, 16)
	for name := range names {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			addrs, err := r.opts.Resolver.LookupNetIP(ctx, "ip", name)
			if err != nil {
				r.opts.Log.Warn().Err(err).Str("name", name).Msg("target's name can't be resolved; its last addresses stay")
				return
			}
			r.remember(name, addrs)
		})
	}
	asking.Wait()
}

func (r *Registry) remember(name string, addrs []netip.Addr) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.names[name]
	if known == nil {
		known = map[netip.Addr]time.Time{}
		r.names[name] = known
	}
	for _, addr := range addrs {
		known[addr.Unmap().WithZone("")] = now
	}
	for addr, seen := range known {
		if now.Sub(seen) > keep {
			delete(known, addr)
		}
	}
}

func canonical(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

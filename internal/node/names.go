package node

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/resolver"
	"chaperone.dev/chaperone/internal/target"
	"chaperone.dev/chaperone/pkg/policy"
)

// names keeps what the kernel knows of addresses true to what names stand for: which
// addresses are targets', and which each egress profile allows. It is also
// what the resolver asks and tells.
type names struct {
	node *node

	// mu is held from reading the registry to writing the kernel's maps, lest an
	// address that was learnt meanwhile be taken away again.
	mu  sync.Mutex
	set *policy.Set // whose egress is in force
}

// openNames makes the registry of targets, and the resolver that answers planners.
func (n *node) openNames() (err error) {
	var servers []netip.AddrPort
	for _, text := range n.spec.DNS.Servers {
		server, err := policy.ParseServer(text)
		if err != nil {
			return fmt.Errorf("DNS server %q: %w", text, err)
		}
		servers = append(servers, server)
	}
	n.names = &names{node: n}
	n.resolver, err = resolver.New(resolver.Options{Watcher: n.names, Servers: servers, Log: n.log})
	if err != nil {
		return err
	}
	n.targets = target.New(target.Options{
		Search: n.resolver.SearchDomains,
		Changed: func() {
			if err := n.names.refresh(nil); err != nil {
				n.log.Error().Err(err).Msg("the kernel can't be told of names' new addresses; those of before stay in force")
			}
		},
		Log: n.log,
	})
	return nil
}

// Admit implements [resolver.Watcher]: a job that may go to listed destinations
// only has no use for other names, but as a way out by themselves.
func (s *names) Admit(workload uint64, name string) bool {
	job, ok := s.node.jobs().ByCgroup(workload)
	if !ok {
		return false
	}
	document := s.node.documents.Load().Workload(job.Workload)
	if document == nil {
		return false
	}
	if !document.Spec.Egress.Restricts() {
		return true
	}
	allowed := namesOf(document)
	return slices.ContainsFunc(s.node.targets.Wanted(name), func(wanted string) bool {
		return s.node.targets.IsTarget(wanted) || slices.Contains(allowed, wanted)
	})
}

// Learned implements [resolver.Watcher].
func (s *names) Learned(_ context.Context, workload uint64, name string, addrs []netip.Addr, _ time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node.released.Load() {
		return errors.New("another daemon has taken over, and is to be asked")
	}
	if s.set == nil {
		return errors.New("nothing is in force yet")
	}
	about, ok := s.node.targets.Learn(workload, name, addrs)
	if !ok {
		return fmt.Errorf("%s has more addresses than can be kept", name)
	}
	for _, wanted := range about {
		if s.node.targets.IsTarget(wanted) {
			if err := s.node.interceptor.ProtectAlso(addrs); err != nil {
				return err
			}
		}
		for _, document := range s.set.Workloads {
			if err := s.node.interceptor.Allow(profileOf(document), destinations(document, wanted, addrs)); err != nil {
				return err
			}
		}
	}
	return nil
}

// refresh tells the kernel all that a set says of addresses; nil is the one of before.
func (s *names) refresh(set *policy.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node.released.Load() {
		return nil
	}
	if set == nil {
		set = s.set
	}
	if set == nil {
		return nil // the first one is on its way
	}
	s.set = set
	if err := s.node.interceptor.Protect(s.node.targets.Known()); err != nil {
		return err
	}
	profiles := map[uint32][]intercept.Destination{}
	hold := false
	for _, document := range set.Workloads {
		profile := profileOf(document)
		if profile == 0 {
			continue
		}
		// Who is started by somebody else might run before it is known.
		hold = hold || document.Spec.Select.Run == nil
		profiles[profile] = append(profiles[profile], destinations(document, "", nil)...)
		for _, name := range namesOf(document) {
			profiles[profile] = append(profiles[profile], destinations(document, name, s.node.targets.Addresses(name))...)
		}
	}
	return s.node.interceptor.Egress(profiles, hold)
}

// profileOf is the number of a Workload's egress profile in the kernel; 0 is none. It
// is the same in each run of the daemon, since cgroups stay enrolled with it.
func profileOf(document *policy.Workload) uint32 {
	if document == nil || !document.Spec.Egress.Restricts() {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(document.Metadata.Name))
	return max(h.Sum32(), 1)
}

// checkProfiles refuses two documents whose names come to the same number.
func checkProfiles(set *policy.Set) error {
	owners := map[uint32]string{}
	for _, document := range set.Workloads {
		profile := profileOf(document)
		if owner, taken := owners[profile]; taken && profile != 0 {
			return fmt.Errorf("workloads %s and %s can't both restrict egress, for their names have one hash: rename one", owner, document.Metadata.Name)
		}
		owners[profile] = document.Metadata.Name
	}
	return nil
}

// namesOf are the host names that a Workload's egress allows.
func namesOf(document *policy.Workload) []string {
	var found []string
	if document.Spec.Egress.Restricts() {
		for _, text := range document.Spec.Egress.Allow {
			if h, err := policy.ParseHost(text); err == nil && h.Name != "" {
				found = append(found, h.Name)
			}
		}
	}
	return found
}

// destinations are what a Workload's egress allows of a name, at its addresses, or,
// with an empty name, of what it lists by address.
func destinations(document *policy.Workload, name string, addrs []netip.Addr) []intercept.Destination {
	var found []intercept.Destination
	if !document.Spec.Egress.Restricts() {
		return nil
	}
	for _, text := range document.Spec.Egress.Allow {
		h, err := policy.ParseHost(text)
		if err != nil || h.Name != name {
			continue
		}
		if h.Name == "" {
			found = append(found, intercept.Destination{Prefix: h.Prefix, Port: h.Port})
			continue
		}
		for _, addr := range addrs {
			addr = addr.Unmap().WithZone("")
			found = append(found, intercept.Destination{Prefix: netip.PrefixFrom(addr, addr.BitLen()), Port: h.Port})
		}
	}
	return found
}

package target

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// keep is how long an address stays a name's after an answer no longer holds
// it: clients cache answers too, and use what they were told.
const keep = 10 * time.Minute

// resolveTimeout bounds one round of resolving.
const resolveTimeout = 5 * time.Second

// maxAddresses bounds the addresses of one name, against a zone that answers each
// query by another one. Who asks is told no more than are known.
const maxAddresses = 1024

// addresses are those of a name, with the time when each was last in an answer.
type addresses map[netip.Addr]time.Time

// Learn is told of addresses that a workload is about to learn for a name from the
// node's own resolvers. It returns the wanted names that this is about, which are
// none for most. ok is false when a name has too many addresses to know them all.
func (r *Registry) Learn(workload uint64, name string, addrs []netip.Addr) (about []string, ok bool) {
	about = r.Wanted(name)
	if len(about) == 0 {
		return nil, true
	}
	ok = true
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, wanted := range about {
		known, still := r.names[wanted]
		if !still {
			continue
		}
		ok = known.add(addrs) && ok
	}
	if !ok {
		return about, false
	}
	asked := r.asked[workload]
	if asked == nil {
		asked = newLookups()
		r.asked[workload] = asked
	}
	for _, addr := range addrs {
		asked.add(addr.Unmap().WithZone(""), about[0])
	}
	return about, true
}

// Forget forgets what a workload has resolved.
func (r *Registry) Forget(workload uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.asked, workload)
}

// Wanted returns the names of [Registry.Set] that an absolute name is a form of: itself,
// and what the node's search domains make it of.
func (r *Registry) Wanted(name string) []string {
	name = canonical(name)
	forms := []string{name}
	for _, domain := range r.opts.Search() {
		if relative, ok := strings.CutSuffix(name, "."+canonical(domain)); ok && relative != "" {
			forms = append(forms, relative)
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	var found []string
	for _, form := range forms {
		if _, ok := r.names[form]; ok {
			found = append(found, form)
		}
	}
	return found
}

// Addresses returns those of a name that is wanted.
func (r *Registry) Addresses(name string) []netip.Addr {
	r.mu.RLock()
	defer r.mu.RUnlock()
	known := r.names[canonical(name)]
	list := make([]netip.Addr, 0, len(known))
	for addr := range known {
		list = append(list, addr)
	}
	return list
}

// Known returns all addresses that are known to be a target's: those of its names, and those
// that its document lists singly.
func (r *Registry) Known() []netip.Addr {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := map[netip.Addr]bool{}
	for _, h := range r.hosts {
		if h.Name == "" && h.Prefix.IsSingleIP() {
			all[h.Prefix.Addr()] = true
		}
		for addr := range r.names[h.Name] {
			all[addr] = true
		}
	}
	list := make([]netip.Addr, 0, len(all))
	for addr := range all {
		if !addr.IsUnspecified() {
			list = append(list, addr)
		}
	}
	return list
}

// IsTarget tells whether a wanted name is a target's.
func (r *Registry) IsTarget(name string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, h := range r.hosts {
		if h.Name == name {
			return true
		}
	}
	return false
}

// resolve asks for the wanted names that want chooses, all at once.
func (r *Registry) resolve(ctx context.Context, want func(name string) bool) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	r.resolving.Lock()
	defer r.resolving.Unlock()
	r.mu.RLock()
	var names []string
	for name := range r.names {
		if want(name) {
			names = append(names, name)
		}
	}
	r.mu.RUnlock()

	var asking sync.WaitGroup
	slots := make(chan struct{}, 16)
	news := make(chan bool, len(names))
	for _, name := range names {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			addrs, err := r.opts.Resolver.LookupNetIP(ctx, "ip", name)
			if err != nil {
				r.opts.Log.Warn().Err(err).Str("name", name).Msg("a name of the documents can't be resolved; its last addresses stay")
				return
			}
			news <- r.remember(name, addrs)
		})
	}
	asking.Wait()
	close(news)
	changed := false
	for one := range news {
		changed = changed || one
	}
	if changed && r.opts.Changed != nil {
		r.opts.Changed()
	}
}

// remember tells whether the name's addresses are others than before.
func (r *Registry) remember(name string, addrs []netip.Addr) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.names[name]
	if !ok {
		return false // no longer wanted
	}
	before := len(known)
	known.add(addrs)
	changed = len(known) != before
	for addr, seen := range known {
		if time.Since(seen) > keep {
			delete(known, addr)
			changed = true
		}
	}
	return changed
}

// add takes up addresses, and tells whether there was room for all.
func (a addresses) add(addrs []netip.Addr) bool {
	now := time.Now()
	all := true
	for _, addr := range addrs {
		addr = addr.Unmap().WithZone("")
		if _, known := a[addr]; !known && len(a) >= maxAddresses {
			all = false
			continue
		}
		a[addr] = now
	}
	return all
}

// maxLookups bounds what is kept of a workload's lookups of wanted names.
const maxLookups = 4096

// lookups are the names by which a workload last asked for each address.
type lookups struct {
	names map[netip.Addr]string
	order []netip.Addr // the oldest first
}

func newLookups() *lookups { return &lookups{names: map[netip.Addr]string{}} }

func (l *lookups) add(addr netip.Addr, name string) {
	if _, known := l.names[addr]; !known {
		if len(l.order) >= maxLookups {
			delete(l.names, l.order[0])
			l.order = append(l.order[:0], l.order[1:]...)
		}
		l.order = append(l.order, addr)
	}
	l.names[addr] = name
}

// askedLast is the wanted name by which a workload last learnt of an address, or "".
func (r *Registry) askedLast(workload uint64, addr netip.Addr) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if asked := r.asked[workload]; asked != nil {
		return asked.names[addr]
	}
	return ""
}

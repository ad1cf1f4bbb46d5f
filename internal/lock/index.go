package lock

import "slices"

// index finds the locks on a connection without looking at all of them. It never
// changes.
type index struct {
	session, principal, workload, target map[string][]Lock
}

// publish makes the index of what is in force. mu is held.
func (k *Keeper) publish() {
	x := &index{map[string][]Lock{}, map[string][]Lock{}, map[string][]Lock{}, map[string][]Lock{}}
	for _, e := range k.kept {
		l := e.entry.Lock
		// Each is below one of its fields, the one that tells most.
		switch {
		case e.entry.Released != nil:
		case l.Session != "":
			x.session[l.Session] = append(x.session[l.Session], l)
		case l.Principal != "":
			x.principal[l.Principal] = append(x.principal[l.Principal], l)
		case l.Workload != "":
			x.workload[l.Workload] = append(x.workload[l.Workload], l)
		default:
			x.target[l.Target] = append(x.target[l.Target], l)
		}
	}
	k.index.Store(x)
}

func (x *index) match(f Facts) (Lock, bool) {
	if l, ok := first(x.session, f.Session, f); ok {
		return l, true
	}
	if l, ok := first(x.principal, f.Principal, f); ok {
		return l, true
	}
	for _, name := range f.Workload {
		if l, ok := first(x.workload, name, f); ok {
			return l, true
		}
	}
	return first(x.target, f.Target, f)
}

func first(locks map[string][]Lock, key string, f Facts) (Lock, bool) {
	if key == "" {
		return Lock{}, false
	}
	for _, l := range locks[key] {
		if l.Matches(f) {
			return l, true
		}
	}
	return Lock{}, false
}

// Matches tells whether all that the lock gives is the connection's, or session's.
func (l Lock) Matches(f Facts) bool {
	return (l.Principal == "" || l.Principal == f.Principal) &&
		(l.Workload == "" || slices.Contains(f.Workload, l.Workload)) &&
		(l.Target == "" || l.Target == f.Target) &&
		(l.Session == "" || l.Session == f.Session)
}

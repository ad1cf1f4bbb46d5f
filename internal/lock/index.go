package lock

import (
	"slices"
	"sync"
)

// index finds the locks on a connection without looking at all of them. Each is
// below one of its fields, the one that tells most.
type index struct {
	mu                                   sync.RWMutex
	session, principal, workload, target map[string][]Lock
}

func newIndex() *index {
	return &index{session: map[string][]Lock{}, principal: map[string][]Lock{}, workload: map[string][]Lock{}, target: map[string][]Lock{}}
}

func (x *index) place(l Lock) (map[string][]Lock, string) {
	switch {
	case l.Session != "":
		return x.session, l.Session
	case l.Principal != "":
		return x.principal, l.Principal
	case l.Workload != "":
		return x.workload, l.Workload
	}
	return x.target, l.Target
}

func (x *index) add(l Lock) {
	x.mu.Lock()
	defer x.mu.Unlock()
	locks, key := x.place(l)
	locks[key] = append(locks[key], l)
}

func (x *index) remove(l Lock) {
	x.mu.Lock()
	defer x.mu.Unlock()
	locks, key := x.place(l)
	locks[key] = slices.DeleteFunc(locks[key], func(o Lock) bool { return o.ID == l.ID })
	if len(locks[key]) == 0 {
		delete(locks, key)
	}
}

func (x *index) match(f Facts) (Lock, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
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

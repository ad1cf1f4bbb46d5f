package credential

import (
	"context"
	"slices"
	"sync"
)

// Fresh returns what a connection that is opened at the moment proves itself by. It
// differs from Secret where that is good for minutes, or kept by somebody else.
func (g *Grant) Fresh() (Secret, error) {
	of := g.grant
	of.refreshing.Lock()
	defer of.refreshing.Unlock()
	refresher, ok := of.issuer.(Refresher)
	if !ok {
		return of.secret, nil
	}
	if of.alive.Err() != nil {
		return Secret{}, context.Cause(of.alive)
	}
	g.manager.mu.Lock()
	deadline := of.deadline
	g.manager.mu.Unlock()
	secret, err := refresher.Refresh(of.order, deadline, of.secret)
	if err == nil {
		of.secret = secret
	}
	return secret, err
}

// Opened notes a session that was opened at the target, so that it can be ended
// there with the grant. What it returns is called at the session's end; gone says
// that the client ended it, and the server is sure to.
func (g *Grant) Opened(b Backend) (ended func(gone bool)) {
	g.grant.sessions.add(b)
	return func(gone bool) {
		if gone {
			g.grant.sessions.remove(b)
		}
	}
}

// maxBackends bounds the sessions that are remembered of a grant: all that are open,
// as good as always, and the latest that were cut off.
const maxBackends = 4096

// sessions are those at the target that may go on. The zero value is empty.
type sessions struct {
	mu  sync.Mutex
	all []Backend // oldest first
}

func (s *sessions) add(b Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == maxBackends {
		s.all = slices.Delete(s.all, 0, 1)
	}
	s.all = append(s.all, b)
}

func (s *sessions) remove(b Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.all, b); i >= 0 {
		s.all = slices.Delete(s.all, i, i+1)
	}
}

func (s *sessions) left() []Backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

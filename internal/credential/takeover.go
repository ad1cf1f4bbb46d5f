package credential

import (
	"context"
	"fmt"
)

// Suspend lets another process have the ledger, and what it lists: nothing is issued,
// renewed or revoked here any more, and the accounts live on. It waits, until ctx
// ends, for what is under way. Close then revokes nothing; Resume undoes Suspend,
// which a failed one needs too.
func (m *Manager) Suspend(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	m.suspended = true
	var making []*grant
	for _, g := range m.grants {
		making = append(making, g)
	}
	m.mu.Unlock()
	for _, g := range making {
		select {
		case <-g.ready:
		case <-ctx.Done():
			return fmt.Errorf("a credential for target %s is being made: %w", g.key.target, ctx.Err())
		}
	}
	if err := m.revoker.pause(ctx); err != nil {
		return err
	}
	m.using.Lock()
	defer m.using.Unlock()
	if m.resumed == nil {
		m.resumed = make(chan struct{})
	}
	return m.ledger.Close()
}

// Resume opens the ledger again, after the other process has let go of it, and goes
// on. Grants that are still known are good as before.
func (m *Manager) Resume() error {
	m.using.Lock()
	defer m.using.Unlock()
	if m.resumed != nil { // else to suspend has failed, and the ledger is open
		ledger, err := OpenLedger(m.options.LedgerFile)
		if err != nil {
			return err
		}
		m.ledger = ledger
		close(m.resumed)
		m.resumed = nil
	}
	m.revoker.resume(m.ledger)
	m.mu.Lock()
	m.suspended = false
	m.mu.Unlock()
	return nil
}

// Inherit goes on with what another process has left in the ledger on purpose: the
// accounts of jobs that live are renewed, and revoked at their jobs' end, for that
// process's sessions. A new request gets an account of its own, for nobody knows the
// secrets of the others. What is of no living job is left to
// [Manager.Recover], which must be called afterwards.
func (m *Manager) Inherit(lives func(job string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var left []Entry
	for _, e := range m.left {
		issuer, ok := m.issuers[e.Kind]
		if !ok || e.State != StateIssued || e.TTL <= 0 || !lives(e.Job) {
			left = append(left, e)
			continue
		}
		g := newGrant(m.life, key{e.Job, e.Target}, "", e.Deadline, Order{})
		g.entry, g.ttl, g.expires = e, e.TTL, e.Expires
		close(g.ready)
		m.inherited[g] = struct{}{}
		m.keeper.Go(func() {
			defer close(g.over)
			m.renew(g, issuer)
			m.revoke(g, g.entry)
		})
	}
	m.left = left
}

// InheritedJobs are the jobs that [Manager.Inherit] has found an account of and that have not
// ended since.
func (m *Manager) InheritedJobs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[string]bool{}
	var jobs []string
	for g := range m.inherited {
		if !seen[g.key.job] {
			seen[g.key.job] = true
			jobs = append(jobs, g.key.job)
		}
	}
	return jobs
}

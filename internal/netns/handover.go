package netns

import (
	"context"
	"fmt"
	"net"
	"time"

	"chaperone.dev/chaperone/internal/intercept"
)

// Handover is what one process gives another of a network namespace: its listeners, or, if
// Workload is not 0, the sockets of that workload's datagrams.
type Handover struct {
	Namespace  ID
	Listeners  []*net.TCPListener
	Workload   uint64
	Cgroup     string // of the workload
	Interfaces []int  // that are guarded for it
	Datagrams  []*net.UDPConn
}

// inherit serves what another process has handed over.
func (k *Keeper) inherit(from []Handover) error {
	for n, h := range from {
		if h.Workload != 0 {
			continue
		}
		for _, l := range h.Listeners {
			if err := k.opts.Sockets.Inherit(l); err != nil {
				closeAll(from[n:])
				return fmt.Errorf("namespace %s: %w", h.Namespace, err)
			}
		}
		k.serve(h.Namespace, h.Listeners)
	}
	for n, h := range from {
		if h.Workload == 0 {
			continue
		}
		s := k.spaces[h.Namespace]
		if s == nil {
			closeAll(from[n:])
			return fmt.Errorf("namespace %s: %w: its listeners are missing", h.Namespace, intercept.ErrInherited)
		}
		datagrams, err := k.opts.Sockets.InheritDatagrams(h.Workload, h.Datagrams)
		if err != nil {
			closeAll(from[n:])
			return err
		}
		t := &tenant{datagrams: datagrams, interfaces: h.Interfaces, cgroup: h.Cgroup, since: time.Now(), inherited: true}
		s.tenants[h.Workload] = t
		k.answer(t, h.Workload)
	}
	return nil
}

// closeAll closes sockets that nobody owns yet; those that somebody does are closed
// twice.
func closeAll(sockets []Handover) {
	for _, h := range sockets {
		h.Close()
	}
}

// Close closes the sockets.
func (h Handover) Close() {
	for _, l := range h.Listeners {
		_ = l.Close()
	}
	for _, conn := range h.Datagrams {
		_ = conn.Close()
	}
}

// guardAgain puts this process's programs where an earlier one's guard a tenant's way out.
func (k *Keeper) guardAgain(s *space, t *tenant, ns intercept.Namespace, workload uint64) error {
	if !t.inherited {
		return nil
	}
	interfaces, err := k.opts.Sockets.GuardPlanner(ns, whose(s, workload))
	if err != nil {
		return err
	}
	t.interfaces, t.inherited = interfaces, false
	return nil
}

// Pause stops accepting connections and answering datagrams. Those that come wait;
// connections that were accepted go on.
func (k *Keeper) Pause() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.paused = true
	for _, s := range k.spaces {
		for _, g := range s.listeners {
			g.shut()
		}
		for _, t := range s.tenants {
			if t.stop != nil {
				t.stop()
				t.answering.Wait()
				t.stop = nil
			}
		}
	}
}

// Resume ends a pause.
func (k *Keeper) Resume() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || !k.paused {
		return
	}
	k.paused = false
	for _, s := range k.spaces {
		for _, g := range s.listeners {
			g.open()
		}
		for workload, t := range s.tenants {
			for _, conn := range t.datagrams.Conns {
				_ = conn.SetDeadline(time.Time{}) // its server's end has set one
			}
			k.answer(t, workload)
		}
	}
}

// Sockets are what another process can be given. They stay the keeper's, and good as long
// as it is paused.
func (k *Keeper) Sockets() []Handover {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Handover
	for id, s := range k.spaces {
		h := Handover{Namespace: id}
		for _, g := range s.listeners {
			h.Listeners = append(h.Listeners, g.TCPListener)
		}
		all = append(all, h)
		for workload, t := range s.tenants {
			all = append(all, Handover{
				Namespace: id, Workload: workload, Cgroup: t.cgroup, Interfaces: t.interfaces, Datagrams: t.datagrams.Conns,
			})
		}
	}
	return all
}

// Drain closes this process's sockets for good, whose diversion stays in force for
// another process that has them too, and waits until all accepted connections have
// ended. When ctx is done first, they are ended.
func (k *Keeper) Drain(ctx context.Context) error {
	k.mu.Lock()
	err := k.abandon()
	k.mu.Unlock()
	ended := make(chan struct{})
	go func() { k.serving.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	k.stop()
	<-ended
	return err
}

// abandon closes all sockets and changes nothing in the kernel.
func (k *Keeper) abandon() error { return k.closeSockets((*intercept.Datagrams).Abandon) }

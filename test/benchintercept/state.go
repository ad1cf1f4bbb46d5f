package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"chaperone.dev/chaperone/internal/intercept"
)

// state is how much the programs have to look through.
type state struct {
	large bool // as many planners, targets and addresses as options say
	rules bool // some planner has a profile, so that every connection is looked at
}

// The four of them, in an order that differs from round to round.
func states(round int) []state {
	all := []state{{}, {rules: true}, {large: true, rules: true}, {large: true}}
	return append(all[round%4:], all[:round%4]...)
}

// enforce puts a state in force.
func (w *world) enforce(s state) error {
	if err := w.enrol(s.large); err != nil {
		return err
	}
	captures := w.captures(s.large)
	addresses := make([]netip.Addr, 0, len(captures))
	for _, c := range captures {
		if c.Addr.IsValid() {
			addresses = append(addresses, c.Addr)
		}
	}
	err := w.timed(s.large && !w.state.large, len(captures), &w.costs.capture, func() error {
		if err := w.i.Capture(captures); err != nil {
			return err
		}
		return w.i.Protect(addresses)
	})
	if err != nil {
		return err
	}
	profiles := map[uint32][]intercept.Destination{}
	if s.rules {
		profiles[profile] = w.destinations(s.large)
	}
	err = w.timed(s.rules && s.large, len(profiles[profile]), &w.costs.allow, func() error { return w.i.Egress(profiles, false) })
	if err != nil {
		return err
	}
	w.state = s
	return nil
}

// timed calls f, and notes what it took per item if that is to be known.
func (w *world) timed(note bool, items int, into *series, f func() error) error {
	started := time.Now()
	err := f()
	if note && items > 1 {
		*into = append(*into, float64(time.Since(started))/float64(items))
	}
	return err
}

// enrol makes the crowd planners, or nobody's.
func (w *world) enrol(large bool) error {
	if !large {
		for _, id := range w.crowdIDs {
			if err := w.i.Withdraw(id); err != nil {
				return err
			}
		}
		w.crowdIDs = nil
		return nil
	}
	if len(w.crowdIDs) > 0 {
		return nil
	}
	if err := w.gather(); err != nil {
		return err
	}
	return w.timed(true, len(w.crowd), &w.costs.enrol, func() error {
		for _, path := range w.crowd {
			id, err := w.i.Enroll(path)
			if err != nil {
				return err
			}
			w.crowdIDs = append(w.crowdIDs, id)
		}
		return nil
	})
}

// gather makes the cgroups of the crowd, once.
func (w *world) gather() error {
	if w.crowd != nil {
		return nil
	}
	started := time.Now()
	for n := range w.o.many {
		path := filepath.Join(w.i.Ancestor(), "jobs", fmt.Sprintf("crowd-%d", n))
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		w.crowd = append(w.crowd, path)
	}
	w.costs.cgroups = series{float64(time.Since(started)) / float64(w.o.many)}
	return nil
}

// captures are what the node's daemon would capture: the target, its port on any
// address, DNS, and, in the large world, other targets.
func (w *world) captures(large bool) []intercept.Capture {
	set := []intercept.Capture{
		{Addr: netip.MustParseAddr(targetHost), Port: targetPort, Action: intercept.Redirect, Protocol: 1, Target: 1},
		{Port: targetPort, Action: intercept.Redirect, Protocol: 1},
		{Port: dnsPort, Action: intercept.Redirect, Protocol: 2, Datagrams: true},
	}
	if large {
		for n := range w.o.many - 1 {
			set = append(set, intercept.Capture{
				Addr: crowdAddress(78, n), Port: targetPort, Action: intercept.Redirect, Protocol: 1, Target: uint32(n + 2),
			})
		}
	}
	return set
}

// destinations are what the profile allows.
func (w *world) destinations(large bool) []intercept.Destination {
	set := []intercept.Destination{{Prefix: netip.PrefixFrom(netip.MustParseAddr(otherHost), 32), Port: otherPort}}
	if large {
		for n := range w.o.many - 1 {
			set = append(set, intercept.Destination{Prefix: netip.PrefixFrom(crowdAddress(79, n), 32), Port: otherPort})
		}
	}
	return set
}

// crowdAddress is the n-th of those that are nobody's, spread over 10.net.0.0/16.
func crowdAddress(net byte, n int) netip.Addr {
	n = n * 40503 % (1 << 16) // odd, so no two are alike
	return netip.AddrFrom4([4]byte{10, net, byte(n >> 8), byte(n)})
}

package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const clockName = "clock"

// What clocks may differ by. Tokens are given half a minute (internal/identity).
const (
	offsetNoted   = 5 * time.Second
	offsetAllowed = 30 * time.Second
)

// clocks are the times that others told.
type clocks struct {
	mu      sync.Mutex
	offsets []offset
}

type offset struct {
	from string
	ours time.Duration // how far ours is ahead, to the second
}

// tell notes what time it was elsewhere between two moments of ours. Others
// tell whole seconds, which were cut.
func (c *clocks) tell(from string, theirs, sent, received time.Time) {
	if theirs.IsZero() {
		return
	}
	var ours time.Duration
	switch last := theirs.Add(time.Second); {
	case sent.After(last):
		ours = sent.Sub(last)
	case received.Before(theirs):
		ours = received.Sub(theirs)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offsets = append(c.offsets, offset{from, ours})
}

// worst is the largest offset.
func (c *clocks) worst() (offset, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var worst offset
	for _, o := range c.offsets {
		if worst.from == "" || o.ours.Abs() > worst.ours.Abs() {
			worst = o
		}
	}
	return worst, worst.from != ""
}

func checkClock(_ context.Context, s *subject) Result {
	var t unix.Timex // no modes: it is only read
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return unseen("whether the clock is synchronised", err)
	}
	worst, compared := s.clocks.worst()
	return clockResult(worst, compared, state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0)
}

func clockResult(worst offset, compared, synchronised bool) Result {
	const do = "run chronyd, ntpd or systemd-timesyncd"
	found := "no other clock was reached"
	if compared {
		found = fmt.Sprintf("%s from that of %s", worst.ours.Abs().Round(time.Second), worst.from)
	}
	switch {
	case worst.ours.Abs() > offsetAllowed:
		return fail(found, "tokens are refused, and records have the wrong time", do)
	case !synchronised:
		return warn(found, "the kernel's clock is not synchronised", do)
	case worst.ours.Abs() > offsetNoted:
		return warn(found, "synchronised, and yet off", do+", with the sources that the others have")
	}
	return ok("synchronised; " + found)
}

// Package clock tells what time it is to those whose answer depends on it, in a way
// that setting the machine's clock can't make more permissive.
//
// A permission (a token, an approval, a credential) is over when [Clock.Latest] says
// so, and a prohibition (a lock) when [Clock.Earliest] does. The two are the wall clock
// as long as nobody sets it; otherwise one of them goes on as if nobody had, for as long
// as the process runs. A process that starts believes the wall clock, so after a clock
// was put right, a restart of the daemon is what makes both agree again.
//
// It knows nothing of what expires.
package clock

import "time"

// Tolerance is by how much the wall clock may differ from the time that has passed
// before [Clock.Moved] says that it was set. It is more than a leap second, which a kernel
// inserts by setting the clock back by one, and far less than any time that a permission
// is given for. Slewing, as time services do, is no difference at all: it speeds up and
// slows down both.
const Tolerance = 2 * time.Second

// Source reads the machine's clocks at one moment: the wall clock, and the time that has
// passed since some fixed moment, which nobody can set and which goes on while the machine
// is suspended.
type Source func() (wall time.Time, elapsed time.Duration)

// Options are what a clock needs. The zero value is the machine's clock.
type Options struct {
	Source Source // nil for the machine's
}

// Clock compares the wall clock with the time that has passed since it was made. Its
// methods may be called by several goroutines, and cost about as much as [time.Now].
type Clock struct {
	source  Source
	wall    time.Time     // when the clock was made
	elapsed time.Duration // at the same moment
}

// New starts a clock that believes the wall clock of this moment.
func New(opts Options) *Clock {
	c := &Clock{source: opts.Source}
	if c.source == nil {
		c.source = machine()
	}
	c.wall, c.elapsed = c.source()
	c.wall = c.wall.Round(0)
	return c
}

// Now is the wall clock, for what people read. Like all that a Clock returns it has no
// monotonic reading, so that comparing it with another compares what both say.
func (c *Clock) Now() time.Time {
	wall, _ := c.source()
	return wall.Round(0)
}

// Latest is the later of the wall clock and the time that has passed: what permissions
// expire by. Setting the clock back doesn't prolong them.
func (c *Clock) Latest() time.Time {
	wall, steady := c.read()
	if steady.After(wall) {
		return steady
	}
	return wall
}

// Earliest is the earlier of the two: what prohibitions expire by, and what something
// that is not valid yet waits for. Setting the clock forward doesn't shorten that.
func (c *Clock) Earliest() time.Time {
	wall, steady := c.read()
	if steady.Before(wall) {
		return steady
	}
	return wall
}

// Moved says by how much the wall clock was set since the clock was made, forward if
// it is more than zero, and whether that is more than [Tolerance].
func (c *Clock) Moved() (by time.Duration, moved bool) {
	wall, steady := c.read()
	by = wall.Sub(steady)
	return by, by > Tolerance || by < -Tolerance
}

// read returns the wall clock, and what it would say had nobody set it.
func (c *Clock) read() (wall, steady time.Time) {
	wall, elapsed := c.source()
	return wall.Round(0), c.wall.Add(elapsed - c.elapsed)
}

package clock

import (
	"testing"
	"time"
)

// hands are clocks that a test sets.
type hands struct {
	wall    time.Time
	elapsed time.Duration
}

func (h *hands) read() (time.Time, time.Duration) { return h.wall, h.elapsed }

func TestSettingTheClockIsNoWayToGainTime(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name             string
		passed, wall     time.Duration // since the start, by each clock
		latest, earliest time.Duration
		by               time.Duration
		moved            bool
	}{
		{"nobody set it", time.Hour, time.Hour, time.Hour, time.Hour, 0, false},
		{"set back", time.Hour, -23 * time.Hour, time.Hour, -23 * time.Hour, -24 * time.Hour, true},
		{"set forward", time.Hour, 25 * time.Hour, 25 * time.Hour, time.Hour, 24 * time.Hour, true},
		{"leap second", time.Hour, time.Hour - time.Second, time.Hour, time.Hour - time.Second, -time.Second, false},
		{"at the tolerance", time.Hour, time.Hour + Tolerance, time.Hour + Tolerance, time.Hour, Tolerance, false},
		{"above the tolerance", time.Hour, time.Hour + Tolerance + 1, time.Hour + Tolerance + 1, time.Hour, Tolerance + 1, true},
		{"before the epoch", time.Hour, -start.Sub(time.Unix(-100, 0)), time.Hour, -start.Sub(time.Unix(-100, 0)),
			-start.Sub(time.Unix(-100, 0)) - time.Hour, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := &hands{wall: start, elapsed: 77 * time.Hour}
			c := New(Options{Source: h.read})
			h.wall, h.elapsed = start.Add(test.wall), h.elapsed+test.passed
			if got := c.Now(); !got.Equal(start.Add(test.wall)) {
				t.Errorf("Now is %v", got)
			}
			if got := c.Latest().Sub(start); got != test.latest {
				t.Errorf("Latest is %v after the start, want %v", got, test.latest)
			}
			if got := c.Earliest().Sub(start); got != test.earliest {
				t.Errorf("Earliest is %v after the start, want %v", got, test.earliest)
			}
			if by, moved := c.Moved(); by != test.by || moved != test.moved {
				t.Errorf("Moved says %v, %v; want %v, %v", by, moved, test.by, test.moved)
			}
		})
	}
}

// A clock that is set back and then right again is no longer moved.
func TestClockThatIsPutRightAgain(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	h := &hands{wall: start}
	c := New(Options{Source: h.read})
	h.wall, h.elapsed = start.Add(-time.Hour), time.Minute
	if _, moved := c.Moved(); !moved {
		t.Error("set back by an hour, and not moved")
	}
	h.wall, h.elapsed = start.Add(2*time.Minute), 2*time.Minute
	if by, moved := c.Moved(); moved {
		t.Errorf("put right, and moved by %v", by)
	}
}

func TestMachineClock(t *testing.T) {
	c := New(Options{})
	before := time.Now().Round(0)
	earliest, now, latest := c.Earliest(), c.Now(), c.Latest()
	for name, got := range map[string]time.Time{"Earliest": earliest, "Now": now, "Latest": latest} {
		if d := got.Sub(before); d < -Tolerance || d > time.Minute {
			t.Errorf("%s is %v after time.Now", name, d)
		}
		if got != got.Round(0) {
			t.Errorf("%s has a monotonic reading", name)
		}
	}
	if latest.Before(earliest) {
		t.Errorf("Latest %v is before Earliest %v", latest, earliest)
	}
	if by, moved := c.Moved(); moved {
		t.Errorf("the clock moved by %v", by)
	}
}

// What was suspended counts as passed, though Go's clock stood still meanwhile.
func TestSuspensionCounts(t *testing.T) {
	s := &suspension{start: time.Now(), boot: boottime()}
	if s.boot <= 0 {
		t.Fatal("the kernel has no CLOCK_BOOTTIME")
	}
	s.boot -= time.Hour      // as if the machine had slept for an hour since
	for s.look.Load() == 0 { // until two readings lie close together
		s.read()
	}
	if got := time.Duration(s.total.Load()); got < time.Hour-time.Second || got > time.Hour {
		t.Errorf("counted %v of an hour", got)
	}
}

func TestClockAllocatesNothing(t *testing.T) {
	c := New(Options{})
	if n := testing.AllocsPerRun(100, func() { c.Latest(); c.Earliest() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLatest(b *testing.B) {
	c := New(Options{})
	for b.Loop() {
		c.Latest()
	}
}

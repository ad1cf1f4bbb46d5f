package clock

import (
	"flag"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var maySet = flag.Bool("set-clock", false, "set this machine's clock, and set it right again: for a machine of the test's own")

// Whoever sets the machine's own clock gains no time by it.
func TestMachineClockThatIsSet(t *testing.T) {
	if !*maySet {
		t.Skip("it sets the machine's clock; test/kernels runs it in a virtual machine")
	}
	c := New(Options{})
	began := time.Now() // with its monotonic reading
	set := func(by time.Duration) {
		t.Helper()
		to := unix.NsecToTimeval(began.Round(0).Add(time.Since(began) + by).UnixNano())
		if err := unix.Settimeofday(&to); err != nil {
			t.Fatal(err)
		}
	}
	defer set(0)
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour, 0} {
		set(by)
		passed := time.Since(began)
		latest, earliest, now := c.Latest().Sub(began.Round(0)), c.Earliest().Sub(began.Round(0)), c.Now().Sub(began.Round(0))
		for name, it := range map[string][2]time.Duration{
			"Now": {now, passed + by}, "Latest": {latest, passed + max(by, 0)}, "Earliest": {earliest, passed + min(by, 0)},
		} {
			if d := (it[0] - it[1]).Abs(); d > Tolerance {
				t.Errorf("set by %v: %s is %v after the start, want %v", by, name, it[0], it[1])
			}
		}
		if _, moved := c.Moved(); moved != (by != 0) {
			t.Errorf("set by %v: moved is %t", by, moved)
		}
	}
}

package clock

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lookAfter is how often the clock that counts suspension is read: that is a system
	// call, and [time.Now] is not. Time spent suspended is noticed so much later.
	lookAfter = time.Second
	// closeTogether is how near two readings must be to be compared. The scheduler can
	// come between them.
	closeTogether = time.Millisecond
)

// machine reads the machine's clocks. Go's monotonic clock stands still while the
// machine is suspended; CLOCK_BOOTTIME tells for how long.
func machine() Source {
	m := &suspension{start: time.Now(), boot: boottime()}
	return func() (time.Time, time.Duration) {
		now := time.Now()
		running := now.Sub(m.start)
		if running >= time.Duration(m.look.Load()) {
			m.read()
		}
		return now, running + time.Duration(m.total.Load())
	}
}

// suspension is how long the machine was suspended since the start.
type suspension struct {
	start time.Time
	boot  time.Duration
	look  atomic.Int64 // when to look again, by the monotonic clock since start
	total atomic.Int64 // nanoseconds
}

// read compares both clocks. What it finds is never more than the truth, and counts only
// if it is more than the readings' distance.
func (s *suspension) read() {
	before := time.Since(s.start)
	boot := boottime()
	after := time.Since(s.start)
	if boot == 0 || after-before > closeTogether {
		return // the next reading may do better
	}
	total := s.total.Load()
	if found := int64(boot - s.boot - after); found > total+int64(closeTogether) {
		s.total.CompareAndSwap(total, found)
	}
	s.look.Store(int64(after + lookAfter))
}

// boottime is the time since the machine was started. Every kernel that Chaperone runs
// on has this clock; should it refuse, suspension isn't counted.
func boottime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

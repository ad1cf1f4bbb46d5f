package resolver

import "sync"

// limiter bounds how many of something there are, and how many of them are one
// workload's.
type limiter struct {
	total, each int

	mu   sync.Mutex
	used int
	by   map[uint64]int // only workloads that hold any
}

func newLimiter(total, each int) *limiter {
	return &limiter{total: total, each: each, by: map[uint64]int{}}
}

// acquire takes one; it never waits.
func (l *limiter) acquire(workload uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used >= l.total || l.by[workload] >= l.each {
		return false
	}
	l.used++
	l.by[workload]++
	return true
}

// release gives one back.
func (l *limiter) release(workload uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used--
	if l.by[workload]--; l.by[workload] == 0 {
		delete(l.by, workload)
	}
}

package session

import (
	"testing"
	"time"
)

// A flood of one job is told at a bounded rate, counted to the last, and leaves others'
// alone.
func TestRefusalsAreBounded(t *testing.T) {
	var r refusals
	now := time.Unix(1000, 0)
	told, counted := 0, uint64(0)
	const attempts = 1000
	for range attempts {
		if tell, untold := r.spend("flood", now); tell {
			told++
			counted += untold
		}
	}
	if told != refusalsPerSecond {
		t.Errorf("%d were told within a second, want %d", told, refusalsPerSecond)
	}
	if tell, untold := r.spend("other", now); !tell || untold != 0 {
		t.Errorf("another job's: told %t with %d, want it told alone", tell, untold)
	}
	tell, untold := r.spend("flood", now.Add(time.Second))
	if !tell || untold != attempts-refusalsPerSecond {
		t.Errorf("the next: told %t with %d, want %d", tell, untold, attempts-refusalsPerSecond)
	}
	for range refusalsPerSecond + 4 {
		r.spend("flood", now.Add(time.Second))
	}
	if left := r.take(now.Add(2 * time.Second)); len(left) != 1 || left["flood"] != 5 {
		t.Errorf("left over %v, want 5 of one job", left)
	}
	if left := r.take(now.Add(2 * time.Minute)); len(left) != 0 || len(r.byJob) != 0 {
		t.Errorf("left over %v and %d accounts, want none", left, len(r.byJob))
	}
}

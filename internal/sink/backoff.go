package sink

import (
	"context"
	"time"
)

const (
	batchSize = 128                    // messages that share a sync
	gather    = 500 * time.Millisecond // how long the first of them waits for more
	ackWait   = 30 * time.Second
	minPause  = 100 * time.Millisecond
	maxPause  = 5 * time.Second
)

// backoff waits longer after each failure.
type backoff struct{ pause time.Duration }

func (b *backoff) reset() { b.pause = 0 }

func (b *backoff) sleep(ctx context.Context) error {
	b.pause = min(max(2*b.pause, minPause), maxPause)
	t := time.NewTimer(b.pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

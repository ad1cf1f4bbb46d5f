package lock

import (
	"context"
	"os"
	"time"
)

// lookEvery is short: the other daemon takes the accounts away, and a session whose
// server ends it first is told nothing of the lock.
const lookEvery = 10 * time.Millisecond

// Drain goes on with locks that another keeper hears of and writes to the same
// folder, until the context is done. It is for a daemon that another one has taken
// over from, and is called when Run has returned.
func (k *Keeper) Drain(ctx context.Context) error {
	k.mu.Lock()
	k.drained = true
	k.mu.Unlock()
	working, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.worker(working)
	}()
	defer func() { stop(); <-done }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var seen os.FileInfo
	for {
		now, err := os.Stat(k.path)
		if err == nil && (seen == nil || !os.SameFile(seen, now) || seen.ModTime() != now.ModTime()) {
			if err = k.load(); err == nil {
				seen = now
			}
		}
		if err != nil && !os.IsNotExist(err) {
			k.opts.Log.Error().Err(err).Msg("locks can't be heard of; those in force stay")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

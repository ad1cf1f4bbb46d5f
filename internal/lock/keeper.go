package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
)

// Clock is what the keeper needs of a clock that others may set.
type Clock interface {
	Earliest() time.Time // what prohibitions expire by
}

// Why a lock ended.
const (
	EndExpired  = "expired"
	EndReleased = "released"
)

// Options of [Open].
type Options struct {
	KV    *bus.Bucket // [Bucket]; it may be out of reach
	Keys  authority.Keys
	Clock Clock
	Dir   string // state folder
	Log   zerolog.Logger
	// Applied is told of each lock that newly comes into force: once when it is
	// heard of, and once for each that Open read from the disk, when Run begins.
	// [Keeper.Match] matches it before that. Ended is told why it ended ([EndExpired]
	// or [EndReleased]) and who released it. One goroutine calls both, in order, and a
	// slow call delays calls and nothing else. Either may be nil.
	Applied func(ctx context.Context, l Lock)
	Ended   func(l Lock, why string, by *approval.Person)
	// Restore writes to the bucket again what it has lost, and takes out of it what is over
	// for longer than Keep (0: 30 days). It is for the authority's side, where the bucket
	// may be written.
	Restore bool
	Keep    time.Duration
}

const (
	defaultKeep = 30 * 24 * time.Hour
	tidyEvery   = time.Hour
)

// Keeper keeps locks in force. Nothing ends one but a signed release, or its time
// by both clocks: not a deleted key, a lost bucket, or a NATS that is away. Safe for
// concurrent use.
type Keeper struct {
	opts  Options
	path  string
	index *index // what is in force

	mu      sync.Mutex
	kept    map[string]*kept   // in force, or released and remembered until their time is over
	foreign []authority.Signed // from the disk, by a key that is not among Keys; kept in case it comes back
	queue   []func(context.Context)
	dirty   bool
	drained bool // another keeper writes the disk

	work chan struct{} // the queue holds something, or the disk is behind
}

type kept struct {
	entry  Entry
	signed authority.Signed
}

// Open reads the locks that are on the disk: they are in force when it returns.
func Open(o Options) (*Keeper, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("locks: %w", err)
	}
	k := &Keeper{opts: o, path: filepath.Join(o.Dir, "locks.json"), index: newIndex(), kept: map[string]*kept{}, work: make(chan struct{}, 1)}
	if o.Keep == 0 {
		k.opts.Keep = defaultKeep
	}
	if o.Applied == nil {
		k.opts.Applied = func(context.Context, Lock) {}
	}
	if o.Ended == nil {
		k.opts.Ended = func(Lock, string, *approval.Person) {}
	}
	if err := k.load(); err != nil {
		return nil, fmt.Errorf("locks: %w", err)
	}
	return k, nil
}

// Run hears of locks until the context is done.
func (k *Keeper) Run(ctx context.Context) error {
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { k.follow(inner); return nil })
	g.Go(func() error { k.worker(inner); return nil })
	err := g.Wait()
	return errors.Join(err, k.save())
}

// Match returns a lock in force that is on the connection or session.
func (k *Keeper) Match(f Facts) (Lock, bool) { return k.index.match(f) }

// List returns the locks in force, newest first.
func (k *Keeper) List() []Lock {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := []Lock{}
	for _, e := range k.kept {
		if e.entry.Released == nil {
			list = append(list, e.entry.Lock)
		}
	}
	slices.SortFunc(list, func(a, b Lock) int { return b.Created.Compare(a.Created) })
	return list
}

// follow hears of locks.
func (k *Keeper) follow(ctx context.Context) {
	k.opts.KV.Follow(ctx, ">", bus.Follower{
		Value: func(v jetstream.KeyValueEntry) {
			if v.Operation() != jetstream.KeyValuePut {
				k.opts.Log.Info().Str("lock", v.Key()).Msg("a lock was removed from the bucket; that ends none")
				return
			}
			k.heard(v.Key(), v.Value())
		},
		Current: func() {
			if k.opts.Restore {
				k.mu.Lock()
				k.later(k.restore)
				k.later(k.tidy)
				k.mu.Unlock()
			}
		},
		Lost: func(err error) {
			k.opts.Log.Warn().Err(err).Msg("locks can't be heard of for now; those in force stay")
		},
	})
}

// heard looks at a value of the bucket.
func (k *Keeper) heard(id string, value []byte) {
	e, err := Decode(k.opts.Keys, id, value)
	if err != nil {
		k.opts.Log.Warn().Err(err).Str("lock", id).Msg("a lock is not taken")
		return
	}
	var s authority.Signed
	if err := json.Unmarshal(value, &s); err != nil {
		return // Decode has read it
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.take(e, s) {
		k.dirty = true
		k.wake()
	}
}

// take takes an entry over, and tells whether that changed anything. mu is held.
func (k *Keeper) take(e Entry, s authority.Signed) bool {
	old := k.kept[e.Lock.ID]
	switch {
	case !k.opts.Clock.Earliest().Before(e.Lock.Expires):
		if old == nil {
			k.opts.Log.Debug().Str("lock", e.Lock.ID).Msg("a lock is not taken: it is over")
		}
		return false // one that is in force ends by its own time
	case old == nil && e.Released == nil:
		k.index.add(e.Lock)
		k.later(func(ctx context.Context) { k.opts.Applied(ctx, e.Lock) })
	case old == nil: // released before it was heard of: remembered, in case the lock itself comes
	case old.entry.Released != nil:
		if e.Released == nil {
			k.opts.Log.Warn().Str("lock", e.Lock.ID).Msg("a lock is not taken: it was released, and an old copy of it came back")
		}
		return false
	case e.Released == nil:
		return false // a lock never changes
	default:
		// Its time is that of the lock in force, whatever the release says of it.
		lock, by := old.entry.Lock, e.ReleasedBy
		k.index.remove(lock)
		k.later(func(context.Context) { k.opts.Ended(lock, EndReleased, by) })
	}
	k.kept[e.Lock.ID] = &kept{e, s}
	return true
}

// later has the worker do something. mu is held.
func (k *Keeper) later(do func(context.Context)) {
	k.queue = append(k.queue, do)
	k.wake()
}

func (k *Keeper) wake() {
	select {
	case k.work <- struct{}{}:
	default: // it is awake
	}
}

// worker calls who is to be told, keeps the disk up to date, and ends what is over. It looks
// often rather than computes when, for the clock may be set.
func (k *Keeper) worker(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.expire()
		case <-tidy.C:
			k.mu.Lock()
			if k.opts.Restore {
				k.later(k.tidy)
			}
			k.mu.Unlock()
		case <-k.work:
		}
		if err := k.save(); err != nil {
			k.opts.Log.Error().Err(err).Msg("the locks in force can't be kept on the disk")
		}
		for ctx.Err() == nil {
			k.mu.Lock()
			if len(k.queue) == 0 {
				k.mu.Unlock()
				break
			}
			do := k.queue[0]
			k.queue = slices.Delete(k.queue, 0, 1)
			k.mu.Unlock()
			do(ctx)
		}
	}
}

// expire ends what is over by both clocks.
func (k *Keeper) expire() {
	now := k.opts.Clock.Earliest()
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, e := range k.kept {
		if now.Before(e.entry.Lock.Expires) {
			continue
		}
		delete(k.kept, id)
		k.dirty = true
		if lock := e.entry.Lock; e.entry.Released == nil {
			k.index.remove(lock)
			k.later(func(context.Context) { k.opts.Ended(lock, EndExpired, nil) })
		}
	}
}

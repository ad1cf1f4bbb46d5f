package documents

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chaperone.dev/chaperone/internal/bus"
)

// arrival is what the bucket holds, or a fault of it.
type arrival struct {
	value []byte
	fault error
}

// ErrGone: what was published is not in its place any more. What it was stays in force.
var ErrGone = errors.New("the published documents are gone from NATS; those that were there stay in force")

// follow tells Run what is in the bucket, and in those that are bound later, until
// ctx is done.
func (s *Source) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		following, stop := context.WithCancel(ctx)
		var done sync.WaitGroup
		if kv := s.kv.Load(); kv != nil {
			f := follower{source: s}
			done.Go(func() {
				kv.Follow(following, Key, bus.Follower{
					Value:   func(e jetstream.KeyValueEntry) { f.value(following, e) },
					Current: func() { f.current(following) },
					Lost:    func(err error) { f.lost(following, err) },
				})
			})
		}
		select {
		case <-ctx.Done():
		case <-s.bound:
		}
		stop()
		done.Wait()
	}
	return nil
}

// follower is told of one bucket.
type follower struct {
	source *Source
	found  bool // something is there
	gone   bool // that it is not was told
}

func (f *follower) value(ctx context.Context, e jetstream.KeyValueEntry) {
	f.found = true
	if e.Operation() != jetstream.KeyValuePut {
		f.missing(ctx, fmt.Errorf("%w: somebody has deleted them", ErrGone))
		return
	}
	f.gone = false
	f.source.tell(ctx, arrival{value: e.Value()})
}

func (f *follower) current(ctx context.Context) {
	if !f.found {
		f.missing(ctx, fmt.Errorf("%w: the bucket %s is empty", ErrGone, Bucket))
	}
}

func (f *follower) lost(ctx context.Context, err error) {
	f.found = false
	if errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		f.missing(ctx, fmt.Errorf("%w: there is no bucket %s; \"chaperone nats setup\" makes it", ErrGone, Bucket))
		return
	}
	f.source.opts.Log.Warn().Err(err).Msg("NATS can't be asked for published documents; those of before stay in force")
}

// missing tells once, until something is there again.
func (f *follower) missing(ctx context.Context, err error) {
	if !f.gone {
		f.gone = true
		f.source.tell(ctx, arrival{fault: err})
	}
}

func (s *Source) tell(ctx context.Context, a arrival) {
	select {
	case <-ctx.Done():
	case s.arrived <- a:
	}
}

// arrive takes a bundle, if it counts, on Run's goroutine.
func (s *Source) arrive(ctx context.Context, a arrival) {
	if a.fault != nil {
		if s.newest == nil {
			s.opts.Log.Warn().AnErr("bucket", a.fault).Msg("no documents are published yet; the folder's alone are in force")
			return
		}
		s.opts.Rejected(a.fault, s.Set().Revision)
		return
	}
	b, err := open(a.value, s.keys)
	if err == nil {
		err = s.newer(b, a.value)
	}
	if err != nil {
		if errors.Is(err, errSame) || bytes.Equal(a.value, s.denied) {
			return
		}
		s.denied = bytes.Clone(a.value)
		s.opts.Rejected(err, s.Set().Revision)
		return
	}
	s.denied = nil
	s.newest = &kept{bundle: b, value: bytes.Clone(a.value)}
	if err := s.state.keepNewest(s.newest); err != nil {
		s.opts.Log.Error().Err(err).Msg("the published documents can't be kept: after a restart an older bundle would be taken for new")
	}
	s.load(ctx, fmt.Sprintf("what %s published at %s (serial %d)", b.By, b.At.UTC().Format(time.RFC3339), b.Serial), false)
}

// errSame: it is the bundle that counts already.
var errSame = errors.New("the same bundle")

// newer fails unless the bundle comes behind the one that counts.
func (s *Source) newer(b Bundle, value []byte) error {
	switch {
	case s.newest == nil || b.Serial > s.newest.bundle.Serial:
		return nil
	case bytes.Equal(value, s.newest.value):
		return errSame
	case b.Serial == s.newest.bundle.Serial:
		return fmt.Errorf("%w, or another one in its place: serial %d of %s, at %s, was taken before with other content",
			ErrReplayed, b.Serial, b.By, b.At.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("%w: serial %d of %s, at %s; the one in force has serial %d",
		ErrReplayed, b.Serial, b.By, b.At.UTC().Format(time.RFC3339), s.newest.bundle.Serial)
}

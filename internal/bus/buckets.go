package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The key-value buckets. Packages approval, lock and documents say what is in
// them; each value is verified by who reads it.
const (
	BucketApprovals = "CHAPERONE_APPROVALS" // requests of nodes, and the authority's votes on them
	BucketLocks     = "CHAPERONE_LOCKS"     // the authority's locks
	BucketDocuments = "CHAPERONE_DOCUMENTS" // the documents that it published
)

// keyOfDocuments is the one key of BucketDocuments.
const keyOfDocuments = "bundle"

// bucketConfig is the stream below a bucket, as the key-value layer wants it,
// but for one thing: no value may roll up others. With that header a node that may
// write its own requests could remove everybody's.
func bucketConfig(bucket, description string, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: "KV_" + bucket, Subjects: []string{"$KV." + bucket + ".>"}, Description: description,
		Storage: jetstream.FileStorage, Replicas: replicas,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxMsgsPerSubject: 1, Duplicates: dedupe,
		AllowDirect: true, DenyDelete: true,
	}
}

// bucketConfigs are those of all buckets.
func bucketConfigs(replicas int) []jetstream.StreamConfig {
	approvals := bucketConfig(BucketApprovals, "Chaperone requests for approval, and the votes on them", replicas)
	approvals.MaxAge, approvals.MaxBytes, approvals.MaxMsgSize = 7*24*time.Hour, 512<<20, 256<<10
	locks := bucketConfig(BucketLocks, "Chaperone locks", replicas)
	locks.MaxBytes, locks.MaxMsgSize = 64<<20, 64<<10
	docs := bucketConfig(BucketDocuments, "Chaperone documents that were published", replicas)
	docs.MaxMsgsPerSubject, docs.MaxBytes, docs.MaxMsgSize = 10, 32<<20, 1<<20+64<<10
	return []jetstream.StreamConfig{approvals, locks, docs}
}

// Buckets are the three, as one connection sees them.
type Buckets struct{ Approvals, Locks, Documents *Bucket }

// BucketsOf returns the buckets. It asks the server nothing, so that a
// connection will do that is not there yet.
func BucketsOf(js jetstream.JetStream) Buckets {
	return Buckets{NewBucket(js, BucketApprovals), NewBucket(js, BucketLocks), NewBucket(js, BucketDocuments)}
}

// Bucket is a key-value bucket that may be out of reach for now. Safe for
// concurrent use.
type Bucket struct {
	js   jetstream.JetStream
	name string

	mu sync.Mutex
	kv jetstream.KeyValue // nil until it was reached
}

// NewBucket returns the bucket with the name.
func NewBucket(js jetstream.JetStream, name string) *Bucket { return &Bucket{js: js, name: name} }

// KV returns the bucket to work with. Until it was reached once that asks the server.
func (b *Bucket) KV(ctx context.Context) (jetstream.KeyValue, error) {
	b.mu.Lock()
	kv := b.kv
	b.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := b.js.KeyValue(ctx, b.name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fmt.Errorf(`bucket %s: %w; "chaperone nats setup" makes it`, b.name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", b.name, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kv = kv
	return kv, nil
}

// Follower is told what is in a bucket, by one goroutine.
type Follower struct {
	// Value is told each value, and then each change. A key that was deleted
	// is told as an entry with another operation than a put.
	Value func(jetstream.KeyValueEntry)
	// Current is told when all that is in the bucket was told: at first, and
	// again each time that the bucket was out of reach, or is another one. May be nil.
	Current func()
	// Lost is told, once each time, that the bucket is out of reach. May be nil.
	Lost func(error)
}

const (
	checkEvery = 5 * time.Second        // how often a bucket that is silent is looked after
	followWait = 500 * time.Millisecond // between attempts to reach it
)

// Follow tells what is below the key, which may hold wildcards, until the
// context is done, however often the bucket is out of reach.
func (b *Bucket) Follow(ctx context.Context, key string, f Follower) {
	conn := b.js.Conn()
	changed := conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer conn.RemoveStatusListener(changed)
	lost := false
	for {
		err := b.follow(ctx, key, f, changed, func() { lost = false })
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			continue // the connection is a new one
		}
		if !lost {
			lost = true
			if f.Lost != nil {
				f.Lost(err)
			}
		}
		timer := time.NewTimer(followWait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// follow is one watch. It ends without an error when the connection is a new
// one, for then nobody knows what was missed.
func (b *Bucket) follow(ctx context.Context, key string, f Follower, changed <-chan nats.Status, reached func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	born, err := b.born(ctx)
	if err != nil {
		return err
	}
	kv, err := b.KV(ctx)
	if err != nil {
		return err
	}
	// A server that doesn't answer must not be waited for without an end, and a
	// deadline would end the watch too.
	late := time.AfterFunc(checkEvery, cancel)
	watch, err := kv.Watch(ctx, key)
	late.Stop()
	if err != nil {
		return fmt.Errorf("watching bucket %s: %w", b.name, err)
	}
	defer func() { _ = watch.Stop() }()
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, ok := <-watch.Updates():
			switch {
			case !ok:
				return fmt.Errorf("watching bucket %s: the watch ended", b.name)
			case entry != nil:
				f.Value(entry)
			default:
				reached()
				if f.Current != nil {
					f.Current()
				}
			}
		case status := <-changed:
			if status == nats.CLOSED {
				return fmt.Errorf("watching bucket %s: %w", b.name, nats.ErrConnectionClosed)
			}
			return nil
		case <-tick.C:
			now, err := b.born(ctx)
			if err != nil {
				return err
			}
			if !now.Equal(born) {
				return fmt.Errorf("bucket %s was removed and made anew", b.name)
			}
		}
	}
}

// born tells when the bucket was made.
func (b *Bucket) born(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, checkEvery)
	defer cancel()
	stream, err := b.js.Stream(ctx, "KV_"+b.name)
	if err != nil {
		return time.Time{}, fmt.Errorf("bucket %s: %w", b.name, err)
	}
	return stream.CachedInfo().Created, nil
}

package sink

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/recording"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// Options of [Open].
type Options struct {
	Dir       string // made when missing, mode 0700
	JetStream jetstream.JetStream
	Keys      map[string]ed25519.PublicKey // node → the key that signs its recordings
	Log       zerolog.Logger
}

// Sink ingests, keeps and serves recordings. Its methods are safe for
// concurrent use.
type Sink struct {
	opts  Options
	db    *sql.DB
	codec *recording.Codec
	keys  map[recording.KeyID]string // id → node
}

// Open opens or makes the sink's store.
func Open(ctx context.Context, o Options) (*Sink, error) {
	codec, err := recording.NewCodec()
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s := &Sink{opts: o, codec: codec, keys: map[recording.KeyID]string{}}
	for node, key := range o.Keys {
		if len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("sink: the key of node %s has %d bytes, an Ed25519 public key has %d", node, len(key), ed25519.PublicKeySize)
		}
		s.keys[recording.IDOf(key)] = node
	}
	for _, dir := range []string{o.Dir, s.dir("recordings"), s.dir("rejected")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("sink: %w", err)
		}
	}
	if s.db, err = openIndex(ctx, filepath.Join(o.Dir, "index.db")); err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	return s, nil
}

func (s *Sink) dir(name string) string { return filepath.Join(s.opts.Dir, name) }

// Close closes the store. [Sink.Run] must have returned.
func (s *Sink) Close() error { return s.db.Close() }

// Run ingests until ctx is done. It outlasts outages of NATS and of its own
// disk: what was not stored is not acknowledged, and comes again.
func (s *Sink) Run(ctx context.Context) error {
	wait := backoff{}
	for ctx.Err() == nil {
		err := s.ingest(ctx, wait.reset)
		if ctx.Err() != nil {
			break
		}
		s.opts.Log.Error().Err(err).Msg("recordings are not taken; it is tried again")
		if err := wait.sleep(ctx); err != nil {
			break
		}
	}
	return nil
}

// ingest consumes until an error, and tells when it got on.
func (s *Sink) ingest(ctx context.Context, ok func()) error {
	// The stream itself knows what was taken, since that leaves it: the
	// consumer's own state need not be on the disk.
	cons, err := s.opts.JetStream.CreateOrUpdateConsumer(ctx, bus.StreamRecordings, jetstream.ConsumerConfig{
		Durable: "sink", AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxAckPending: 4 * batchSize, DeliverPolicy: jetstream.DeliverAllPolicy, MemoryStorage: true,
	})
	if err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	for {
		msgs, err := next(ctx, cons)
		if err != nil {
			return err
		}
		if len(msgs) == 0 {
			continue
		}
		if err := s.take(ctx, msgs); err != nil {
			for _, m := range msgs {
				err = errors.Join(err, m.NakWithDelay(maxPause))
			}
			return err
		}
		ok()
	}
}

// next waits for a message, and takes with it those that come shortly after:
// what is stored together shares its syncs.
func next(ctx context.Context, cons jetstream.Consumer) ([]jetstream.Msg, error) {
	first, err := cons.Next(jetstream.FetchContext(ctx))
	if errors.Is(err, jetstream.ErrNoMessages) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("next block: %w", err)
	}
	msgs := []jetstream.Msg{first}
	ctx, stop := context.WithTimeout(ctx, gather)
	defer stop()
	rest, err := cons.Fetch(batchSize-1, jetstream.FetchContext(ctx))
	if err != nil {
		return msgs, nil // what is there is taken; the next call meets the error
	}
	for m := range rest.Messages() {
		msgs = append(msgs, m)
	}
	return msgs, nil
}

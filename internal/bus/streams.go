package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The streams.
const (
	// StreamEvents keeps events for subscribers that come late. What exceeds
	// its limits is dropped oldest first: recordings hold the same facts.
	StreamEvents = "CHAPERONE_EVENTS"
	// StreamRecordings hands recordings to the sink. A block leaves it when
	// the sink has stored it; when it is full, nothing more is taken, and the
	// nodes keep what they have.
	StreamRecordings = "CHAPERONE_RECORDINGS"

	eventSubjects     = "chaperone.event.>"
	recordingSubjects = "chaperone.recording.>"
)

// Limits of the streams. Zero values mean the defaults.
type Limits struct {
	EventBytes     int64         // default 2 GiB
	EventAge       time.Duration // default 30 days
	RecordingBytes int64         // default 6 GiB
	Replicas       int           // default 1
}

// dedupe is how long a message's id is remembered, so that what is sent again
// after an outage or a crash is dropped. The memory it takes grows with the
// rate: about 150 bytes for each message in the window.
const dedupe = 2 * time.Minute

// Setup makes the streams and the buckets, or brings them up to date.
func Setup(ctx context.Context, js jetstream.JetStream, l Limits) error {
	return setup(ctx, js, l, jetstream.DefaultPersistMode)
}

// setup is [Setup] with the choice of when a message is acknowledged: behind
// the write to its file, or before. That is settled when a stream is made, and
// is not for buckets: nobody sends again what they hold.
func setup(ctx context.Context, js jetstream.JetStream, l Limits, mode jetstream.PersistModeType) error {
	if l.EventBytes == 0 {
		l.EventBytes = 2 << 30
	}
	if l.EventAge == 0 {
		l.EventAge = 30 * 24 * time.Hour
	}
	if l.RecordingBytes == 0 {
		l.RecordingBytes = 6 << 30
	}
	if l.Replicas == 0 {
		l.Replicas = 1
	}
	streams := []jetstream.StreamConfig{{
		Name: StreamEvents, Subjects: []string{eventSubjects},
		Description: "Chaperone events, CloudEvents 1.0",
		Storage:     jetstream.FileStorage, Replicas: l.Replicas,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxBytes: l.EventBytes, MaxAge: l.EventAge, Duplicates: dedupe,
		DenyDelete: true, DenyPurge: true,
	}, {
		Name: StreamRecordings, Subjects: []string{recordingSubjects},
		Description: "Chaperone recordings on their way to the sink",
		Storage:     jetstream.FileStorage, Replicas: l.Replicas,
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
		MaxBytes: l.RecordingBytes, Duplicates: dedupe, DenyPurge: true,
	}}
	for i := range streams {
		streams[i].PersistMode = mode
	}
	for _, cfg := range append(streams, bucketConfigs(l.Replicas)...) {
		if err := ensure(ctx, js, cfg); err != nil {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
	}
	return nil
}

func ensure(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
	_, err := js.CreateStream(ctx, cfg)
	if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return err
	}
	old, err := js.Stream(ctx, cfg.Name)
	if err != nil {
		return err
	}
	cfg.PersistMode = old.CachedInfo().Config.PersistMode
	_, err = js.UpdateStream(ctx, cfg)
	return err
}

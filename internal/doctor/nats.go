package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/event"
)

func checkNATS(ctx context.Context, s *subject) Result {
	spec := s.node.NATS
	if spec.URL == "" {
		return skip(`embedded: the Node document names no server, and "chaperone up" brings its own`, "")
	}
	servers := redacted(spec.URL)
	conn, err := bus.Connect(bus.Remote{
		URL: spec.URL, Role: bus.RoleNode, SeedFile: spec.NKeyFile, CredsFile: spec.CredsFile, CAFile: spec.CAFile, Once: true,
	})
	if err != nil {
		return natsFault(err)
	}
	defer conn.Close()
	found := fmt.Sprintf("%s (%s %s) lets the node in", servers, conn.ConnectedServerName(), conn.ConnectedServerVersion())
	late := ""
	if state, err := conn.TLSConnectionState(); err == nil {
		late = chainExpiry(&state)
	}
	if most := conn.MaxPayload(); most < bus.MaxPayload {
		return fail(found, fmt.Sprintf("it takes messages of %s at most, and recordings have up to %s", size(most), size(bus.MaxPayload)),
			"set max_payload: 8MB on the servers")
	}
	streams, err := s.streams(ctx, conn)
	if err != nil {
		return fail(found, brief(err), `make the streams with "chaperone nats setup", and give the node the permissions of deploy/nats/nats-server.conf`)
	}
	found += "; " + streams
	if late != "" {
		return warn(found, late, "renew the server's certificate")
	}
	return ok(found)
}

// redacted is the URL without what should not be in it.
func redacted(urls string) string {
	var shown []string
	for one := range strings.SplitSeq(urls, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err == nil {
			shown = append(shown, u.Redacted())
		}
	}
	return strings.Join(shown, ",")
}

func natsFault(err error) Result {
	missing := brief(err)
	switch {
	case forbidden(err):
		return unseen("the node's NATS key", err)
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
		return fail("", missing, "give the node a user on the servers with this key (deploy/nats/nats-server.conf), or correct nkeyFile or credsFile in the Node document")
	case strings.Contains(missing, "x509:") || strings.Contains(missing, "tls:"):
		return fail("", missing, tlsRemedy(err, "nats of the Node document"))
	}
	return fail("", missing, "see that the servers run and are reached from here, and nats in the Node document")
}

// streams finds out about both streams what the node's key may: a key with no
// more than it needs may not ask for a stream, but is told by that of
// recordings that it refuses a message. The other one has live subscribers,
// so nothing is sent to it.
func (s *subject) streams(ctx context.Context, conn *nats.Conn) (string, error) {
	asked := 0
	for _, name := range []string{bus.StreamEvents, bus.StreamRecordings} {
		err := s.askStream(ctx, conn, name)
		if errors.Is(err, nats.ErrPermissionViolation) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("stream %s: %w", name, err)
		}
		asked++
	}
	if asked == 2 {
		return "both streams are there", nil
	}
	if err := s.beRefused(ctx, conn); err != nil {
		return "", fmt.Errorf("stream %s: %w", bus.StreamRecordings, err)
	}
	return fmt.Sprintf("stream %s takes from it; its key may not ask for %s, as it should be", bus.StreamRecordings, bus.StreamEvents), nil
}

// watched is a context that ends when the server forbids something.
func watched(ctx context.Context, conn *nats.Conn) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	conn.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			cancel(err)
		}
	})
	return ctx, cancel
}

func (s *subject) askStream(ctx context.Context, conn *nats.Conn, name string) error {
	ctx, cancel := watched(ctx, conn)
	defer cancel(nil)
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	sent := time.Now()
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return withCause(ctx, err)
	}
	s.clocks.tell("NATS", stream.CachedInfo().TimeStamp.Truncate(time.Second), sent, time.Now())
	return nil
}

// beRefused publishes what the stream can't accept: it would have to be
// longer than any is.
func (s *subject) beRefused(ctx context.Context, conn *nats.Conn) error {
	const wrongLastSequence = 10071
	const impossible = 1 << 62
	ctx, cancel := watched(ctx, conn)
	defer cancel(nil)
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	_, err = js.Publish(ctx, event.RecordingSubject(s.node.Cluster, "doctor"), nil,
		jetstream.WithExpectStream(bus.StreamRecordings), jetstream.WithExpectLastSequence(impossible))
	var refused *jetstream.APIError
	switch {
	case errors.As(err, &refused) && refused.ErrorCode == wrongLastSequence:
		return nil
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return errors.New("it is not there")
	case err == nil:
		return errors.New("it took what it should have refused")
	}
	return withCause(ctx, err)
}

// withCause prefers why a context ended to that it did.
func withCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

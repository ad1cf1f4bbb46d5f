package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/event"
	"github.com/nats-io/nats.go/jetstream"
)

// Handler serves the sink's API, all of it read-only:
//
//	GET /v1/sessions?principal=&target=&since=&limit=  JSON array of Session, newest first
//	GET /v1/sessions/{id}                              Session
//	GET /v1/sessions/{id}/blocks                       the recording's file
//	GET /v1/events?type=&target=&since=&limit=&follow= JSON lines of events, oldest first
//	GET /v1/keys                                       node → base64 public key
//
// "since" is RFC 3339. It does not authenticate: who may connect is the
// listener's matter.
func (s *Sink) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/sessions", s.handle(s.getSessions))
	mux.HandleFunc("GET /v1/sessions/{id}", s.handle(s.getSession))
	mux.HandleFunc("GET /v1/sessions/{id}/blocks", s.handle(s.getBlocks))
	mux.HandleFunc("GET /v1/events", s.handle(s.getEvents))
	mux.HandleFunc("GET /v1/keys", s.handle(s.getKeys))
	return mux
}

// Mount is a handler beside the sink's own. It may ask [PeerOf] who asks.
type Mount struct {
	Patterns []string // as in [http.ServeMux]
	Handler  http.Handler
}

// Serve serves the API, and what is mounted beside it, on a unix socket, which
// its owner and group may use, until ctx is done. A socket that nobody listens
// on is replaced.
func (s *Sink) Serve(ctx context.Context, socket string, mounts ...Mount) error {
	if c, err := net.Dial("unix", socket); err == nil {
		return errors.Join(fmt.Errorf("sink: another process listens on %s", socket), c.Close())
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("sink: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("sink: %w", err)
	}
	if err := os.Chmod(socket, 0o660); err != nil {
		return errors.Join(fmt.Errorf("sink: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("/", s.Handler())
	for _, m := range mounts {
		for _, pattern := range m.Patterns {
			mux.Handle(pattern, m.Handler)
		}
	}
	srv := &http.Server{
		Handler:           mux,
		ConnContext:       withPeer,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan error, 1)
	served := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
		case <-served:
		}
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- srv.Shutdown(limit)
	}()
	err = srv.Serve(l)
	close(served)
	if stop := <-stopped; stop != nil {
		err = stop
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("sink: %w", err)
	}
	return nil
}

// writeTimeout is how long a reader may let one write wait.
const writeTimeout = 30 * time.Second

// badRequest is an error of the one who asks.
type badRequest struct{ error }

// handle answers errors. Once a body has begun, its end is all that can be
// told: the connection is cut, so that half an answer is never taken for a
// whole one.
func (s *Sink) handle(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		started := &writer{ResponseWriter: w}
		err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			err = f(started, r)
		}
		var bad badRequest
		switch {
		case err == nil || r.Context().Err() != nil:
		case started.begun:
			s.opts.Log.Error().Err(err).Str("path", r.URL.Path).Msg("an answer broke off")
			panic(http.ErrAbortHandler)
		case errors.Is(err, ErrNotFound):
			http.Error(w, err.Error(), http.StatusNotFound)
		case errors.As(err, &bad):
			http.Error(w, bad.Error(), http.StatusBadRequest)
		default:
			s.opts.Log.Error().Err(err).Str("path", r.URL.Path).Msg("a request failed")
			http.Error(w, "the sink could not answer; its log says why", http.StatusInternalServerError)
		}
	}
}

// writer notes whether the body has begun.
type writer struct {
	http.ResponseWriter
	begun bool
}

func (w *writer) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// window reads "since" and "limit".
func window(r *http.Request, most int) (since time.Time, limit int, err error) {
	if v := r.FormValue("since"); v != "" {
		if since, err = time.Parse(time.RFC3339, v); err != nil {
			return since, 0, badRequest{fmt.Errorf("since: %q is no RFC 3339 time", v)}
		}
	}
	if v := r.FormValue("limit"); v != "" {
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 || limit > most {
			return since, 0, badRequest{fmt.Errorf("limit: %q is not within 1 and %d", v, most)}
		}
	}
	return since, limit, nil
}

func (s *Sink) getSessions(w http.ResponseWriter, r *http.Request) error {
	since, limit, err := window(r, 1000)
	if err != nil {
		return err
	}
	list, err := s.Sessions(r.Context(), Query{Principal: r.FormValue("principal"), Target: r.FormValue("target"), Since: since, Limit: limit})
	if err != nil {
		return err
	}
	return writeJSON(w, list)
}

func (s *Sink) getSession(w http.ResponseWriter, r *http.Request) error {
	session, err := s.Session(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, session)
}

func (s *Sink) getBlocks(w http.ResponseWriter, r *http.Request) error {
	c, err := s.load(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/vnd.chaperone.recording")
	w.Header().Set("Content-Length", strconv.FormatInt(c.size, 10))
	out := http.NewResponseController(w)
	return s.eachBlock(c, nil, func(data []byte) error {
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		_, err := w.Write(appendBlock(nil, data))
		return err
	})
}

func (s *Sink) getKeys(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, s.opts.Keys) // a []byte is base64 in JSON
}

// maxEvents is how many events one request without follow gives.
const maxEvents = 100_000

func (s *Sink) getEvents(w http.ResponseWriter, r *http.Request) error {
	since, limit, err := window(r, maxEvents)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = maxEvents
	}
	follow, _ := strconv.ParseBool(r.FormValue("follow"))
	kind, target := r.FormValue("type"), "*"
	if kind == "" {
		kind = ">"
	} else if strings.ContainsAny(kind, "*> \t\r\n") {
		return badRequest{fmt.Errorf("type: %q is no event type", kind)}
	}
	if v := r.FormValue("target"); v != "" {
		target = event.Token(v)
	}
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{"chaperone.event.*.*." + target + "." + kind}, DeliverPolicy: jetstream.DeliverAllPolicy}
	switch {
	case !since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
	case follow:
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	cons, err := s.opts.JetStream.OrderedConsumer(r.Context(), bus.StreamEvents, cfg)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	left := cons.CachedInfo().NumPending
	if follow {
		// The answer begins before the first event: whoever asked knows
		// that nothing is missed from here on.
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		return s.stream(r.Context(), w, cons, nil)
	}
	left = min(left, uint64(limit))
	return s.stream(r.Context(), w, cons, &left)
}

// stream writes events as lines: left of them, or for as long as ctx lasts.
func (s *Sink) stream(ctx context.Context, w http.ResponseWriter, cons jetstream.Consumer, left *uint64) error {
	if left != nil && *left == 0 {
		return nil
	}
	msgs, err := cons.Messages(jetstream.PullMaxMessages(500))
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	defer msgs.Stop()
	out := http.NewResponseController(w)
	for {
		m, err := msgs.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("events: %w", err)
		}
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := w.Write(append(m.Data(), '\n')); err != nil {
			return nil
		}
		if left != nil {
			if *left--; *left == 0 {
				return nil
			}
			continue
		}
		if err := out.Flush(); err != nil {
			return nil
		}
	}
}

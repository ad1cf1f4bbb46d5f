package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chaperone.dev/chaperone/internal/desk/api"
)

const (
	writeTimeout = 30 * time.Second // of one write to a reader
	askTimeout   = 10 * time.Second // of what a request has NATS, or the issuer, do
)

// refuse is an error that is told to the person.
func refuse(status int, code, format string, args ...any) error {
	return &api.Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Handler serves the API, the page and what comes from Slack, for a listener
// that strangers reach. It needs a Sink document.
func (d *Desk) Handler() http.Handler {
	mux := http.NewServeMux()
	d.route(mux, d.remote)
	d.login.route(mux, d)
	routeStatic(mux)
	if d.slack != nil {
		mux.Handle("POST /hooks/slack", d.serve(d.slack.answer))
	}
	return d.guard(mux)
}

// LocalHandler serves the API to local users, for a unix socket. uid says who
// is at the other end of the connection that a request came by, and refuses those who
// may not ask at all.
func (d *Desk) LocalHandler(uid func(context.Context) (uint32, error)) http.Handler {
	mux := http.NewServeMux()
	d.route(mux, func(r *http.Request) (*caller, error) { return d.local(r, uid) })
	return mux
}

// LocalPatterns are what a listener with other handlers gives to
// [Desk.LocalHandler].
func LocalPatterns() []string {
	return []string{"/v1/login", "/v1/whoami", "/v1/approvals", "/v1/approvals/", "/v1/locks", "/v1/locks/", "/v1/documents"}
}

// authenticator tells who asks.
type authenticator func(*http.Request) (*caller, error)

// route adds the API.
func (d *Desk) route(mux *http.ServeMux, who authenticator) {
	known := func(f func(http.ResponseWriter, *http.Request, *caller) error) http.Handler {
		return d.serve(func(w http.ResponseWriter, r *http.Request) error {
			c, err := who(r)
			if err != nil {
				return err
			}
			return f(w, r, c)
		})
	}
	mux.Handle("GET /v1/login", d.serve(d.getLogin))
	mux.Handle("GET /v1/whoami", known(d.getWhoAmI))
	mux.Handle("GET /v1/approvals", known(d.getApprovals))
	mux.Handle("GET /v1/approvals/watch", known(d.watchApprovals))
	mux.Handle("GET /v1/approvals/{id}", known(d.getApproval))
	mux.Handle("POST /v1/approvals/{id}/votes", known(d.postVote))
	mux.Handle("GET /v1/locks", known(d.getLocks))
	mux.Handle("POST /v1/locks", known(d.postLock))
	mux.Handle("DELETE /v1/locks/{id}", known(d.deleteLock))
	mux.Handle("PUT /v1/documents", known(d.putDocuments))
	mux.Handle("GET /v1/documents", known(d.getDocuments))
	mux.Handle("/v1/", d.serve(func(_ http.ResponseWriter, r *http.Request) error {
		return refuse(404, api.CodeNotFound, "There is no %s %s.", r.Method, r.URL.Path)
	}))
}

// guard puts what browsers are to keep to on each answer, and refuses those
// that were led here by another name.
func (d *Desk) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		if d.url.Scheme == "https" {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		// A page elsewhere whose name was made to lead here has its own host.
		if !strings.EqualFold(bareHost(r.Host, d.url.Scheme), bareHost(d.url.Host, d.url.Scheme)) {
			http.Error(w, "this sink is not called that", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bareHost takes off the port that a scheme has by itself.
func bareHost(host, scheme string) string {
	if scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// serve answers errors, as JSON.
func (d *Desk) serve(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		started := &writer{ResponseWriter: w}
		err := http.NewResponseController(w).SetWriteDeadline(d.now().Add(writeTimeout))
		if err == nil {
			err = f(started, r)
		}
		if err == nil || r.Context().Err() != nil {
			return
		}
		if started.begun {
			d.log.Warn().Err(err).Str("path", r.URL.Path).Msg("an answer broke off")
			panic(http.ErrAbortHandler)
		}
		answer := d.explain(err, r.URL)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer.Status)
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			d.log.Debug().Err(err).Str("path", r.URL.Path).Msg("an answer broke off")
		}
	})
}

// explain makes an answer of an error. What is not the person's to know is in
// the log alone.
func (d *Desk) explain(err error, at *url.URL) *api.Error {
	var told *api.Error
	if errors.As(err, &told) {
		return told
	}
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return &api.Error{Status: 413, Code: api.CodeBadRequest, Message: fmt.Sprintf("The request is longer than %d bytes.", long.Limit)}
	}
	d.log.Error().Err(err).Str("path", at.Path).Msg("a request failed")
	if unreachable(err) {
		return &api.Error{Status: 503, Code: api.CodeUnavailable, Message: "The sink can't reach NATS at the moment, where requests and answers are kept. Try again."}
	}
	return &api.Error{Status: 500, Code: api.CodeUnavailable, Message: "The sink could not do that; its log says why."}
}

func unreachable(err error) bool {
	for _, known := range []error{context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrConnectionClosed, nats.ErrDisconnected,
		nats.ErrReconnectBufExceeded, nats.ErrNoServers, jetstream.ErrBucketNotFound, jetstream.ErrNoStreamResponse} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// writer notes whether the answer has begun.
type writer struct {
	http.ResponseWriter
	begun bool
}

func (w *writer) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
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

// readJSON reads a body that is one JSON value and has nothing that is not
// understood.
func readJSON(w http.ResponseWriter, r *http.Request, most int64, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return refuse(415, api.CodeBadRequest, "The request's Content-Type must be application/json.")
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		if _, err = decoder.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("there is more than one value")
		}
	}
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return err
	}
	return refuse(400, api.CodeBadRequest, "The request can't be read: %v.", err)
}

// Package control is the conversation of "chaperone run" and "chaperone admit" with
// the daemon: HTTP over a unix socket, where the kernel says who is at the other end. It
// knows the questions and the answers, not what the daemon does about them.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// SocketName is the socket's name in the run folder.
const SocketName = "daemon.sock"

// maxRequest bounds a request's body, in bytes: a path and some names.
const maxRequest = 64 << 10

// Peer is the process at the other end of the socket, as the kernel says
// (SO_PEERCRED and SO_PEERGROUPS, unix(7)). It is who connected, in the daemon's pid
// and user namespaces.
type Peer struct {
	PID int
	UID uint32
	GID uint32
	// Groups are the supplementary ones.
	Groups []uint32
}

// JobRequest asks for a job for the asking process.
type JobRequest struct {
	Name string `json:"name"`
	// TokenFile is where the job's OIDC token is and will be renewed, as the asking
	// process sees it: an absolute path, or empty.
	TokenFile string `json:"tokenFile,omitempty"`
}

// JobReply says that the asking process is the job's first process now.
type JobReply struct {
	Job       string `json:"job"`
	Principal string `json:"principal"`
	// Environment is what makes unchanged clients trust the node.
	Environment map[string]string `json:"environment"`
	// KnownHosts is a file of @cert-authority lines for SSH clients.
	KnownHosts string `json:"knownHosts"`
}

// Handler does what is asked. Errors are told to the asking user as they are.
type Handler interface {
	StartJob(ctx context.Context, peer Peer, req JobRequest) (JobReply, error)
	// Admit returns when it is known what the peer's cgroup is, and enforced, or
	// with an error when that can't be or ctx is done.
	Admit(ctx context.Context, peer Peer) (AdmissionReply, error)
}

type peerKey struct{}

// Serve answers on the socket until ctx is done. Every local user may ask:
// a job gives its processes nothing but what policy gives their principal.
func Serve(ctx context.Context, path string, handler Handler) error {
	listener, err := listen(ctx, path)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/jobs", func(w http.ResponseWriter, r *http.Request) {
		peer, ok := r.Context().Value(peerKey{}).(Peer)
		if !ok {
			fail(w, http.StatusForbidden, errors.New("the kernel doesn't say who asks"))
			return
		}
		var req JobRequest
		if err := decode(w, r, &req); err != nil {
			fail(w, http.StatusBadRequest, err)
			return
		}
		reply, err := handler.StartJob(r.Context(), peer, req)
		if err != nil {
			fail(w, http.StatusForbidden, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(reply)
	})
	mux.Handle("POST /v1/admission", admission{ctx: ctx, handler: handler, places: make(chan struct{}, maxWaiting)})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if peer, err := peerOf(conn); err == nil {
				return context.WithValue(ctx, peerKey{}, peer)
			}
			return ctx
		},
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err = <-done:
		return fmt.Errorf("control socket %s: %w", path, err)
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(closing); err != nil {
		server.Close()
	}
	<-done
	return nil
}

// decode reads a question.
func decode(w http.ResponseWriter, r *http.Request, req any) error {
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	body.DisallowUnknownFields()
	if err := body.Decode(req); err != nil {
		return fmt.Errorf("the request can't be read: %w", err)
	}
	return nil
}

// listen makes the socket. One that a dead daemon left is replaced; one that
// answers is another daemon's.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	var dialer net.Dialer
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("control socket %s: another daemon answers there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		listener.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return listener, nil
}

type failure struct {
	Error string `json:"error"`
}

func fail(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(failure{Error: err.Error()})
}

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
)

// StartJob asks the daemon behind the socket to make the calling process the
// first of a new job.
func StartJob(ctx context.Context, socket string, req JobRequest) (JobReply, error) {
	var reply JobReply
	return reply, ask(ctx, socket, "/v1/jobs", req, &reply)
}

// Admit asks the daemon behind the socket what the calling process is, and waits until
// that is known and enforced. An error that wraps [ErrAway] says that no daemon
// answered; one may be about to start.
func Admit(ctx context.Context, socket string, req AdmissionRequest) (AdmissionReply, error) {
	var reply AdmissionReply
	return reply, ask(ctx, socket, "/v1/admission", req, &reply)
}

// ErrAway is wrapped by the errors of [Admit] and [StartJob] when no daemon answered.
var ErrAway = errors.New("no daemon answers")

func ask(ctx context.Context, socket, path string, req, reply any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://daemon"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return &awayError{explain(socket, err)}
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return &awayError{fmt.Errorf("the daemon's answer: %w", err)}
	}
	if response.StatusCode != http.StatusOK {
		var failed failure
		if err := json.Unmarshal(answer, &failed); err != nil || failed.Error == "" {
			return fmt.Errorf("the daemon answered %s", response.Status)
		}
		err = errors.New(failed.Error)
		if response.StatusCode == http.StatusServiceUnavailable {
			err = &awayError{err}
		}
		return err
	}
	if err := json.Unmarshal(answer, reply); err != nil {
		return fmt.Errorf("the daemon's answer: %w", err)
	}
	return nil
}

// awayError is an [ErrAway] that says what is wrong in its own words.
type awayError struct{ err error }

func (e *awayError) Error() string        { return e.err.Error() }
func (e *awayError) Unwrap() error        { return e.err }
func (e *awayError) Is(target error) bool { return target == ErrAway }

// explain says what to do about a daemon that doesn't answer.
func explain(socket string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("no daemon at %s: start one with \"chaperone up\", or say where it is with --run-dir", socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("the daemon behind %s is not running: start it with \"chaperone up\"", socket)
	}
	return fmt.Errorf("asking the daemon at %s: %w", socket, err)
}

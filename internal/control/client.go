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
	body, err := json.Marshal(req)
	if err != nil {
		return JobReply{}, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://daemon/v1/jobs", bytes.NewReader(body))
	if err != nil {
		return JobReply{}, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return JobReply{}, explain(socket, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return JobReply{}, fmt.Errorf("the daemon's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		var failed failure
		if err := json.Unmarshal(answer, &failed); err != nil || failed.Error == "" {
			return JobReply{}, fmt.Errorf("the daemon answered %s", response.Status)
		}
		return JobReply{}, errors.New(failed.Error)
	}
	var reply JobReply
	if err := json.Unmarshal(answer, &reply); err != nil {
		return JobReply{}, fmt.Errorf("the daemon's answer: %w", err)
	}
	return reply, nil
}

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

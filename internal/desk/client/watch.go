package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/desk/api"
)

// ErrBroken is wrapped by what [Client.Watch] returns when the connection
// ended: to go on, watch again.
var ErrBroken = errors.New("the sink's answer broke off")

// Watch gives f all pending requests that the person may see, and then each
// one that is new or changed, until ctx is done (which is no error), f fails, or
// the connection ends. A request may come more than once.
func (c *Client) Watch(ctx context.Context, f func(api.View) error) error {
	watching, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	response, err := c.do(watching, http.MethodGet, "/v1/approvals/watch", nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer response.Body.Close()
	// A connection that died without a word is told by the pings that don't come.
	silence := time.AfterFunc(3*api.PingEvery, func() { cancel(errors.New("it has been silent for too long")) })
	defer silence.Stop()
	err = readEvents(response.Body, func(name string, data []byte) error {
		silence.Reset(3 * api.PingEvery)
		if name != "approval" {
			return nil
		}
		var v api.View
		if err := json.Unmarshal(data, &v); err != nil {
			return fmt.Errorf("the sink at %s: its answer can't be read: %w", c.at, err)
		}
		return f(v)
	})
	if ctx.Err() != nil {
		return nil
	}
	if cause := context.Cause(watching); errors.Is(err, ErrBroken) && cause != nil {
		return fmt.Errorf("%w: %w", ErrBroken, cause)
	}
	return err
}

// readEvents gives each server-sent event to f, until the stream ends, which
// is an error too.
func readEvents(r io.Reader, f func(name string, data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 16<<10), api.MaxEvent)
	var name string
	var data []byte
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			if name != "" || data != nil {
				if err := f(name, data); err != nil {
					return err
				}
			}
			name, data = "", nil
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			if data != nil {
				data = append(data, '\n')
			}
			if data = append(data, value...); len(data) > api.MaxEvent {
				return fmt.Errorf("%w: an event is longer than %d bytes", ErrBroken, api.MaxEvent)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return ErrBroken
}

package sink

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"chaperone.dev/chaperone/pkg/event"
)

// Client asks a sink.
type Client struct {
	http *http.Client
	base string
	at   string
}

// NewClient returns a client of the sink at a unix socket's path, or at an
// "http://" or "https://" URL.
func NewClient(at string) *Client {
	if strings.HasPrefix(at, "http://") || strings.HasPrefix(at, "https://") {
		return &Client{http: &http.Client{}, base: strings.TrimSuffix(at, "/"), at: at}
	}
	path := strings.TrimPrefix(at, "unix:")
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}, base: "http://sink", at: path}
}

// get asks for a path. The caller closes the body.
func (c *Client) get(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path+"?"+q.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the sink at %s can't be reached; is the daemon running, and may you use it? %w", c.at, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	err = errors.Join(err, resp.Body.Close())
	if resp.StatusCode == http.StatusNotFound && strings.TrimSpace(string(text)) == ErrNotFound.Error() {
		return nil, ErrNotFound
	}
	return nil, errors.Join(fmt.Errorf("sink: %s: %s", resp.Status, strings.TrimSpace(string(text))), err)
}

func (c *Client) json(ctx context.Context, path string, q url.Values, v any) error {
	body, err := c.get(ctx, path, q)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, 64<<20)).Decode(v); err != nil {
		return fmt.Errorf("sink: unreadable answer: %w", err)
	}
	return nil
}

// Sessions lists sessions, newest first.
func (c *Client) Sessions(ctx context.Context, q Query) ([]Session, error) {
	v := url.Values{}
	set := func(name, value string, on bool) {
		if on {
			v.Set(name, value)
		}
	}
	set("principal", q.Principal, q.Principal != "")
	set("target", q.Target, q.Target != "")
	set("since", q.Since.Format(time.RFC3339), !q.Since.IsZero())
	set("limit", strconv.Itoa(q.Limit), q.Limit > 0)
	var list []Session
	return list, c.json(ctx, "/v1/sessions", v, &list)
}

// Session returns one session, or [ErrNotFound].
func (c *Client) Session(ctx context.Context, id string) (Session, error) {
	var s Session
	return s, c.json(ctx, "/v1/sessions/"+url.PathEscape(id), nil, &s)
}

// Keys returns the public keys of the nodes, by name.
func (c *Client) Keys(ctx context.Context) (map[string]ed25519.PublicKey, error) {
	keys := map[string]ed25519.PublicKey{}
	return keys, c.json(ctx, "/v1/keys", nil, &keys)
}

// Blocks gives each block of a session's recording to f, as it came.
func (c *Client) Blocks(ctx context.Context, id string, f func([]byte) error) error {
	body, err := c.get(ctx, "/v1/sessions/"+url.PathEscape(id)+"/blocks", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	return ReadBlocks(body, f)
}

// ReadBlocks gives each block of a recording's file to f.
func ReadBlocks(r io.Reader, f func([]byte) error) error {
	return readBlocks(bufio.NewReaderSize(r, 128<<10), f)
}

// EventQuery selects events; zero fields select all.
type EventQuery struct {
	Type   event.Type
	Target string
	Since  time.Time
	Limit  int
	Follow bool // go on with what comes, until ctx is done
}

// Events gives events to f, oldest first, with the line that they came in. An
// error of f ends it.
func (c *Client) Events(ctx context.Context, q EventQuery, f func(e event.Event, line []byte) error) error {
	v := url.Values{}
	if q.Type != "" {
		v.Set("type", string(q.Type))
	}
	if q.Target != "" {
		v.Set("target", q.Target)
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	body, err := c.get(ctx, "/v1/events", v)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), event.MaxSize+1)
	for lines.Scan() {
		e, err := event.Decode(lines.Bytes())
		if err != nil {
			return fmt.Errorf("sink: %w", err)
		}
		if err := f(e, lines.Bytes()); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil // whoever follows has seen enough
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("sink: the answer broke off: %w", err)
	}
	return nil
}

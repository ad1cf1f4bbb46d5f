// Package client asks the desk: on the sink's unix socket, where the kernel
// says who asks, or over HTTPS with an ID token. It knows nothing of how the
// token is come by.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/lock"
)

// Options say where the desk is. One of Socket and URL is set.
type Options struct {
	Socket string
	URL    string // "https://host", or "http://" on loopback
	// Token gives an ID token for each request over URL. It may be nil for
	// [Client.Login], which needs none.
	Token  func(ctx context.Context) (string, error)
	CAFile string // PEM; empty: the system's
}

// Client asks a desk. Safe for concurrent use.
type Client struct {
	http  *http.Client
	base  string
	at    string // for messages
	token func(ctx context.Context) (string, error)
}

const (
	dialTimeout   = 5 * time.Second
	answerTimeout = 30 * time.Second
	maxToken      = 16 << 10
)

// New returns a client. It connects when it is used.
func New(o Options) (*Client, error) {
	transport := &http.Transport{
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  answerTimeout,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
	c := &Client{http: &http.Client{
		Transport: transport,
		// The desk redirects nobody, and a token must go nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	dialer := &net.Dialer{Timeout: dialTimeout}
	switch {
	case o.Socket != "" && o.URL != "":
		return nil, errors.New("the sink: a socket and a URL are given, want one of them")
	case o.Socket != "":
		path := strings.TrimPrefix(o.Socket, "unix:")
		c.base, c.at = "http://sink", path
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
		return c, nil
	case o.URL == "":
		return nil, errors.New("the sink: neither a socket nor a URL is given")
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("the sink's URL %q: want one like https://chaperone.corp.example", o.URL)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("the sink's URL %q: it must be https, as your token goes there", o.URL)
	}
	c.base, c.at, c.token = u.Scheme+"://"+u.Host, o.URL, o.Token
	transport.Proxy = http.ProxyFromEnvironment
	transport.DialContext = dialer.DialContext
	transport.ForceAttemptHTTP2 = true
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		content, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("the sink's CA file: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("the sink's CA file %s holds no PEM certificate", o.CAFile)
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	return c, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Login tells where to log in.
func (c *Client) Login(ctx context.Context) (api.LoginInfo, error) {
	open := *c
	open.token = nil
	return call[api.LoginInfo](ctx, &open, http.MethodGet, "/v1/login", nil)
}

// WhoAmI is who the desk takes the caller for.
func (c *Client) WhoAmI(ctx context.Context) (api.Who, error) {
	return call[api.Who](ctx, c, http.MethodGet, "/v1/whoami", nil)
}

// Approvals lists requests, newest first. state is "pending" or "all".
func (c *Client) Approvals(ctx context.Context, state string) ([]api.View, error) {
	return call[[]api.View](ctx, c, http.MethodGet, "/v1/approvals?state="+url.QueryEscape(state), nil)
}

// Approval returns one request. id may be the beginning of one, if no other
// begins so.
func (c *Client) Approval(ctx context.Context, id string) (api.View, error) {
	return call[api.View](ctx, c, http.MethodGet, "/v1/approvals/"+url.PathEscape(id), nil)
}

// Vote answers a request.
func (c *Client) Vote(ctx context.Context, id string, v api.VoteRequest) (api.View, error) {
	return call[api.View](ctx, c, http.MethodPost, "/v1/approvals/"+url.PathEscape(id)+"/votes", v)
}

// Locks lists locks, newest first.
func (c *Client) Locks(ctx context.Context) ([]lock.Entry, error) {
	return call[[]lock.Entry](ctx, c, http.MethodGet, "/v1/locks", nil)
}

// Lock puts a lock in force.
func (c *Client) Lock(ctx context.Context, r api.LockRequest) (lock.Entry, error) {
	return call[lock.Entry](ctx, c, http.MethodPost, "/v1/locks", r)
}

// Unlock releases a lock before its time.
func (c *Client) Unlock(ctx context.Context, id, reason string) (lock.Entry, error) {
	return call[lock.Entry](ctx, c, http.MethodDelete, "/v1/locks/"+url.PathEscape(id), api.UnlockRequest{Reason: reason})
}

// Publish puts documents in force on all nodes that take published ones. What is
// wrong with them is the error's message, one per line.
func (c *Client) Publish(ctx context.Context, files map[string]string) (api.Published, error) {
	return call[api.Published](ctx, c, http.MethodPut, "/v1/documents", api.PublishRequest{Files: files})
}

// Published returns the documents that are published.
func (c *Client) Published(ctx context.Context) (api.Published, error) {
	return call[api.Published](ctx, c, http.MethodGet, "/v1/documents", nil)
}

// call asks and decodes the answer.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var answer T
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	response, err := c.do(ctx, method, path, body)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, api.MaxAnswer)).Decode(&answer); err != nil {
		return answer, fmt.Errorf("the sink at %s: its answer can't be read: %w", c.at, err)
	}
	return answer, nil
}

// do asks. The caller closes the body, which is that of a success.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("the sink: %w", err)
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, fmt.Errorf("the sink: %w", err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != nil {
		token, err := c.token(ctx)
		if err != nil {
			return nil, err
		}
		if token == "" || len(token) > maxToken || strings.ContainsAny(token, " \t\r\n") {
			return nil, errors.New("the token for the sink is none; log in again with: chaperone login")
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("the sink at %s can't be reached: %w", c.at, unwrapURL(err))
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	return nil, refusal(response)
}

// refusal reads why the desk refused. Something else that answers in its
// place, such as a proxy, is told by its status.
func refusal(response *http.Response) error {
	refused := &api.Error{Status: response.StatusCode}
	const most = 1 << 20
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		if json.NewDecoder(io.LimitReader(response.Body, most)).Decode(refused) != nil {
			refused.Code, refused.Message = "", ""
		}
	}
	return refused
}

// unwrapURL takes off what url.Error adds: the address is told in words.
func unwrapURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

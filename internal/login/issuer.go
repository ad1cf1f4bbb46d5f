package login

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Errors of [Client], to be told apart with errors.Is.
var (
	// ErrUnavailable: the issuer can't be asked at the moment.
	ErrUnavailable = errors.New("the issuer can't be asked")
	// ErrDenied: the person, or the issuer, refused.
	ErrDenied = errors.New("the login was refused")
	// ErrLate: nobody has finished the login in time.
	ErrLate = errors.New("nobody has finished the login in time")
	// ErrToken: what the issuer gave proves nothing.
	ErrToken = errors.New("the issuer's token is no good")
)

// Options of [Open], as the sink tells them.
type Options struct {
	Issuer   string // URL
	ClientID string // of a public client
	Scopes   []string
	// CAFile holds PEM certificates to trust besides the system's.
	CAFile string
}

// Client is a public client at an issuer. Safe for concurrent use.
type Client struct {
	http     *http.Client
	provider *oidc.Provider
	config   oauth2.Config
	// namesIssuer: the issuer's answers say whose they are (RFC 9207).
	namesIssuer bool
}

const (
	askTimeout   = 10 * time.Second // of one question to the issuer
	maxAnswer    = 1 << 20
	maxRedirects = 3
	maxLogin     = 15 * time.Minute // from its beginning to the person's end of it
)

// Open asks an issuer for its metadata, which must name the issuer itself.
func Open(ctx context.Context, o Options) (*Client, error) {
	return open(ctx, o, func(t http.RoundTripper) http.RoundTripper { return t })
}

func open(ctx context.Context, o Options, wrap func(http.RoundTripper) http.RoundTripper) (*Client, error) {
	if u, err := url.Parse(o.Issuer); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("issuer %q is no https URL", o.Issuer)
	}
	if o.ClientID == "" {
		return nil, errors.New("the sink names no client for the login")
	}
	c := &Client{}
	var err error
	if c.http, err = httpClient(o.CAFile, wrap); err != nil {
		return nil, err
	}
	if c.provider, err = oidc.NewProvider(c.context(ctx), o.Issuer); err != nil {
		c.Close()
		return nil, fmt.Errorf("issuer %s: %w: %s", o.Issuer, ErrUnavailable, brief(err))
	}
	var metadata struct {
		NamesIssuer bool `json:"authorization_response_iss_parameter_supported"`
	}
	if err := c.provider.Claims(&metadata); err != nil {
		c.Close()
		return nil, fmt.Errorf("issuer %s: %w: its metadata can't be read", o.Issuer, ErrUnavailable)
	}
	c.namesIssuer = metadata.NamesIssuer
	c.config = oauth2.Config{ClientID: o.ClientID, Endpoint: c.provider.Endpoint(), Scopes: o.Scopes}
	c.config.Endpoint.AuthStyle = oauth2.AuthStyleInParams // it is a public client
	if !slices.Contains(c.config.Scopes, oidc.ScopeOpenID) {
		c.config.Scopes = append([]string{oidc.ScopeOpenID}, o.Scopes...)
	}
	return c, nil
}

// Close lets go of idle connections to the issuer.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// context has the libraries use our client.
func (c *Client) context(ctx context.Context) context.Context { return oidc.ClientContext(ctx, c.http) }

// verify takes the ID token out of an answer, and checks its signature, issuer,
// audience, time and, if one was given, its nonce.
func (c *Client) verify(ctx context.Context, answer *oauth2.Token, nonce string) (Token, error) {
	raw, ok := answer.Extra("id_token").(string)
	if !ok || raw == "" {
		return Token{}, fmt.Errorf("%w: its answer holds no ID token", ErrToken)
	}
	if _, err := OneToken(raw); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	token, err := c.provider.Verifier(&oidc.Config{ClientID: c.config.ClientID}).Verify(c.context(ctx), raw)
	if err != nil {
		return Token{}, fmt.Errorf("%w: %s", ErrToken, brief(err))
	}
	var claims struct {
		Party string `json:"azp"`
	}
	if err := token.Claims(&claims); err != nil {
		return Token{}, fmt.Errorf("%w: its claims can't be read", ErrToken)
	}
	switch {
	case claims.Party != "" && claims.Party != c.config.ClientID:
		return Token{}, fmt.Errorf("%w: it was given to another client", ErrToken)
	case nonce != "" && subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(nonce)) != 1:
		return Token{}, fmt.Errorf("%w: it was made for another login", ErrToken)
	}
	return Token{Raw: raw, Subject: token.Subject, Expires: token.Expiry}, nil
}

// failure says why the issuer gave no token.
func failure(ctx context.Context, err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.ErrorCode == "access_denied":
		return ErrDenied
	case errors.As(err, &refused) && refused.ErrorCode == "expired_token":
		return ErrLate
	case errors.As(err, &refused) && refused.ErrorCode != "":
		return fmt.Errorf("%w: the issuer says %s", ErrDenied, brief(errors.New(strings.TrimSpace(refused.ErrorCode+" "+refused.ErrorDescription))))
	case errors.As(err, &refused) && refused.Response != nil:
		return fmt.Errorf("%w: it answered %s", ErrUnavailable, brief(errors.New(refused.Response.Status)))
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && !isTimeout(err):
		return ErrLate
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %s", ErrUnavailable, brief(err))
}

// isTimeout tells an answer that did not come from a login whose time is over.
func isTimeout(err error) bool {
	var asked *url.Error
	return errors.As(err, &asked)
}

// httpClient bounds what an issuer can do to us: the time of an answer, its size,
// and where it leads.
func httpClient(caFile string, wrap func(http.RoundTripper) http.RoundTripper) (*http.Client, error) {
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           2,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if caFile != "" {
		content, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool() // a machine may have none
		}
		if !roots.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("CA file %s holds no PEM certificate", caFile)
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	return &http.Client{
		Transport: &bounded{wrap(transport), transport},
		Timeout:   askTimeout,
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			return nil
		},
	}, nil
}

// bounded refuses requests without TLS, to which metadata or a redirect could lead, and
// answers that are too long.
type bounded struct {
	http.RoundTripper
	transport *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is no https URL", r.URL.Redacted())
	}
	response, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	return response, nil
}

// CloseIdleConnections is what http.Client looks for.
func (b *bounded) CloseIdleConnections() { b.transport.CloseIdleConnections() }

// brief keeps what others wrote from filling our messages, and from doing more
// than being read.
func brief(err error) string {
	const limit = 300
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, err.Error())
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

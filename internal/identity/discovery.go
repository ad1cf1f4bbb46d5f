package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// issuer returns what is known of the issuer, and asks it when that is
// nothing, or old. Only one caller at a time asks; the others wait, but no
// longer than their ctx.
func (v *Verifier) issuer(ctx context.Context) (*issuer, error) {
	if is, ok, err := v.remembered(); ok {
		return is, err
	}
	select {
	case v.asking <- struct{}{}:
		defer func() { <-v.asking }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	if is, ok, err := v.remembered(); ok { // somebody asked while we waited
		return is, err
	}
	found, err := v.discover(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		v.current, v.failure = found, nil
		return found, nil
	}
	err = fmt.Errorf("%w: %s", ErrUnavailable, brief(err))
	if ctx.Err() == nil { // the issuer's fault, not the caller's haste
		v.failure, v.failed = err, v.now()
	}
	if v.current != nil && v.now().Sub(v.current.since) < keepFor {
		return v.current, nil
	}
	return nil, err
}

// remembered answers without asking the issuer, if that will do: when it was
// asked lately, with success or without.
func (v *Verifier) remembered() (is *issuer, ok bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	var age time.Duration
	if v.current != nil {
		age = now.Sub(v.current.since)
	}
	switch {
	case v.current != nil && age < refreshAfter:
		return v.current, true, nil
	case v.failure == nil || now.Sub(v.failed) > pauseAfterFailure:
		return nil, false, nil
	case v.current != nil && age < keepFor:
		return v.current, true, nil
	default:
		return nil, true, v.failure
	}
}

// discover reads the issuer's metadata (OpenID Connect Discovery 1.0, section
// 4), which must name the issuer itself.
func (v *Verifier) discover(ctx context.Context) (*issuer, error) {
	ctx = oidc.ClientContext(ctx, v.client)
	provider, err := oidc.NewProvider(ctx, v.spec.Issuer)
	if err != nil {
		return nil, err
	}
	var metadata struct {
		JWKSURI    string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := provider.Claims(&metadata); err != nil {
		return nil, err
	}
	if metadata.JWKSURI == "" {
		return nil, errors.New("its metadata names no jwks_uri")
	}
	is := &issuer{keys: oidc.NewRemoteKeySet(ctx, metadata.JWKSURI), since: v.now()}
	for _, a := range metadata.Algorithms {
		if slices.Contains(algorithms, a) {
			is.algorithms = append(is.algorithms, a)
		}
	}
	return is, nil // without algorithms the verifier takes RS256 alone
}

// httpClient bounds what the issuer can do to us: the time of an answer, its
// size, and where it leads.
func httpClient(caFile string) (*http.Client, error) {
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
			return nil, fmt.Errorf("caFile: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("caFile: %s holds no PEM certificate", caFile)
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	return &http.Client{
		Transport: &bounded{transport},
		Timeout:   10 * time.Second,
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			const limit = 3
			if len(via) > limit {
				return errors.New("too many redirects")
			}
			return nil
		},
	}, nil
}

// bounded refuses requests without TLS, which a redirect or a jwks_uri could
// lead to, and answers that are too long.
type bounded struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is no https URL", r.URL.Redacted())
	}
	response, err := b.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	const limit = 1 << 20
	response.Body = http.MaxBytesReader(nil, response.Body, limit)
	return response, nil
}

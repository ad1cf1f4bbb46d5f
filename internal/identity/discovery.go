package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	// refreshAfter is how old the issuer's keys may be before they are asked
	// for again, so that a withdrawn key goes; keepFor is how long they serve
	// when the issuer doesn't answer.
	refreshAfter = time.Hour
	keepFor      = 24 * time.Hour
	// pauseAfterFailure keeps many jobs from each waiting for an issuer that
	// doesn't answer, and pauseAfterSuccess those with forged tokens from having
	// it asked for keys again and again.
	pauseAfterFailure = 2 * time.Second
	pauseAfterSuccess = 2 * time.Second
)

// issuer is what discovery found. It doesn't change.
type issuer struct {
	keys          []jose.JSONWebKey
	algorithms    []jose.SignatureAlgorithm
	tokenEndpoint string
	since         time.Time
}

// issuer returns what is known of the issuer, and asks it when that is
// nothing, or old, or stale, which is what was found not to do. Only one caller
// at a time asks; the others wait, but no longer than their ctx.
func (v *Verifier) issuer(ctx context.Context, stale *issuer) (*issuer, error) {
	if is, ok, err := v.remembered(stale); ok {
		return is, err
	}
	select {
	case v.asking <- struct{}{}:
		defer func() { <-v.asking }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	if is, ok, err := v.remembered(stale); ok { // somebody asked while we waited
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
		v.failure, v.failed = err, v.clock.Latest()
	}
	if v.current != nil && v.current != stale && v.since(v.current.since) < keepFor {
		return v.current, nil
	}
	return nil, err
}

// remembered answers without asking the issuer, if that will do: when it was
// asked lately, with success or without.
func (v *Verifier) remembered(stale *issuer) (is *issuer, ok bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	is = v.current
	var age time.Duration
	if is != nil {
		age = v.since(is.since)
	}
	failedLately := v.failure != nil && v.since(v.failed) <= pauseAfterFailure
	switch {
	case is != nil && is != stale && age < refreshAfter:
		return is, true, nil
	case is != nil && is == stale && age < pauseAfterSuccess:
		return is, true, nil
	case !failedLately:
		return nil, false, nil
	case is != nil && is != stale && age < keepFor:
		return is, true, nil
	default:
		return nil, true, v.failure
	}
}

// since is how long ago a time was. One that is yet to come was read off a clock that
// was set forward and back again; nothing is known of how long ago that was.
func (v *Verifier) since(t time.Time) time.Duration {
	if age := v.clock.Latest().Sub(t); age >= 0 {
		return age
	}
	return keepFor
}

// discover reads the issuer's metadata (OpenID Connect Discovery 1.0, section
// 4), which must name the issuer itself, and its keys.
func (v *Verifier) discover(ctx context.Context) (*issuer, error) {
	var metadata struct {
		Issuer        string   `json:"issuer"`
		JWKSURI       string   `json:"jwks_uri"`
		TokenEndpoint string   `json:"token_endpoint"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}
	since := v.clock.Latest()
	if err := v.get(ctx, strings.TrimSuffix(v.spec.Issuer, "/")+"/.well-known/openid-configuration", &metadata); err != nil {
		return nil, err
	}
	if metadata.Issuer != v.spec.Issuer {
		return nil, fmt.Errorf("it says that it is issuer %q, not %q", metadata.Issuer, v.spec.Issuer)
	}
	if metadata.JWKSURI == "" {
		return nil, errors.New("its metadata names no jwks_uri")
	}
	is := &issuer{since: since, tokenEndpoint: metadata.TokenEndpoint}
	for _, a := range metadata.Algorithms {
		if slices.Contains(algorithms(), jose.SignatureAlgorithm(a)) {
			is.algorithms = append(is.algorithms, jose.SignatureAlgorithm(a))
		}
	}
	if len(is.algorithms) == 0 {
		is.algorithms = []jose.SignatureAlgorithm{jose.RS256} // which all must support
	}
	var err error
	is.keys, err = v.fetchKeys(ctx, metadata.JWKSURI)
	return is, err
}

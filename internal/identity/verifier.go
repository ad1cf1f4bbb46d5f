package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"chaperone.dev/chaperone/pkg/policy"
)

// Errors of [Verifier.Verify], to be told apart with errors.Is.
var (
	// ErrToken: the token proves nothing to us; another one is needed.
	ErrToken = errors.New("token refused")
	// ErrUnavailable: the issuer's keys can't be had at the moment.
	ErrUnavailable = errors.New("issuer unavailable")
)

const (
	maxToken  = 16 << 10 // bytes
	clockSkew = 30 * time.Second
	// refreshAfter is how old the issuer's keys may be before they are asked
	// for again, so that a withdrawn key goes; keepFor is how long they serve
	// when the issuer doesn't answer.
	refreshAfter = time.Hour
	keepFor      = 24 * time.Hour
	// pauseAfterFailure keeps many jobs from each waiting for an issuer that
	// doesn't answer.
	pauseAfterFailure = 2 * time.Second
)

// algorithms that sign with a private key. "none" and the HMACs, whose key
// would be the public one, are not among them.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
	oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// Verifier verifies tokens of one issuer. It asks the issuer for its keys
// when the first token comes. Safe for concurrent use.
type Verifier struct {
	name   string // of the document
	spec   policy.IdentityProviderSpec
	client *http.Client
	now    func() time.Time

	mu      sync.Mutex
	current *issuer       // nil until the first discovery
	failure error         // of the last discovery, nil if it succeeded
	failed  time.Time     // when that was
	asking  chan struct{} // holds one token, for who discovers
}

// issuer is what discovery found.
type issuer struct {
	keys       *oidc.RemoteKeySet
	algorithms []string
	since      time.Time
}

// Open makes a verifier from an IdentityProvider document. It reads the CA
// file; the issuer needn't be up.
func Open(provider *policy.IdentityProvider) (*Verifier, error) {
	u, err := url.Parse(provider.Spec.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("identity provider %s: issuer %q is no https URL", provider.Metadata.Name, provider.Spec.Issuer)
	}
	client, err := httpClient(provider.Spec.CAFile)
	if err != nil {
		return nil, fmt.Errorf("identity provider %s: %w", provider.Metadata.Name, err)
	}
	return &Verifier{
		name: provider.Metadata.Name, spec: provider.Spec, client: client,
		now: time.Now, asking: make(chan struct{}, 1),
	}, nil
}

// Close lets go of idle connections to the issuer.
func (v *Verifier) Close() { v.client.CloseIdleConnections() }

// Verify checks a token's signature, issuer, audience and time, and returns
// whom it speaks of. audience must be among the token's; empty stands for any
// of the provider's audiences. White space around the token doesn't matter.
// The principal expires when the token does, plus the half minute by which
// clocks may differ.
func (v *Verifier) Verify(ctx context.Context, token, audience string) (policy.Principal, error) {
	p, err := v.verify(ctx, strings.TrimSpace(token), audience)
	if err != nil {
		return policy.Principal{}, fmt.Errorf("identity provider %s: %w", v.name, err)
	}
	return p, nil
}

func (v *Verifier) verify(ctx context.Context, token, audience string) (policy.Principal, error) {
	switch {
	case token == "":
		return policy.Principal{}, fmt.Errorf("%w: it is empty", ErrToken)
	case len(token) > maxToken:
		return policy.Principal{}, fmt.Errorf("%w: it has %d bytes, %d at most", ErrToken, len(token), maxToken)
	}
	is, err := v.issuer(ctx)
	if err != nil {
		return policy.Principal{}, err
	}
	keys := &watchedKeys{inner: is.keys}
	verified, err := oidc.NewVerifier(v.spec.Issuer, keys, &oidc.Config{
		SkipClientIDCheck:    true, // done below, against several
		SupportedSigningAlgs: is.algorithms,
		Now:                  func() time.Time { return v.now().Add(-clockSkew) },
	}).Verify(ctx, token)
	if keys.unavailable != nil {
		return policy.Principal{}, fmt.Errorf("%w: its keys: %s", ErrUnavailable, brief(keys.unavailable))
	}
	var expired *oidc.TokenExpiredError
	switch {
	case errors.As(err, &expired) && expired.Expiry.IsZero():
		return policy.Principal{}, fmt.Errorf("%w: it has no expiry", ErrToken)
	case errors.As(err, &expired):
		return policy.Principal{}, fmt.Errorf("%w: it expired at %s", ErrToken, expired.Expiry.UTC().Format(time.RFC3339))
	case err != nil:
		return policy.Principal{}, fmt.Errorf("%w: %s", ErrToken, brief(err))
	}
	if err := v.checkAudience(verified.Audience, audience); err != nil {
		return policy.Principal{}, err
	}
	return v.principal(verified)
}

func (v *Verifier) checkAudience(got []string, want string) error {
	accepted := v.spec.Audiences
	if want != "" {
		accepted = []string{want}
	}
	for _, audience := range accepted {
		if audience != "" && slices.Contains(got, audience) {
			return nil
		}
	}
	return fmt.Errorf("%w: it is for audience %s, not for %s", ErrToken, list(got), list(accepted))
}

// watchedKeys remembers whether a verification failed for want of keys, which
// oidc.IDTokenVerifier tells in words alone.
type watchedKeys struct {
	inner       *oidc.RemoteKeySet
	unavailable error
}

func (w *watchedKeys) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := w.inner.VerifySignature(ctx, jwt)
	// The other failure is a signature that none of the keys made.
	if err != nil && strings.HasPrefix(err.Error(), "fetching keys ") {
		w.unavailable = err
	}
	return payload, err
}

// list and brief keep what others wrote from filling our messages.
func list(names []string) string { return brief(fmt.Errorf("%q", names)) }

func brief(err error) string {
	const limit = 300
	text := err.Error()
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

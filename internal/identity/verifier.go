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

	"chaperone.dev/chaperone/internal/clock"
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
)

// Verifier verifies tokens of one issuer. It asks the issuer for its keys
// when the first token comes. Safe for concurrent use.
type Verifier struct {
	name   string // of the document
	spec   policy.IdentityProviderSpec
	client *http.Client
	clock  *clock.Clock

	mu      sync.Mutex
	current *issuer       // nil until the first discovery
	failure error         // of the last discovery, nil if it succeeded
	failed  time.Time     // when that was
	asking  chan struct{} // holds one token, for who discovers
}

// Open makes a verifier from an IdentityProvider document. It reads the CA
// file; the issuer needn't be up.
func Open(provider *policy.IdentityProvider) (*Verifier, error) {
	return OpenAt(provider, clock.New(clock.Options{}))
}

// OpenAt is [Open] for a process that has a clock already. All that must agree on
// what has expired has the same one.
func OpenAt(provider *policy.IdentityProvider, at *clock.Clock) (*Verifier, error) {
	u, err := url.Parse(provider.Spec.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("identity provider %s: issuer %q is no https URL", provider.Metadata.Name, provider.Spec.Issuer)
	}
	client, err := httpClient(provider.Spec.CAFile, provider.Spec.BearerTokenFile != "")
	if err != nil {
		return nil, fmt.Errorf("identity provider %s: %w", provider.Metadata.Name, err)
	}
	return &Verifier{
		name: provider.Metadata.Name, spec: provider.Spec, client: client,
		clock: at, asking: make(chan struct{}, 1),
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
	is, err := v.issuer(ctx, nil)
	if err != nil {
		return policy.Principal{}, err
	}
	config := &oidc.Config{
		SkipClientIDCheck: true, // done below, against several
		SkipExpiryCheck:   true, // done below, by a clock that can't be set
	}
	for _, a := range is.algorithms {
		config.SupportedSigningAlgs = append(config.SupportedSigningAlgs, string(a))
	}
	keys := &issuerKeys{verifier: v, issuer: is}
	verified, err := oidc.NewVerifier(v.spec.Issuer, keys, config).Verify(ctx, token)
	if keys.unavailable != nil {
		return policy.Principal{}, keys.unavailable
	}
	if err != nil {
		return policy.Principal{}, fmt.Errorf("%w: %s", ErrToken, brief(err))
	}
	claims := map[string]any{}
	if err := verified.Claims(&claims); err != nil {
		return policy.Principal{}, fmt.Errorf("%w: its claims can't be read", ErrToken)
	}
	if err := v.checkTime(verified, claims); err != nil {
		return policy.Principal{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if err := v.checkAudience(verified.Audience, audience); err != nil {
		return policy.Principal{}, err
	}
	return v.principal(verified, claims)
}

// checkTime refuses a token before and after its time (RFC 7519, section 4.1). When the
// machine's clock was set, both are judged by the reading that is less in its favour.
func (v *Verifier) checkTime(token *oidc.IDToken, claims map[string]any) error {
	const latestYear = 9000 // later ones can't be kept
	switch {
	case token.Expiry.IsZero():
		return errors.New("it has no expiry")
	case token.Expiry.Year() > latestYear || token.Expiry.Year() < 0:
		return errors.New("its expiry is no time")
	case !v.clock.Latest().Before(token.Expiry.Add(clockSkew)):
		return fmt.Errorf("it expired at %s%s", token.Expiry.UTC().Format(time.RFC3339), v.moved())
	}
	for claim, meaning := range map[string]string{"nbf": "it is not valid before", "iat": "it says that it was issued at"} {
		value, ok := claims[claim]
		if !ok {
			continue
		}
		seconds, ok := value.(float64)
		if !ok || seconds < 0 || seconds > float64(token.Expiry.Unix()) {
			return fmt.Errorf("claim %q is no time before its expiry", claim)
		}
		if at := time.Unix(int64(seconds), 0); v.clock.Earliest().Add(clockSkew).Before(at) {
			return fmt.Errorf("%s %s, which is yet to come%s", meaning, at.UTC().Format(time.RFC3339), v.moved())
		}
	}
	return nil
}

// moved tells who wonders about a time that the node's clock was set.
func (v *Verifier) moved() string {
	by, moved := v.clock.Moved()
	if !moved {
		return ""
	}
	return fmt.Sprintf("; this machine's clock was set by %s since the process started: put it right and start the process again",
		by.Round(time.Second))
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

package identity

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"chaperone.dev/chaperone/pkg/policy"
)

// ErrAccount says that the issuer gives a service account no token.
var ErrAccount = errors.New("service account refused")

// ServiceAccount is a client at an issuer that gets its tokens with a secret (RFC 6749,
// section 4.4). Safe for concurrent use.
type ServiceAccount struct {
	verifier *Verifier
	spec     policy.ClientCredentialsSpec

	mu      sync.Mutex
	failure error // of the last request, nil if it succeeded
	failed  time.Time
}

// ServiceAccount returns a client of the verifier's issuer. It asks nothing yet.
func (v *Verifier) ServiceAccount(spec policy.ClientCredentialsSpec) *ServiceAccount {
	return &ServiceAccount{verifier: v, spec: spec}
}

// Token asks the issuer for a token, which [Verifier.Verify] has to be asked about as
// of any. audience, if it isn't empty, is named to issuers that make tokens for whom they
// are asked to; others take no notice. The secret is read anew each time. The error is
// [ErrAccount] when another secret or another setting at the issuer is needed, and
// [ErrUnavailable] when the issuer can't be asked.
func (a *ServiceAccount) Token(ctx context.Context, audience string) (string, error) {
	v := a.verifier
	if err := a.failedLately(); err != nil {
		return "", err
	}
	token, err := a.token(ctx, audience)
	if err == nil {
		a.remember(nil)
		return token, nil
	}
	err = fmt.Errorf("identity provider %s: %w", v.name, err)
	if ctx.Err() == nil {
		a.remember(err)
	}
	return "", err
}

func (a *ServiceAccount) failedLately() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil && a.verifier.since(a.failed) <= pauseAfterFailure {
		return a.failure
	}
	return nil
}

func (a *ServiceAccount) remember(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failure, a.failed = err, a.verifier.clock.Latest()
}

func (a *ServiceAccount) token(ctx context.Context, audience string) (string, error) {
	v := a.verifier
	secret, err := readLine(a.spec.ClientSecretFrom.File, others)
	if err != nil {
		return "", fmt.Errorf("%w: the secret of %q: %w", ErrAccount, a.spec.ClientID, err)
	}
	is, err := v.issuer(ctx, nil)
	if err != nil {
		return "", err
	}
	if is.tokenEndpoint == "" {
		return "", fmt.Errorf("%w: the issuer has no token endpoint", ErrAccount)
	}
	config := &clientcredentials.Config{
		ClientID: a.spec.ClientID, ClientSecret: secret, TokenURL: is.tokenEndpoint, Scopes: a.spec.Scopes,
	}
	if audience != "" {
		config.EndpointParams = url.Values{"audience": {audience}}
	}
	token, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, v.client))
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode >= 500:
		return "", fmt.Errorf("%w: its token endpoint: %s", ErrUnavailable, refused.Response.Status)
	case errors.As(err, &refused):
		// What the issuer says besides could hold what it was sent.
		why := refused.ErrorCode
		if why == "" && refused.Response != nil {
			why = refused.Response.Status
		}
		return "", fmt.Errorf("%w: the issuer gives %q no token: %s", ErrAccount, a.spec.ClientID, brief(errors.New(why)))
	case err != nil:
		return "", fmt.Errorf("%w: its token endpoint: %s", ErrUnavailable, brief(err))
	}
	return token.AccessToken, nil
}

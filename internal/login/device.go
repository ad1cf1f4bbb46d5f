package login

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"

	"golang.org/x/oauth2"
)

// Prompt is what the person is told in the device flow. It holds printable characters
// only.
type Prompt struct {
	URL      string // where to type the code
	Complete string // where it is typed already; may be empty
	Code     string
	Until    time.Time
}

const (
	maxUserCode = 64
	maxFailures = 5 // polls in which the issuer could not be asked
)

// Device logs in with the device flow: it gives a prompt to show, and waits until
// the person has followed it, on whatever device. The errors are those of the
// package, that of show, or that of ctx.
func (c *Client) Device(ctx context.Context, show func(Prompt) error) (Token, error) {
	if c.config.Endpoint.DeviceAuthURL == "" {
		return Token{}, errors.New("the issuer has no device flow: log in with --browser")
	}
	ctx, cancel := context.WithTimeout(ctx, maxLogin)
	defer cancel()
	auth, err := c.config.DeviceAuth(c.context(ctx))
	if err != nil {
		return Token{}, failure(ctx, err)
	}
	p, err := prompt(auth)
	if err != nil {
		return Token{}, err
	}
	if limit, _ := ctx.Deadline(); p.Until.IsZero() || p.Until.After(limit) {
		p.Until = limit
	}
	ctx, cancel = context.WithDeadline(ctx, p.Until)
	defer cancel()
	if err := show(p); err != nil {
		return Token{}, err
	}
	answer, err := c.poll(ctx, auth)
	if err != nil {
		return Token{}, failure(ctx, err)
	}
	return c.verify(ctx, answer, "")
}

// poll waits for the person. An issuer that can't be asked for a moment, as when
// a machine changes its network, does not end the login (RFC 8628, section 3.5).
func (c *Client) poll(ctx context.Context, auth *oauth2.DeviceAuthResponse) (*oauth2.Token, error) {
	for failures := 0; ; failures++ {
		answer, err := c.config.DeviceAccessToken(c.context(ctx), auth)
		var refused *oauth2.RetrieveError
		if err == nil || errors.As(err, &refused) || ctx.Err() != nil || failures == maxFailures {
			return answer, err
		}
	}
}

// prompt refuses what is not fit to be shown, or to be followed.
func prompt(auth *oauth2.DeviceAuthResponse) (Prompt, error) {
	p := Prompt{URL: auth.VerificationURI, Complete: auth.VerificationURIComplete, Code: auth.UserCode, Until: auth.Expiry}
	if auth.DeviceCode == "" || p.Code == "" || len(p.Code) > maxUserCode || strings.ContainsFunc(p.Code, unprintable) {
		return Prompt{}, fmt.Errorf("%w: it gave no code for the login", ErrUnavailable)
	}
	if !fit(p.URL) || p.Complete != "" && !fit(p.Complete) {
		return Prompt{}, fmt.Errorf("%w: it gave no https address for the login", ErrUnavailable)
	}
	return p, nil
}

// fit tells whether it is an address that may be shown, and opened.
func fit(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "https" && u.Host != "" && len(address) < 4<<10 && !strings.ContainsFunc(address, unprintable)
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

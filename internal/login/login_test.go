package login

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab/idp"
)

func TestDeviceFlow(t *testing.T) {
	t.Parallel()
	w := start(t)
	token, err := w.open(t, "cli", nil).Device(t.Context(), func(p Prompt) error {
		if !strings.HasPrefix(p.URL, w.Issuer()) || !strings.Contains(p.Complete, p.Code) || time.Until(p.Until) > maxLogin {
			t.Errorf("the prompt is %+v", p)
		}
		return w.Approve(p.Code, "ada")
	})
	ok(t, err)
	if left := time.Until(token.Expires); token.Subject != "ada" || left < 50*time.Minute || left > time.Hour {
		t.Errorf("the token is %s's, for %s", token.Subject, left)
	}
	if at, known := Expires(token.Raw); !known || !at.Equal(token.Expires) {
		t.Errorf("read without a key it expires at %s, %t", at, known)
	}
}

func TestDeviceFlowSurvivesAnOutage(t *testing.T) {
	t.Parallel()
	w := start(t)
	var polls atomic.Int32
	c, err := open(t.Context(), Options{Issuer: w.Issuer(), ClientID: "cli", CAFile: w.caFile}, func(line http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if !strings.Contains(r.URL.Path, "token") {
				return line.RoundTrip(r)
			}
			switch polls.Add(1) {
			case 1:
				w.Stop()
			case 2:
				if err := w.Resume(); err != nil {
					t.Error(err)
				}
			}
			return line.RoundTrip(r)
		})
	})
	ok(t, err)
	defer c.Close()
	token, err := c.Device(t.Context(), func(p Prompt) error { return w.Approve(p.Code, "ada") })
	if err != nil || token.Subject != "ada" || polls.Load() != 2 {
		t.Errorf("%+v, %v after %d polls", token, err, polls.Load())
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestDeviceFlowFails(t *testing.T) {
	t.Parallel()
	w := start(t)
	stop := errors.New("the terminal is gone")
	for name, c := range map[string]struct {
		client string
		tap    func(path string, body []byte) []byte
		show   func(Prompt) error
		want   error
	}{
		// The provider says so of a code that has served somebody else.
		"denied": {client: "cli", want: ErrDenied, tap: func(path string, body []byte) []byte {
			if strings.Contains(path, "device") {
				body = set(t, body, "device_code", "another")
			}
			return body
		}},
		"too late": {client: "cli", want: ErrLate, tap: func(path string, body []byte) []byte {
			if strings.Contains(path, "device") {
				body = set(t, body, "expires_in", 1)
			}
			return body
		}},
		"the client may not": {client: "page", want: ErrDenied},
		"nobody to show it":  {client: "cli", show: func(Prompt) error { return stop }, want: stop},
		"no ID token": {client: "cli", want: ErrToken, tap: func(_ string, body []byte) []byte {
			if strings.Contains(string(body), `"id_token"`) {
				body = set(t, body, "id_token", nil)
			}
			return body
		}},
		"forged ID token": {client: "cli", want: ErrToken, tap: func(_ string, body []byte) []byte {
			if strings.Contains(string(body), `"id_token"`) {
				forged := "eyJhbGciOiJub25lIn0." + strings.Split(w.token(t, "cli", nil), ".")[1] + "."
				body = set(t, body, "id_token", forged)
			}
			return body
		}},
		"another client's": {client: "cli", want: ErrToken, tap: func(_ string, body []byte) []byte {
			if strings.Contains(string(body), `"id_token"`) {
				body = set(t, body, "id_token", w.token(t, "page", nil))
			}
			return body
		}},
		"given to another party": {client: "cli", want: ErrToken, tap: func(_ string, body []byte) []byte {
			if strings.Contains(string(body), `"id_token"`) {
				body = set(t, body, "id_token", w.token(t, "cli", map[string]any{"azp": "page"}))
			}
			return body
		}},
		"another issuer's": {client: "cli", want: ErrToken, tap: func(_ string, body []byte) []byte {
			if strings.Contains(string(body), `"id_token"`) {
				body = set(t, body, "id_token", w.token(t, "cli", map[string]any{"iss": "https://evil.example"}))
			}
			return body
		}},
		"an address that hides": {client: "cli", want: ErrUnavailable, tap: func(path string, body []byte) []byte {
			if strings.Contains(path, "device") {
				body = set(t, body, "verification_uri", "https://corp.example/\x1b[2J")
			}
			return body
		}},
		"an address without TLS": {client: "cli", want: ErrUnavailable, tap: func(path string, body []byte) []byte {
			if strings.Contains(path, "device") {
				body = set(t, body, "verification_uri_complete", "http://corp.example/")
			}
			return body
		}},
		"a code that hides": {client: "cli", want: ErrUnavailable, tap: func(path string, body []byte) []byte {
			if strings.Contains(path, "device") {
				body = set(t, body, "user_code", "AB\u202eCD")
			}
			return body
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			show := c.show
			if show == nil {
				show = func(p Prompt) error {
					if c.want == ErrToken {
						return w.Approve(p.Code, "ada")
					}
					return nil
				}
			}
			token, err := w.open(t, c.client, c.tap).Device(t.Context(), show)
			if !errors.Is(err, c.want) || token != (Token{}) {
				t.Errorf("%+v, %v; want %v", token, err, c.want)
			}
		})
	}
}

// token is one that the provider signed, as no login made it.
func (w *world) token(t *testing.T, audience string, claims map[string]any) string {
	t.Helper()
	raw, err := w.Token(idp.TokenRequest{Subject: "ada", Audience: []string{audience}, Claims: claims})
	if err != nil {
		t.Error(err)
	}
	return raw
}

func TestDeviceFlowIsInterrupted(t *testing.T) {
	t.Parallel()
	w := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.open(t, "cli", nil).Device(ctx, func(Prompt) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	w := start(t)
	other := start(t)
	for name, o := range map[string]Options{
		"issuer without TLS":          {Issuer: "http://127.0.0.1:1", ClientID: "cli"},
		"issuer by another name":      {Issuer: strings.Replace(w.Issuer(), "127.0.0.1", "localhost", 1), ClientID: "cli", CAFile: w.caFile},
		"issuer of a strange CA":      {Issuer: w.Issuer(), ClientID: "cli", CAFile: other.caFile},
		"no client":                   {Issuer: w.Issuer(), CAFile: w.caFile},
		"a CA file that is not there": {Issuer: w.Issuer(), ClientID: "cli", CAFile: "/nonexistent/ca.pem"},
	} {
		if c, err := Open(t.Context(), o); err == nil {
			c.Close()
			t.Errorf("%s: taken", name)
		}
	}
	w.Stop()
	if _, err := Open(t.Context(), Options{Issuer: w.Issuer(), ClientID: "cli", CAFile: w.caFile}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("in an outage: %v", err)
	}
	ok(t, w.Resume())
}

func TestBrowserFlow(t *testing.T) {
	t.Parallel()
	w := start(t)
	var status int
	var text string
	browsed := make(chan error, 1)
	token, err := w.open(t, "cli", nil).Browser(t.Context(), func(address string) error {
		u, err := url.Parse(address)
		if err != nil {
			return err
		}
		callback := u.Query().Get("redirect_uri")
		if u.Query().Get("code_challenge_method") != "S256" || u.Query().Get("nonce") == "" {
			t.Errorf("the address is %s", address)
		}
		go func() {
			// Others who know the port: a page that guesses, and one that was led here by a name.
			for _, guess := range []string{"?code=x", "?code=x&state=guess", "?error=access_denied&state=", "/../?code=x"} {
				if status, text, err := visit(t.Context(), callback+guess); err != nil || status < 400 {
					t.Errorf("%s: %d %s, %v", guess, status, text, err)
				}
			}
			if status, _, err := visit(t.Context(), strings.Replace(callback, "127.0.0.1", "localhost", 1)+"?code=x&state="+u.Query().Get("state")); err != nil || status != http.StatusNotFound {
				t.Errorf("by another name: %d, %v", status, err)
			}
			var err error
			status, text, err = w.logIn(t.Context(), address, nil)
			browsed <- err
		}()
		return nil
	})
	ok(t, err)
	ok(t, <-browsed)
	if token.Subject != "ada" || status != http.StatusOK || !strings.Contains(text, "Go back to your terminal") {
		t.Errorf("%+v; the browser shows %d %s", token, status, text)
	}
}

func TestBrowserFlowFails(t *testing.T) {
	t.Parallel()
	w := start(t)
	for name, c := range map[string]struct {
		tap    func(string, []byte) []byte
		change func(*url.URL)              // of the redirect
		look   func(address string) string // of where the browser is sent
		want   error
		status int
	}{
		"another login's nonce": {want: ErrToken, status: 200, look: func(address string) string {
			u, _ := url.Parse(address)
			q := u.Query()
			q.Set("nonce", "of-another-login")
			u.RawQuery = q.Encode()
			return u.String()
		}},
		"another issuer": {want: ErrDenied, status: 200, change: query("iss", "https://evil.example")},
		"another code":   {want: ErrDenied, status: 200, change: query("code", "stolen")},
		"refused": {want: ErrDenied, status: 200, change: func(u *url.URL) {
			u.RawQuery = url.Values{"state": {u.Query().Get("state")}, "error": {"access_denied"}, "error_description": {"\x1b[2Jno"}}.Encode()
		}},
		"another state": {want: context.Canceled, status: 400, change: query("state", "guess")},
		"nothing":       {want: context.Canceled, status: 400, change: query("code", "")},
		"another challenge": {want: ErrDenied, status: 200, look: func(address string) string {
			u, _ := url.Parse(address)
			q := u.Query()
			q.Set("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
			u.RawQuery = q.Encode()
			return u.String()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			browsed := make(chan error, 1)
			token, err := w.open(t, "cli", c.tap).Browser(ctx, func(address string) error {
				if c.look != nil {
					address = c.look(address)
				}
				go func() {
					status, text, err := w.logIn(t.Context(), address, c.change)
					if status != c.status || strings.Contains(text, "\x1b") {
						t.Errorf("the browser shows %d %s", status, text)
					}
					if status >= 400 {
						cancel() // nothing else will come
					}
					browsed <- err
				}()
				return nil
			})
			if !errors.Is(err, c.want) || token != (Token{}) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%+v, %v; want %v", token, err, c.want)
			}
			ok(t, <-browsed)
		})
	}
}

func query(name, value string) func(*url.URL) {
	return func(u *url.URL) {
		q := u.Query()
		q.Set(name, value)
		u.RawQuery = q.Encode()
	}
}

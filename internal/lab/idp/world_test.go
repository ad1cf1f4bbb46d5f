package idp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/lab/idp"
)

// world is a provider and what a client of it needs.
type world struct {
	*idp.Provider
	http *http.Client
}

func start(t *testing.T, change ...func(*idp.Options)) *world {
	t.Helper()
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	o := idp.Options{
		CA: ca,
		Users: []idp.User{
			{Subject: "ada", Password: "correct horse", Email: "ada@corp.example", Name: "Ada L.", Groups: []string{"dba", "oncall"}},
			{Subject: "bob", Groups: []string{"guests"}}, // has no password
		},
		Clients: []idp.Client{
			{ID: "cli", Redirects: []string{"http://127.0.0.1/callback"}, Device: true, Audiences: []string{"chaperone"}},
			{ID: "console", Secret: "s3cret", Redirects: []string{"https://console.example/callback"}},
			{ID: "nightly", Secret: "robot", ServiceAccount: true, Groups: []string{"planners"}, Audiences: []string{"chaperone"}},
		},
	}
	for _, f := range change {
		f(&o)
	}
	p, err := idp.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	return &world{p, &http.Client{Jar: jar, Transport: transport, CheckRedirect: stayWithProvider}}
}

// stayWithProvider doesn't follow a redirect to the client: nobody is there.
func stayWithProvider(r *http.Request, via []*http.Request) error {
	if r.URL.Host != via[0].URL.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

func (w *world) context(t *testing.T) context.Context {
	return gooidc.ClientContext(t.Context(), w.http)
}

// discover gets the provider's documents with fresh keys.
func (w *world) discover(t *testing.T) *gooidc.Provider {
	t.Helper()
	found, err := gooidc.NewProvider(w.context(t), w.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (w *world) config(t *testing.T, id, secret, redirect string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: id, ClientSecret: secret, RedirectURL: redirect,
		Endpoint: w.discover(t).Endpoint(), Scopes: []string{"openid"},
	}
}

func (w *world) verify(t *testing.T, raw, audience string) (claims, error) {
	t.Helper()
	token, err := w.discover(t).Verifier(&gooidc.Config{ClientID: audience}).Verify(w.context(t), raw)
	if err != nil {
		return claims{}, err
	}
	var c claims
	if err := token.Claims(&c); err != nil {
		t.Fatal(err)
	}
	return c, nil
}

type claims struct {
	Subject  string   `json:"sub"`
	Audience []string `json:"aud"`
	Email    string   `json:"email"`
	Name     string   `json:"name"`
	Groups   []string `json:"groups"`
	Nonce    string   `json:"nonce"`
}

// page is what a browser shows.
type page struct {
	status   int
	text     string
	redirect *url.URL // to the client, if that is where it leads
	at       *url.URL
}

func (w *world) get(t *testing.T, address string) page {
	t.Helper()
	return w.load(t, http.MethodGet, address, nil)
}

func (w *world) load(t *testing.T, method, address string, form url.Values) page {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := w.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	p := page{status: response.StatusCode, text: string(text), at: response.Request.URL}
	if response.Header.Get("Location") != "" {
		if p.redirect, err = response.Location(); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)

// submit fills the page's form and presses its button.
func (w *world) submit(t *testing.T, p page, fields map[string]string) page {
	t.Helper()
	form := url.Values{"submit": {""}}
	for _, m := range hidden.FindAllStringSubmatch(p.text, -1) {
		form.Set(m[1], m[2])
	}
	for name, value := range fields {
		if !strings.Contains(p.text, `name="`+name+`"`) {
			t.Fatalf("the page has no field %q:\n%s", name, p.text)
		}
		form.Set(name, value)
	}
	return w.load(t, http.MethodPost, p.at.String(), form)
}

var ada = map[string]string{"username": "ada", "password": "correct horse"}

func oauthError(err error) string {
	var e *oauth2.RetrieveError
	if errors.As(err, &e) {
		return e.ErrorCode
	}
	return ""
}

// poll asks for a device's token once, and returns the error code.
func (w *world) poll(t *testing.T, auth *oauth2.DeviceAuthResponse) string {
	t.Helper()
	p := w.load(t, http.MethodPost, w.discover(t).Endpoint().TokenURL, url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"cli"}, "device_code": {auth.DeviceCode},
	})
	m := regexp.MustCompile(`"error":"([a-z_]+)"`).FindStringSubmatch(p.text)
	if m == nil {
		t.Fatalf("no error but status %d", p.status)
	}
	return m[1]
}

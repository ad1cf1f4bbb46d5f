package login

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/lab/idp"
)

// world is a real provider, and what the person at the terminal has: the CA's
// file, a browser, and a line that can be tapped.
type world struct {
	*idp.Provider
	caFile  string
	browser *http.Client
}

func start(t *testing.T) *world {
	t.Helper()
	ca, err := lab.NewCA()
	ok(t, err)
	p, err := idp.Start(t.Context(), idp.Options{
		CA:    ca,
		Users: []idp.User{{Subject: "ada", Password: "correct horse", Name: "Ada L.", Groups: []string{"dba"}}},
		Clients: []idp.Client{
			{ID: "cli", Redirects: []string{"http://127.0.0.1/callback"}, Device: true},
			{ID: "page", Redirects: []string{"http://127.0.0.1/callback"}}, // no device flow
		},
	})
	ok(t, err)
	t.Cleanup(func() { ok(t, p.Close()) })
	file := filepath.Join(t.TempDir(), "ca.pem")
	ok(t, os.WriteFile(file, p.CAPEM(), 0o600))
	jar, err := cookiejar.New(nil)
	ok(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	return &world{p, file, &http.Client{Jar: jar, Transport: transport}}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens the client. tap, if set, may look at and change the provider's answers.
func (w *world) open(t *testing.T, client string, tap func(path string, body []byte) []byte) *Client {
	t.Helper()
	c, err := open(t.Context(), Options{Issuer: w.Issuer(), ClientID: client, Scopes: []string{"openid", "groups"}, CAFile: w.caFile},
		func(line http.RoundTripper) http.RoundTripper { return tapped{line, tap} })
	ok(t, err)
	t.Cleanup(c.Close)
	return c
}

type tapped struct {
	http.RoundTripper
	tap func(path string, body []byte) []byte
}

func (l tapped) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(r)
	if err != nil || l.tap == nil {
		return response, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	body = l.tap(r.URL.Path, body)
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	response.Header.Del("Content-Length")
	return response, err
}

// set changes a field of a JSON answer.
func set(t *testing.T, body []byte, field string, value any) []byte {
	t.Helper()
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Errorf("%v in %s", err, body)
		return body
	}
	if answer[field] = value; value == nil {
		delete(answer, field)
	}
	body, err := json.Marshal(answer)
	if err != nil {
		t.Error(err)
	}
	return body
}

// logIn does what a person does in the browser, and returns the page where that ends.
// change may alter where the provider's redirect to the terminal leads.
func (w *world) logIn(ctx context.Context, address string, change func(*url.URL)) (status int, text string, err error) {
	browser := *w.browser
	var callback *url.URL
	browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Scheme == "http" {
			callback = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}
	page, at, err := get(ctx, &browser, http.MethodGet, address, nil)
	if err != nil {
		return 0, "", err
	}
	form := url.Values{"username": {"ada"}, "password": {"correct horse"}}
	for _, m := range regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`).FindAllStringSubmatch(page, -1) {
		form.Set(m[1], m[2])
	}
	if page, _, err = get(ctx, &browser, http.MethodPost, at, form); err != nil || callback == nil {
		return 0, page, err
	}
	if change != nil {
		change(callback)
	}
	return visit(ctx, callback.String())
}

// visit opens the terminal's page.
func visit(ctx context.Context, address string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

func get(ctx context.Context, browser *http.Client, method, address string, form url.Values) (text, at string, err error) {
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", "", err
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := browser.Do(r)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), response.Request.URL.String(), err
}

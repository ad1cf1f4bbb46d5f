package desk

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/identity"
	"chaperone.dev/chaperone/pkg/policy"
)

const (
	sessionLife    = 8 * time.Hour    // by default
	loginLife      = 10 * time.Minute // from the page to the issuer and back
	endpointsFor   = time.Hour        // the issuer's metadata serve
	maxSecret      = 4 << 10          // bytes of a secret's file
	maxParameter   = 4 << 10          // bytes of each parameter of the callback
	cookieName     = "chaperone"
	cookieSecurely = "__Host-" // keeps a cookie to this host, its root, and TLS
)

// login logs people in at the page: OpenID Connect's authorization code flow,
// with PKCE. What a login needs to remember is in the browser, sealed, so that
// strangers who begin many logins fill nothing.
type login struct {
	spec      policy.LoginSpec
	issuer    string
	verifier  *identity.Verifier
	client    *http.Client
	audiences []string // the page's client, then the command line's
	life      time.Duration
	redirect  string
	secure    bool
	cookie    string // name of the session's
	pending   string // name of the cookie of a login that has begun
	seal      cipher.AEAD

	mu       sync.Mutex
	provider *oidc.Provider
	asked    time.Time
}

func newLogin(spec policy.LoginSpec, provider *policy.IdentityProvider, verifier *identity.Verifier, at *url.URL) (*login, error) {
	if spec.ClientID == "" {
		return nil, errors.New("clientID is missing")
	}
	client, err := httpClient(provider.Spec.CAFile)
	if err != nil {
		return nil, err
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // it never fails
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	l := &login{
		spec: spec, issuer: provider.Spec.Issuer, verifier: verifier, client: client, audiences: []string{spec.ClientID},
		life: time.Duration(spec.SessionLife), redirect: at.String() + "/callback",
		secure: at.Scheme == "https", cookie: cookieName, pending: cookieName + "-login", seal: seal,
	}
	if l.life <= 0 {
		l.life = sessionLife
	}
	if spec.CLIClientID != "" && spec.CLIClientID != spec.ClientID {
		l.audiences = append(l.audiences, spec.CLIClientID)
	}
	if l.secure {
		l.cookie, l.pending = cookieSecurely+l.cookie, cookieSecurely+l.pending
	}
	return l, nil
}

func (l *login) close() {
	l.verifier.Close()
	l.client.CloseIdleConnections()
}

func (l *login) route(mux *http.ServeMux, d *Desk) {
	page := func(f func(http.ResponseWriter, *http.Request, *Desk) error) http.Handler {
		return d.serve(func(w http.ResponseWriter, r *http.Request) error {
			err := f(w, r, d)
			if err == nil {
				return nil
			}
			d.log.Warn().Err(err).Msg("a login at the page failed")
			return showFailure(w, err)
		})
	}
	mux.Handle("GET /login", page(l.begin))
	mux.Handle("GET /callback", page(l.complete))
	mux.Handle("POST /logout", d.serve(func(w http.ResponseWriter, r *http.Request) error {
		c, err := d.remote(r)
		if err != nil {
			return err
		}
		if c.session == nil {
			return refuse(400, api.CodeBadRequest, "There is no session to end.")
		}
		if cookie, err := r.Cookie(l.cookie); err == nil {
			d.sessions.forget(cookie.Value)
		}
		l.setCookie(w, l.cookie, "", -1)
		return writeJSON(w, struct{}{})
	}))
}

// scopes are what a login asks for.
func (l *login) scopes() []string {
	scopes := []string{oidc.ScopeOpenID}
	for _, s := range l.spec.Scopes {
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

// begun is what a login remembers of its beginning.
type begun struct {
	State, Nonce, Verifier, Next string
	Until                        time.Time
}

// nextPath is where a login may lead: a path of the page, and nothing else.
var nextPath = regexp.MustCompile(`^/(approvals/[a-z0-9-]{1,40})?$`)

// begin sends the browser to the issuer.
func (l *login) begin(w http.ResponseWriter, r *http.Request, d *Desk) error {
	config, err := l.config(r.Context(), d.now())
	if err != nil {
		return err
	}
	next := r.FormValue("next")
	if !nextPath.MatchString(next) {
		next = "/"
	}
	b := begun{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: next, Until: d.now().Add(loginLife)}
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	l.setCookie(w, l.pending, base64.RawURLEncoding.EncodeToString(l.seal.Seal(nil, nil, text, []byte(l.pending))), loginLife)
	http.Redirect(w, r, config.AuthCodeURL(b.State, oidc.Nonce(b.Nonce), oauth2.S256ChallengeOption(b.Verifier)), http.StatusSeeOther)
	return nil
}

// complete is where the issuer sends the browser back to.
func (l *login) complete(w http.ResponseWriter, r *http.Request, d *Desk) error {
	q := r.URL.Query()
	for _, name := range []string{"state", "code", "error", "error_description", "iss"} {
		if len(q.Get(name)) > maxParameter {
			return fmt.Errorf("the issuer's %s is too long", name)
		}
	}
	b, err := l.pendingOf(r, d.now())
	if err != nil {
		return err
	}
	l.setCookie(w, l.pending, "", -1)
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(b.State)) != 1 {
		return errors.New("the issuer's answer is to another login than the one that this browser began")
	}
	if iss := q.Get("iss"); iss != "" && iss != l.issuer { // RFC 9207
		return errors.New("the answer is another issuer's")
	}
	if code := q.Get("error"); code != "" {
		return fmt.Errorf("the issuer refused: %s", strings.TrimSpace(visible(code+" "+q.Get("error_description"), false)))
	}
	p, err := l.redeem(r.Context(), q.Get("code"), b, d.now())
	if err != nil {
		return err
	}
	expires := d.now().Add(l.life)
	if p.Expires.Before(expires) {
		expires = p.Expires
	}
	if old, err := r.Cookie(l.cookie); err == nil {
		d.sessions.forget(old.Value)
	}
	value := d.sessions.begin(d.person(p), expires, d.now())
	l.setCookie(w, l.cookie, value, expires.Sub(d.now()))
	http.Redirect(w, r, b.Next, http.StatusSeeOther)
	return nil
}

// pendingOf reads what the browser has of the login that it began.
func (l *login) pendingOf(r *http.Request, now time.Time) (begun, error) {
	var b begun
	failed := errors.New("this browser began no login here, or did so too long ago")
	cookie, err := r.Cookie(l.pending)
	if err != nil {
		return b, failed
	}
	sealed, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		return b, failed
	}
	text, err := l.seal.Open(nil, nil, sealed, []byte(l.pending))
	if err != nil || json.Unmarshal(text, &b) != nil || !now.Before(b.Until) {
		return begun{}, failed
	}
	return b, nil
}

// redeem gets the ID token for the code and verifies it.
func (l *login) redeem(ctx context.Context, code string, b begun, now time.Time) (policy.Principal, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	config, err := l.config(ctx, now)
	if err != nil {
		return policy.Principal{}, err
	}
	answer, err := config.Exchange(context.WithValue(ctx, oauth2.HTTPClient, l.client), code, oauth2.VerifierOption(b.Verifier))
	if err != nil {
		return policy.Principal{}, fmt.Errorf("the issuer gave no token for its code: %s", brief(err))
	}
	token, ok := answer.Extra("id_token").(string)
	if !ok {
		return policy.Principal{}, errors.New("the issuer's answer holds no ID token")
	}
	p, err := l.verifier.Verify(ctx, token, l.spec.ClientID)
	if err == nil {
		err = l.isIDToken(token, p)
	}
	if err != nil {
		return policy.Principal{}, err
	}
	nonce, _ := p.Claims["nonce"].(string)
	if subtle.ConstantTimeCompare([]byte(nonce), []byte(b.Nonce)) != 1 {
		return policy.Principal{}, errors.New("the ID token was made for another login")
	}
	return p, nil
}

// config is the client at the issuer, whose endpoints are asked for when they
// are needed.
func (l *login) config(ctx context.Context, now time.Time) (*oauth2.Config, error) {
	provider, err := l.endpoints(ctx, now)
	if err != nil {
		return nil, fmt.Errorf("the issuer can't be reached: %s", brief(err))
	}
	config := &oauth2.Config{ClientID: l.spec.ClientID, Endpoint: provider.Endpoint(), RedirectURL: l.redirect, Scopes: l.scopes()}
	config.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	if l.spec.ClientSecretFrom != nil {
		if config.ClientSecret, err = readSecret(l.spec.ClientSecretFrom.File); err != nil {
			return nil, fmt.Errorf("the client's secret: %w", err)
		}
		var metadata struct {
			Methods []string `json:"token_endpoint_auth_methods_supported"`
		}
		if err := provider.Claims(&metadata); err != nil {
			return nil, err
		}
		if metadata.Methods == nil || slices.Contains(metadata.Methods, "client_secret_basic") {
			config.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
		}
	}
	return config, nil
}

func (l *login) endpoints(ctx context.Context, now time.Time) (*oidc.Provider, error) {
	l.mu.Lock()
	known, asked := l.provider, l.asked
	l.mu.Unlock()
	if known != nil && now.Sub(asked) < endpointsFor {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found, err := oidc.NewProvider(oidc.ClientContext(ctx, l.client), l.issuer)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.provider, l.asked = found, now
	return found, nil
}

// setCookie sets a cookie, or removes it when life is negative.
func (l *login) setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	age := int(life / time.Second)
	if life < 0 {
		age = -1
	}
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: age, Secure: l.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// getLogin tells a command line where to log in.
func (d *Desk) getLogin(w http.ResponseWriter, _ *http.Request) error {
	if d.login == nil {
		return refuse(404, api.CodeNotFound, "This sink has no Sink document, so nobody logs in: ask it on its unix socket.")
	}
	return writeJSON(w, api.LoginInfo{Issuer: d.login.issuer, ClientID: d.login.audiences[len(d.login.audiences)-1], Scopes: d.login.scopes()})
}

var failurePage = template.Must(template.New("failure").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Login failed · Chaperone</title><link rel="stylesheet" href="/style.css">
<main class="notice"><h1>You are not logged in</h1><p>{{.}}.</p><p><a class="button primary" href="/login">Log in again</a></p></main>
`))

func showFailure(w http.ResponseWriter, err error) error {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusForbidden)
	return failurePage.Execute(w, brief(err))
}

// readSecret reads a secret's file.
func readSecret(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text := make([]byte, maxSecret+1)
	n, err := readFull(f, text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	secret := strings.TrimSpace(string(text[:n]))
	if n > maxSecret || secret == "" {
		return "", fmt.Errorf("%s is empty, or longer than %d bytes", file, maxSecret)
	}
	return secret, nil
}

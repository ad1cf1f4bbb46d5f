package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// callbackPath is the path of the redirect URI: the issuer's client has
// "http://127.0.0.1/callback", which stands for all ports (RFC 8252, section 7.3).
const callbackPath = "/callback"

// answer is what the browser brought.
type answer struct{ code, iss, refusal string }

// Browser logs in with a browser on this machine: the authorization code flow with
// PKCE, whose redirect leads to a port of loopback. It gives the address to open, and
// waits until the browser comes back. The errors are those of the package, that of
// show, or that of ctx.
func (c *Client) Browser(ctx context.Context, show func(address string) error) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, maxLogin)
	defer cancel()
	listener, err := listen(ctx)
	if err != nil {
		return Token{}, err
	}
	back := &callback{state: rand.Text(), host: listener.Addr().String(), answers: make(chan answer, 1)}
	stop := back.serve(listener)
	defer stop()

	config := c.config
	config.RedirectURL = "http://" + back.host + callbackPath
	nonce, verifier := rand.Text(), oauth2.GenerateVerifier()
	address := config.AuthCodeURL(back.state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier))
	if !fit(address) {
		return Token{}, fmt.Errorf("%w: it gave no https address for the login", ErrUnavailable)
	}
	if err := show(address); err != nil {
		return Token{}, err
	}
	var got answer
	select {
	case got = <-back.answers:
	case <-ctx.Done():
		return Token{}, failure(ctx, ctx.Err())
	}
	switch {
	case got.iss != "" && got.iss != c.issuer(), got.iss == "" && c.namesIssuer: // RFC 9207
		return Token{}, fmt.Errorf("%w: the answer is another issuer's", ErrDenied)
	case got.refusal == "access_denied":
		return Token{}, ErrDenied
	case got.refusal != "":
		return Token{}, fmt.Errorf("%w: the issuer says %s", ErrDenied, brief(errors.New(got.refusal)))
	}
	token, err := config.Exchange(c.context(ctx), got.code, oauth2.VerifierOption(verifier))
	if err != nil {
		return Token{}, failure(ctx, err)
	}
	return c.verify(ctx, token, nonce)
}

func (c *Client) issuer() string {
	var metadata struct {
		Issuer string `json:"issuer"`
	}
	_ = c.provider.Claims(&metadata) // it could be read before
	return metadata.Issuer
}

// listen takes a free port of loopback.
func listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		var six error
		if l, six = lc.Listen(ctx, "tcp6", "[::1]:0"); six != nil {
			return nil, fmt.Errorf("no port on loopback for the browser to come back to: %w", err)
		}
	}
	return l, nil
}

// callback waits for the browser. Whatever else comes, such as a page that guesses,
// neither ends the login nor learns anything.
type callback struct {
	state, host string
	answers     chan answer
}

// serve serves until stop is called, which waits for all that was begun.
func (b *callback) serve(listener net.Listener) (stop func()) {
	const patience = 5 * time.Second
	server := &http.Server{
		Handler:           b,
		ReadHeaderTimeout: patience,
		ReadTimeout:       patience,
		WriteTimeout:      patience,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // strangers may connect
	}
	server.SetKeepAlivesEnabled(false)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // it ends when stop closes it
	}()
	return func() {
		// The page that tells the person to go back is on its way.
		limit, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if server.Shutdown(limit) != nil {
			_ = server.Close()
		}
		<-served
	}
}

// ServeHTTP implements http.Handler.
func (b *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	// Another host's name may have been made to lead here.
	if r.URL.Path != callbackPath || r.Host != b.host {
		page(w, http.StatusNotFound, "There is nothing here.")
		return
	}
	if r.Method != http.MethodGet {
		page(w, http.StatusMethodNotAllowed, "There is nothing here.")
		return
	}
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(b.state)) != 1 {
		page(w, http.StatusBadRequest, "This is the answer to another login than the one that your terminal waits for. Open the address that it shows.")
		return
	}
	a := answer{code: q.Get("code"), iss: q.Get("iss"), refusal: strings.TrimSpace(q.Get("error") + " " + q.Get("error_description"))}
	if q.Get("error") == "access_denied" {
		a.refusal = "access_denied"
	}
	if a.code == "" && a.refusal == "" {
		page(w, http.StatusBadRequest, "The issuer's answer holds neither a code nor a refusal.")
		return
	}
	select {
	case b.answers <- a:
		page(w, http.StatusOK, "Go back to your terminal, which says whether you are logged in. You can close this page.")
	default:
		page(w, http.StatusBadRequest, "The issuer has answered before.")
	}
}

func page(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address holds the code
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Chaperone</title>\n<p>"+text+"</p>\n") // the browser may have gone
}

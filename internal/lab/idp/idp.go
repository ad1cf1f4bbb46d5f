package idp

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"chaperone.dev/chaperone/internal/lab"
)

const maxBody = 64 << 10 // of a request

// Options say what provider to start.
type Options struct {
	// CA signs the certificate of the provider, which is valid for 127.0.0.1, ::1,
	// localhost and the host of Addr. Required.
	CA *lab.CA
	// Users are the people that can log in.
	Users []User
	// Clients are the programs that tokens are made for.
	Clients []Client
	// Addr is the host and port to listen on, and the issuer's. Default 127.0.0.1
	// with any free port.
	Addr string
	// TokenLife is for how long ID and access tokens are valid. Default one hour.
	TokenLife time.Duration
}

// User is a person.
type User struct {
	// Subject is who it is in tokens. It or Email is the user name at the login page.
	Subject string
	// Password is what it logs in with. Without one it can't log in at a page.
	Password string
	// Email, Name and Groups are claims of its tokens.
	Email, Name string
	Groups      []string
}

// Client is a program that asks for tokens.
type Client struct {
	ID string
	// Secret is what it proves itself with. Without one it is a public client, which
	// must use PKCE.
	Secret string
	// Redirects are the URIs that a login may return to, exactly as given; but for a
	// public client, one on loopback stands for all ports.
	Redirects []string
	// Device allows the device grant.
	Device bool
	// ServiceAccount allows the client_credentials grant, which needs a Secret. The
	// subject of such a token is the ID.
	ServiceAccount bool
	// Groups are those of a service account's token.
	Groups []string
	// Audiences are in its access tokens, beside the ID. Its ID tokens have the ID only.
	Audiences []string
}

// Provider is a running OpenID provider. Safe for concurrent use.
type Provider struct {
	issuer string
	ca     *lab.CA
	store  *storage
	server *server
}

// Start starts a provider, which serves when it returns. ctx bounds the start,
// not the provider's life.
func Start(ctx context.Context, o Options) (*Provider, error) {
	if o.CA == nil {
		return nil, errors.New("OpenID provider: no CA given to sign its certificate")
	}
	if o.TokenLife < 0 {
		return nil, fmt.Errorf("OpenID provider: tokens can't live for %s: ask Token for one that has expired", o.TokenLife)
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.TokenLife == 0 {
		o.TokenLife = time.Hour
	}
	store, err := newStorage(o)
	if err != nil {
		return nil, fmt.Errorf("OpenID provider: %w", err)
	}
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("OpenID provider's address: %w", err)
	}
	certificate, err := certify(o.CA, host)
	if err != nil {
		return nil, fmt.Errorf("OpenID provider: %w", err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("OpenID provider: %w", err)
	}
	p := &Provider{issuer: issuer(host, listener.Addr()), ca: o.CA, store: store}
	handler, err := p.handler()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("OpenID provider at %s: %w", p.issuer, err), listener.Close())
	}
	p.server = newServer(handler, certificate, listener)
	return p, nil
}

func certify(ca *lab.CA, host string) (tls.Certificate, error) {
	names := []string{"127.0.0.1", "::1", "localhost"}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return tls.Certificate{}, fmt.Errorf("the host %q of its address is no one's name: give one that clients can use", host)
	}
	if !slices.Contains(names, host) {
		names = append(names, host)
	}
	pair, err := ca.Issue(names...)
	if err != nil {
		return tls.Certificate{}, err
	}
	return pair.Certificate()
}

func issuer(host string, at net.Addr) string {
	_, port, _ := net.SplitHostPort(at.String())
	u := url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
	return u.String()
}

// handler has the library's endpoints and our pages.
func (p *Provider) handler() (http.Handler, error) {
	config := &op.Config{
		CodeMethodS256:  true,
		AuthMethodPost:  true,
		SupportedScopes: []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail, scopeGroups},
		SupportedClaims: append(slices.Clone(op.DefaultSupportedClaims), claimGroups),
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: pendingLife, PollInterval: time.Second, UserFormPath: devicePath, UserCode: op.UserCodeBase20,
		},
	}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return nil, err
	}
	provider, err := op.NewProvider(config, p.store, op.StaticIssuer(p.issuer), op.WithCORSOptions(nil))
	if err != nil {
		return nil, err
	}
	callback := op.AuthCallbackURL(provider)
	pages := &pages{store: p.store, callback: func(id string) string {
		return callback(op.ContextWithIssuer(context.Background(), p.issuer), id)
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+loginPath, pages.showLogin)
	mux.HandleFunc("POST "+loginPath, pages.login)
	mux.HandleFunc("GET "+devicePath, pages.showDevice)
	mux.HandleFunc("POST "+devicePath, pages.device)
	mux.Handle("/", provider)
	return http.MaxBytesHandler(mux, maxBody), nil
}

// Issuer is the provider's URL, as discovery and tokens have it.
func (p *Provider) Issuer() string { return p.issuer }

// CAPEM is the certificate of the authority that signed the provider's.
func (p *Provider) CAPEM() []byte { return p.ca.PEM() }

// TokenRequest says what token to sign.
type TokenRequest struct {
	// Subject is whom it speaks of. A user's email and name are in its token too.
	Subject string
	// Audience is whom it is for.
	Audience []string
	// Groups is the claim "groups"; without any, the claim isn't there.
	Groups []string
	// Life is for how long it is valid from now on, default TokenLife. A negative one
	// makes a token that expired that long ago.
	Life time.Duration
	// Claims are added and win over the rest ("nbf", for one: seconds since 1970); one
	// that is nil takes the claim away.
	Claims map[string]any
}

// Token signs a token with the current key, without a login. It does so in an
// outage too.
func (p *Provider) Token(c TokenRequest) (string, error) {
	if c.Life == 0 {
		c.Life = p.store.life
	}
	now := time.Now()
	issued, expires := now, now.Add(c.Life)
	if expires.Before(now) {
		issued = expires.Add(-p.store.life)
	}
	claims := map[string]any{
		"iss": p.issuer, "sub": c.Subject, "jti": rand.Text(),
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": expires.Unix(),
	}
	if len(c.Audience) > 0 {
		claims["aud"] = c.Audience
	}
	maps.Copy(claims, p.store.personal(c.Subject))
	delete(claims, claimGroups)
	if len(c.Groups) > 0 {
		claims[claimGroups] = c.Groups
	}
	maps.Copy(claims, c.Claims)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("claims of a token for %q: %w", c.Subject, err)
	}
	return p.store.keys.sign(payload)
}

// Rotate makes a new signing key. The old ones stay published until Withdraw.
func (p *Provider) Rotate() error { return p.store.keys.rotate() }

// Withdraw unpublishes all keys but the current one.
func (p *Provider) Withdraw() { p.store.keys.withdraw() }

// Approve completes a pending device authorization as a user, as the device page
// does after a login.
func (p *Provider) Approve(userCode, subject string) error {
	return p.store.approve(userCode, subject)
}

// Stop begins an outage: connections end, and the port refuses new ones until
// Resume. What the provider knows stays.
func (p *Provider) Stop() { p.server.stop() }

// Resume ends an outage, at the same port.
func (p *Provider) Resume() error { return p.server.resume() }

// Close stops the provider for good and waits for all that it started.
func (p *Provider) Close() error { return p.server.close() }

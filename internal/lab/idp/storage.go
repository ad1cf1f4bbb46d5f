package idp

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	pendingLife = 10 * time.Minute // of a login or device authorization that isn't finished
	maxPending  = 1000
	maxTokens   = 10000
)

// storage is what the library asks for people, clients, keys, and the logins and
// tokens in between.
type storage struct {
	keys    *keyRing
	life    time.Duration
	users   map[string]User   // by subject; not changed
	clients map[string]client // by ID; not changed

	mu       sync.Mutex
	requests shelf[authRequest]
	codes    shelf[string] // request IDs by code
	devices  shelf[device]
	tokens   shelf[token]
}

type device struct {
	userCode string
	state    op.DeviceAuthorizationState
}

// token is an access token that was given out.
type token struct {
	subject, client string
	scopes          []string
}

var (
	_ op.Storage                        = (*storage)(nil)
	_ op.ClientCredentialsStorage       = (*storage)(nil)
	_ op.DeviceAuthorizationStorage     = (*storage)(nil)
	_ op.CanGetPrivateClaimsFromRequest = (*storage)(nil)
)

func newStorage(o Options) (*storage, error) {
	s := &storage{
		life: o.TokenLife, users: make(map[string]User), clients: make(map[string]client),
		requests: newShelf[authRequest]("logins", maxPending), codes: newShelf[string]("codes", maxPending),
		devices: newShelf[device]("device authorizations", maxPending), tokens: newShelf[token]("tokens", maxTokens),
	}
	for _, user := range o.Users {
		if _, twice := s.users[user.Subject]; twice || user.Subject == "" {
			return nil, fmt.Errorf("the user %q has no subject, or another's", user.Subject)
		}
		user.Groups = slices.Clone(user.Groups)
		s.users[user.Subject] = user
	}
	for _, c := range o.Clients {
		if _, twice := s.clients[c.ID]; twice || c.ID == "" {
			return nil, fmt.Errorf("the client %q has no ID, or another's", c.ID)
		}
		if c.ServiceAccount && c.Secret == "" {
			return nil, fmt.Errorf("the service account %q has no secret", c.ID)
		}
		c.Redirects, c.Groups, c.Audiences = slices.Clone(c.Redirects), slices.Clone(c.Groups), slices.Clone(c.Audiences)
		s.clients[c.ID] = client{c, o.TokenLife}
	}
	var err error
	s.keys, err = newKeyRing()
	return s, err
}

// checkPassword returns the user that logs in with a name and password.
func (s *storage) checkPassword(name, password string) (User, bool) {
	for _, user := range s.users {
		if name == "" || user.Password == "" || name != user.Subject && name != user.Email {
			continue
		}
		if subtle.ConstantTimeCompare([]byte(user.Password), []byte(password)) == 1 {
			return user, true
		}
	}
	return User{}, false
}

// personal are the claims that tokens have because of whom they speak of.
func (s *storage) personal(subject string) map[string]any {
	claims := make(map[string]any)
	if user, ok := s.users[subject]; ok {
		if user.Email != "" {
			claims["email"], claims["email_verified"] = user.Email, true
		}
		if user.Name != "" {
			claims["name"] = user.Name
		}
		if len(user.Groups) > 0 {
			claims[claimGroups] = user.Groups
		}
	} else if c, ok := s.clients[subject]; ok && c.ServiceAccount && len(c.Groups) > 0 {
		claims[claimGroups] = c.Groups
	}
	return claims
}

// CreateAuthRequest begins a login.
func (s *storage) CreateAuthRequest(_ context.Context, request *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if slices.Contains(request.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired().WithDescription("each login here asks for a password")
	}
	r := authRequest{AuthRequest: *request, id: rand.Text(), audience: []string{request.ClientID}}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &r, s.requests.put(r.id, r, time.Now().Add(pendingLife))
}

// logIn finishes a login.
func (s *storage) logIn(id, subject string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.requests.get(id)
	if !ok {
		return errNoLogin
	}
	i.value.subject, i.value.loggedIn = subject, time.Now()
	return s.requests.put(id, i.value, i.expires)
}

var errNoLogin = errors.New("there is no such login, or it took too long: begin again from the program that you log in to")

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.requests.get(id)
	if !ok {
		return nil, errNoLogin
	}
	return &i.value, nil
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.codes.put(code, id, time.Now().Add(pendingLife))
}

// AuthRequestByCode takes the login that a code is for: a code is good for once.
func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.codes.take(code)
	if !ok {
		return nil, errors.New("no such code, or it was used")
	}
	i, ok := s.requests.take(id.value)
	if !ok {
		return nil, errNoLogin
	}
	return &i.value, nil
}

func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests.take(id)
	return nil
}

// CreateAccessToken is asked before the access token is made, and
// GetPrivateClaimsFromRequest when its audience is set: the library asks the
// same request for the ID token's audience afterwards, which is the client only.
func (s *storage) CreateAccessToken(_ context.Context, request op.TokenRequest) (string, time.Time, error) {
	id, expires := rand.Text(), time.Now().Add(s.life)
	c := s.clients[clientOf(request)]
	setAudience(request, c.accessAudience())
	s.mu.Lock()
	defer s.mu.Unlock()
	return id, expires, s.tokens.put(id, token{request.GetSubject(), c.ID, request.GetScopes()}, expires)
}

// GetPrivateClaimsFromRequest returns the claims of an access token.
func (s *storage) GetPrivateClaimsFromRequest(_ context.Context, request op.TokenRequest, _ []string) (map[string]any, error) {
	setAudience(request, []string{clientOf(request)})
	claims := s.personal(request.GetSubject())
	if r, ok := request.(*authRequest); ok && r.Nonce != "" {
		claims["nonce"] = r.Nonce
	}
	return claims, nil
}

func clientOf(request op.TokenRequest) string {
	if r, ok := request.(interface{ GetClientID() string }); ok {
		return r.GetClientID()
	}
	return ""
}

func setAudience(request op.TokenRequest, audience []string) {
	switch r := request.(type) {
	case *authRequest:
		r.audience = audience
	case *op.DeviceAuthorizationState:
		r.Audience = audience
	}
}

func (s *storage) StoreDeviceAuthorization(_ context.Context, clientID, deviceCode, userCode string, expires time.Time, scopes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, _, taken := s.findDevice(userCode); taken {
		return op.ErrDuplicateUserCode
	}
	state := op.DeviceAuthorizationState{ClientID: clientID, Scopes: scopes, Expires: expires}
	// Kept longer, so that a device that still polls is told that it was too late.
	return s.devices.put(deviceCode, device{spellCode(userCode), state}, expires.Add(pendingLife))
}

// GetDeviceAuthorizatonState answers a poll. A finished authorization is good for
// one token.
func (s *storage) GetDeviceAuthorizatonState(_ context.Context, clientID, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.devices.get(deviceCode)
	if !ok || i.value.state.ClientID != clientID {
		return nil, oidc.ErrExpiredDeviceCode()
	}
	if i.value.state.Done {
		s.devices.take(deviceCode)
	}
	return &i.value.state, nil
}

func (s *storage) approve(userCode, subject string) error {
	if _, ok := s.users[subject]; !ok {
		return fmt.Errorf("approve a device: there is no user %q", subject)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	deviceCode, i, ok := s.findDevice(userCode)
	if !ok || i.value.state.Done {
		return errors.New("no device waits with that code: compare it with the one that the device shows")
	}
	state := &i.value.state
	state.Done, state.Subject, state.AMR, state.AuthTime = true, subject, passwordAMR(), time.Now()
	return s.devices.put(deviceCode, i.value, i.expires)
}

func (s *storage) findDevice(userCode string) (deviceCode string, found item[device], ok bool) {
	userCode = spellCode(userCode)
	for code := range s.devices.items {
		i, ok := s.devices.get(code)
		if ok && i.value.userCode == userCode && time.Now().Before(i.value.state.Expires) {
			return code, i, true
		}
	}
	return "", item[device]{}, false
}

// spellCode lets people type a user code in small letters and without its dash.
func spellCode(userCode string) string {
	return strings.NewReplacer("-", "", " ", "").Replace(strings.ToUpper(userCode))
}

func (s *storage) ClientCredentials(_ context.Context, id, secret string) (op.Client, error) {
	c, err := s.authorize(id, secret)
	return c, err
}

func (s *storage) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	return &serviceRequest{client: s.clients[id], scopes: scopes}, nil
}

func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	_, err := s.authorize(id, secret)
	return err
}

func (s *storage) authorize(id, secret string) (client, error) {
	c, ok := s.clients[id]
	if !ok || c.Secret == "" || subtle.ConstantTimeCompare([]byte(c.Secret), []byte(secret)) != 1 {
		return client{}, errors.New("no such client, or not its secret")
	}
	return c, nil
}

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	c, ok := s.clients[id]
	if !ok {
		return nil, oidc.ErrInvalidClient().WithDescription("there is no such client")
	}
	return c, nil
}

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return s.keys.current(), nil }
func (s *storage) KeySet(context.Context) ([]op.Key, error)          { return s.keys.public(), nil }
func (s *storage) Health(context.Context) error                      { return nil }
func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{keyAlgorithm}, nil
}

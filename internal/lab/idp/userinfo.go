package idp

import (
	"context"
	"errors"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

var (
	errNoToken     = errors.New("no such access token, or it expired or was revoked")
	errNoRefresh   = errors.New("there are no refresh tokens here")
	errNoAssertion = errors.New("no client has a key for assertions here")
)

// SetUserinfoFromScopes fills an ID token: with all that is known, whatever the
// scopes, so that no test has to know which claim needs which.
func (s *storage) SetUserinfoFromScopes(_ context.Context, info *oidc.UserInfo, subject, _ string, _ []string) error {
	s.fill(info, subject)
	return nil
}

// SetUserinfoFromToken answers the userinfo endpoint.
func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, subject, _ string) error {
	if _, ok := s.token(id, subject); !ok {
		return errNoToken
	}
	s.fill(info, subject)
	return nil
}

func (s *storage) fill(info *oidc.UserInfo, subject string) {
	info.Subject = subject
	user := s.users[subject]
	info.Name, info.Email, info.EmailVerified = user.Name, user.Email, oidc.Bool(user.Email != "")
	if groups, ok := s.personal(subject)[claimGroups]; ok {
		info.AppendClaims(claimGroups, groups)
	}
}

// SetIntrospectionFromToken answers the introspection endpoint, to the client
// that has the token or one that the token is for.
func (s *storage) SetIntrospectionFromToken(_ context.Context, answer *oidc.IntrospectionResponse, id, subject, clientID string) error {
	found, ok := s.token(id, subject)
	if !ok {
		return errNoToken
	}
	audience := s.clients[found.value.client].accessAudience()
	for _, name := range audience {
		if name != clientID {
			continue
		}
		info := &oidc.UserInfo{}
		s.fill(info, subject)
		answer.SetUserInfo(info)
		answer.Scope, answer.ClientID, answer.Audience = found.value.scopes, found.value.client, audience
		answer.Expiration = oidc.FromTime(found.expires)
		return nil
	}
	return errNoToken
}

func (s *storage) token(id, subject string) (item[token], bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.tokens.get(id)
	return i, ok && i.value.subject == subject
}

// RevokeToken makes userinfo and introspection forget an access token. Who
// verifies its signature only can't notice.
func (s *storage) RevokeToken(_ context.Context, id, _, clientID string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.tokens.get(id); ok {
		if i.value.client != clientID {
			return oidc.ErrInvalidClient().WithDescription("the token is another client's")
		}
		s.tokens.take(id)
	}
	return nil
}

// TerminateSession has nothing to end: each login asks for the password.
func (s *storage) TerminateSession(context.Context, string, string) error { return nil }

// GetPrivateClaimsFromScopes returns the claims of an access token whose request
// the library doesn't have.
func (s *storage) GetPrivateClaimsFromScopes(_ context.Context, subject, _ string, _ []string) (map[string]any, error) {
	return s.personal(subject), nil
}

// Refresh tokens and signed assertions are refused.

func (s *storage) CreateAccessAndRefreshTokens(context.Context, op.TokenRequest, string) (string, string, time.Time, error) {
	return "", "", time.Time{}, errNoRefresh
}

func (s *storage) TokenRequestByRefreshToken(context.Context, string) (op.RefreshTokenRequest, error) {
	return nil, errNoRefresh
}

func (s *storage) GetRefreshTokenInfo(context.Context, string, string) (string, string, error) {
	return "", "", op.ErrInvalidRefreshToken
}

func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNoAssertion
}

func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errNoAssertion
}

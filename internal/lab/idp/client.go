package idp

import (
	"net/url"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	scopeGroups = "groups"
	claimGroups = "groups"
)

// client is a Client as the library wants it.
type client struct {
	Client
	life time.Duration
}

func (c client) GetID() string                    { return c.ID }
func (c client) RedirectURIs() []string           { return c.Redirects }
func (c client) PostLogoutRedirectURIs() []string { return nil }
func (c client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c client) AccessTokenType() op.AccessTokenType {
	return op.AccessTokenTypeJWT
}
func (c client) IDTokenLifetime() time.Duration       { return c.life }
func (c client) ClockSkew() time.Duration             { return 0 }
func (c client) DevMode() bool                        { return false }
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c client) IsScopeAllowed(scope string) bool     { return scope == scopeGroups }

func (c client) LoginURL(id string) string {
	return loginPath + "?" + url.Values{fieldRequest: {id}}.Encode()
}

func (c client) ApplicationType() op.ApplicationType {
	if c.Secret == "" {
		return op.ApplicationTypeNative
	}
	return op.ApplicationTypeWeb
}

func (c client) AuthMethod() oidc.AuthMethod {
	if c.Secret == "" {
		return oidc.AuthMethodNone
	}
	return oidc.AuthMethodBasic
}

func (c client) GrantTypes() []oidc.GrantType {
	var grants []oidc.GrantType
	if len(c.Redirects) > 0 {
		grants = append(grants, oidc.GrantTypeCode)
	}
	if c.Device {
		grants = append(grants, oidc.GrantTypeDeviceCode)
	}
	if c.ServiceAccount {
		grants = append(grants, oidc.GrantTypeClientCredentials)
	}
	return grants
}

func (c client) RestrictAdditionalIdTokenScopes() func([]string) []string     { return unrestricted }
func (c client) RestrictAdditionalAccessTokenScopes() func([]string) []string { return unrestricted }

func unrestricted(scopes []string) []string { return scopes }

// accessAudience is whom its access tokens are for.
func (c client) accessAudience() []string {
	return append([]string{c.ID}, c.Audiences...)
}

// authRequest is a login that began. It is the library's view of it too.
type authRequest struct {
	oidc.AuthRequest
	id       string
	subject  string // "" until the login is done
	loggedIn time.Time
	audience []string
}

func (r *authRequest) GetID() string                      { return r.id }
func (r *authRequest) GetACR() string                     { return "" }
func (r *authRequest) GetAMR() []string                   { return passwordAMR() }
func (r *authRequest) GetAudience() []string              { return r.audience }
func (r *authRequest) GetAuthTime() time.Time             { return r.loggedIn }
func (r *authRequest) GetClientID() string                { return r.ClientID }
func (r *authRequest) GetNonce() string                   { return r.Nonce }
func (r *authRequest) GetRedirectURI() string             { return r.RedirectURI }
func (r *authRequest) GetResponseType() oidc.ResponseType { return r.ResponseType }
func (r *authRequest) GetResponseMode() oidc.ResponseMode { return r.ResponseMode }
func (r *authRequest) GetScopes() []string                { return r.Scopes }
func (r *authRequest) GetState() string                   { return r.State }
func (r *authRequest) GetSubject() string                 { return r.subject }
func (r *authRequest) Done() bool                         { return r.subject != "" }
func (r *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	if r.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

func passwordAMR() []string { return []string{"pwd"} }

// serviceRequest is what a service account asks for.
type serviceRequest struct {
	client client
	scopes []string
}

func (r *serviceRequest) GetSubject() string    { return r.client.ID }
func (r *serviceRequest) GetAudience() []string { return r.client.accessAudience() }
func (r *serviceRequest) GetScopes() []string   { return r.scopes }
func (r *serviceRequest) GetClientID() string   { return r.client.ID }

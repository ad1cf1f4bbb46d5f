package desk

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/identity"
	"chaperone.dev/chaperone/pkg/policy"
)

// caller is who asks.
type caller struct {
	person  approval.Person
	admin   bool
	via     string    // an approval.Via… constant
	session *session  // nil without one
	until   time.Time // when what they proved ends; zero: with the connection
}

// local is the user at the other end of a unix socket.
func (d *Desk) local(r *http.Request, uid func(context.Context) (uint32, error)) (*caller, error) {
	id, err := uid(r.Context())
	if err != nil {
		return nil, refuse(401, api.CodeUnauthenticated, "You can't be told by this connection: %v.", err)
	}
	p, err := identity.Local(id)
	if err != nil {
		return nil, refuse(401, api.CodeUnauthenticated, "You can't be told by this connection: %v.", err)
	}
	return &caller{person: d.person(p), admin: id == 0 || d.admins.Matches(p), via: approval.ViaTerminal}, nil
}

// remote is who a token or a session speaks of.
func (d *Desk) remote(r *http.Request) (*caller, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return nil, refuse(401, api.CodeUnauthenticated, "Want an ID token as a Bearer token. Log in with: chaperone login")
		}
		return d.bearer(r.Context(), token)
	}
	cookie, err := r.Cookie(d.login.cookie)
	if err != nil {
		return nil, refuse(401, api.CodeUnauthenticated, "You are not logged in.")
	}
	s := d.sessions.find(cookie.Value, d.now())
	if s == nil {
		return nil, refuse(401, api.CodeUnauthenticated, "Your login has ended. Log in again.")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if err := s.fromPage(r, d.url.String()); err != nil {
			return nil, err
		}
	}
	return &caller{person: s.person, admin: d.admins.Matches(s.person.Principal()), via: approval.ViaPage, session: s, until: s.expires}, nil
}

// fromPage refuses changes that another page had the browser ask for.
func (s *session) fromPage(r *http.Request, own string) error {
	origin := r.Header.Get("Origin")
	token := r.Header.Get(api.HeaderCSRF)
	if origin != "" && !strings.EqualFold(origin, own) || subtle.ConstantTimeCompare([]byte(token), []byte(s.csrf)) != 1 {
		return refuse(403, api.CodeForbidden, "The request did not come from the sink's page. Load the page again.")
	}
	return nil
}

// bearer verifies an ID token of the page's or the command line's client.
func (d *Desk) bearer(ctx context.Context, token string) (*caller, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	token = strings.TrimSpace(token)
	var p policy.Principal
	var err error
	for _, audience := range d.login.audiences {
		if p, err = d.login.verifier.Verify(ctx, token, audience); err == nil {
			break
		}
	}
	if err == nil {
		err = d.login.isIDToken(token, p)
	}
	if errors.Is(err, identity.ErrUnavailable) {
		return nil, refuse(503, api.CodeUnavailable, "Your token can't be verified at the moment: %v.", err)
	}
	if err != nil {
		return nil, refuse(401, api.CodeUnauthenticated, "Your token is refused: %v. Log in with: chaperone login", err)
	}
	return &caller{person: d.person(p), admin: d.admins.Matches(p), via: approval.ViaTerminal, until: p.Expires}, nil
}

// isIDToken refuses what an issuer signed for another purpose, though it may
// name the same audience: access tokens (RFC 9068, section 4), and tokens that another
// client was given.
func (l *login) isIDToken(token string, p policy.Principal) error {
	head, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	var header struct {
		Type string `json:"typ"`
	}
	if err != nil || json.Unmarshal(text, &header) != nil {
		return errors.New("its header can't be read")
	}
	if kind := strings.TrimPrefix(strings.ToLower(header.Type), "application/"); kind != "" && kind != "jwt" {
		return errors.New("it is no ID token")
	}
	if party, ok := p.Claims["azp"]; ok {
		if party, ok := party.(string); !ok || !slices.Contains(l.audiences, party) {
			return errors.New("it was given to another client")
		}
	}
	return nil
}

// person is a principal as votes name it.
func (d *Desk) person(p policy.Principal) approval.Person {
	return approval.Person{
		Subject: p.Subject, Issuer: p.Issuer, Groups: p.Groups, IssuerURL: d.issuers[p.Issuer], Name: displayName(p.Claims),
	}
}

// displayName is what a token calls the person, if that is fit to be read.
func displayName(claims map[string]any) string {
	const most = 100
	for _, claim := range []string{"name", "preferred_username", "email"} {
		name, _ := claims[claim].(string)
		if name != "" && len(name) <= most && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return name
		}
	}
	return ""
}

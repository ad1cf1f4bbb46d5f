package identity

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"

	"chaperone.dev/chaperone/pkg/policy"
)

const (
	defaultSubjectClaim = "sub"
	defaultGroupsClaim  = "groups"
	emailClaim          = "email"

	maxSubject = 255 // OpenID Connect Core 1.0, section 2
	maxGroups  = 1024
	maxGroup   = 256 // bytes
)

// principal makes a principal of a verified token's claims.
func (v *Verifier) principal(token *oidc.IDToken, claims map[string]any) (policy.Principal, error) {
	subject, claim := token.Subject, v.spec.Claims.Subject
	if claim == "" || claim == defaultSubjectClaim {
		claim = defaultSubjectClaim
	} else {
		value, _ := lookUp(claims, claim)
		text, ok := value.(string)
		if !ok {
			return policy.Principal{}, fmt.Errorf("%w: claim %q, which names its subject, is no string", ErrToken, claim)
		}
		subject = text
	}
	if err := checkText(subject, maxSubject); err != nil {
		return policy.Principal{}, fmt.Errorf("%w: claim %q: %w", ErrToken, claim, err)
	}
	if claim == emailClaim && claims["email_verified"] == false {
		return policy.Principal{}, fmt.Errorf("%w: claim %q: the issuer has not verified it", ErrToken, claim)
	}
	claim = v.spec.Claims.Groups
	if claim == "" {
		claim = defaultGroupsClaim
	}
	groups, err := groups(claims, claim)
	if err != nil {
		return policy.Principal{}, fmt.Errorf("%w: claim %q: %w", ErrToken, claim, err)
	}
	return policy.Principal{
		Subject: subject,
		Issuer:  v.name,
		Groups:  groups,
		Claims:  claims,
		Expires: token.Expiry.Add(clockSkew),
	}, nil
}

// lookUp finds a claim by its name or, where none has that name, by a path whose dots
// lead into objects.
func lookUp(claims map[string]any, path string) (value any, ok bool) {
	if value, ok = claims[path]; ok {
		return value, true
	}
	first, rest, dotted := strings.Cut(path, ".")
	if !dotted {
		return nil, false
	}
	// A name may have a dot itself: the first that leads somewhere counts.
	for name := first; ; {
		if inner, isObject := claims[name].(map[string]any); isObject {
			if value, ok = lookUp(inner, rest); ok {
				return value, true
			}
		}
		var more string
		if more, rest, dotted = strings.Cut(rest, "."); !dotted {
			return nil, false
		}
		name += "." + more
	}
}

// groups reads a claim that is a list of names, or one name. A claim that
// isn't there means no groups, unless the token says that it is elsewhere
// (OpenID Connect Core 1.0, section 5.6.2), as some issuers do for people
// with many groups: a rule that denies a group must not be escaped so.
func groups(claims map[string]any, claim string) ([]string, error) {
	value, ok := lookUp(claims, claim)
	if !ok || value == nil {
		if elsewhere, ok := claims["_claim_names"].(map[string]any); ok {
			if _, ok := lookUp(elsewhere, claim); ok {
				return nil, errors.New("the issuer left it out, for there are too many")
			}
		}
		return nil, nil
	}
	var names []any
	switch v := value.(type) {
	case string:
		names = []any{v}
	case []any:
		names = v
	default:
		return nil, errors.New("it is neither a list nor a string")
	}
	if len(names) > maxGroups {
		return nil, fmt.Errorf("it has %d entries, %d at most", len(names), maxGroups)
	}
	var all []string
	for _, name := range names {
		text, ok := name.(string)
		if !ok {
			return nil, errors.New("an entry is no string")
		}
		if err := checkText(text, maxGroup); err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, nil
}

// checkText refuses names that would mislead who reads them in a log.
func checkText(s string, limit int) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > limit:
		return fmt.Errorf("it has %d bytes, %d at most", len(s), limit)
	case !utf8.ValidString(s):
		return errors.New("it is no UTF-8")
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("it holds the character %U", r)
		}
	}
	return nil
}

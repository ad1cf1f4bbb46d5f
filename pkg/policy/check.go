package policy

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// What each document must be by itself. Each check also fills in defaults, so
// that no other room repeats them.

// isName takes the names of documents and rules.
func isName(s string) bool {
	if len(s) == 0 || len(s) > 63 || !isAlphanumeric(s[0]) || !isAlphanumeric(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return true
}

func (d *document) checkName(at, name string) {
	switch {
	case name == "":
		d.errorf(at, "is missing")
	case !isName(name):
		d.errorf(at, `%s is no valid name: lower-case letters, digits, "-" and ".", at most 63, a letter or digit at both ends`, quote(name))
	}
}

func (d *document) checkMetadata(kind string, m Metadata) {
	if !isSingle(kind) || d.has("metadata.name") {
		d.checkName("metadata.name", m.Name)
	}
	for key := range m.Labels {
		if strings.ContainsFunc(key, isControl) {
			d.errorf("metadata.labels", "a key must not hold control characters")
		}
	}
}

// checkFile wants an absolute path. It doesn't repeat the value: what was put
// in its place may be the secret itself.
func (d *document) checkFile(at, file string) {
	if !filepath.IsAbs(file) || filepath.Clean(file) != file {
		d.errorf(at, `must be an absolute path without "." and ".." parts`)
	}
}

func (d *document) checkOptionalFile(at, file string) {
	if d.has(at) {
		d.checkFile(at, file)
	}
}

// maxItems bounds each list of a document.
const maxItems = 1000

func (d *document) checkLength(at string, n int) (ok bool) {
	if n > maxItems {
		d.errorf(at, "has more than %d items", maxItems)
	}
	return n <= maxItems
}

// checkList wants a list without empty or repeated items.
func (d *document) checkList(at string, items []string) {
	if !d.checkLength(at, len(items)) {
		return
	}
	for i, item := range items {
		switch {
		case strings.TrimSpace(item) == "":
			d.errorf(fmt.Sprintf("%s[%d]", at, i), "is empty")
		case slices.Contains(items[:i], item):
			d.errorf(fmt.Sprintf("%s[%d]", at, i), "%s is listed twice", quote(item))
		}
	}
}

// checkOneOf wants exactly one of an object's fields.
func (d *document) checkOneOf(at string, fields ...string) {
	var found []string
	for _, f := range fields {
		if d.has(at + "." + f) {
			found = append(found, f)
		}
	}
	switch {
	case len(found) == 0:
		d.errorf(at, "needs %s", oneOf(fields))
	case len(found) > 1:
		d.errorf(at, "has %s, but only one of them may be set", strings.Join(found, " and "))
	}
}

func oneOf(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return "one of " + strings.Join(names, ", ")
}

func (d *document) checkProvider(p *IdentityProvider) {
	if p.Metadata.Name == LocalIssuer {
		d.errorf("metadata.name", "%q is reserved for the users of the node itself", LocalIssuer)
	}
	s := &p.Spec
	if s.Issuer == "" {
		d.errorf("spec.issuer", "is missing; it is the issuer's https URL")
	} else if u, err := url.Parse(s.Issuer); err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		d.errorf("spec.issuer", "must be an https URL without user, query and fragment")
	} else if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		d.errorf("spec.issuer", "must be an https URL; http is accepted for loopback addresses only")
	}
	if len(s.Audiences) == 0 {
		d.errorf("spec.audiences", "needs at least one audience, or any token of the issuer would do")
	}
	d.checkList("spec.audiences", s.Audiences)
	setDefault(&s.Claims.Subject, "sub")
	setDefault(&s.Claims.Groups, "groups")
	d.checkClaim("spec.claims.subject", s.Claims.Subject)
	d.checkClaim("spec.claims.groups", s.Claims.Groups)
	d.checkOptionalFile("spec.caFile", s.CAFile)
	d.checkOptionalFile("spec.bearerTokenFile", s.BearerTokenFile)
}

// checkClaim wants a path to a claim, whose dots lead into objects.
func (d *document) checkClaim(at, path string) {
	for part := range strings.SplitSeq(path, ".") {
		if part == "" || strings.ContainsFunc(part, unicode.IsSpace) {
			d.errorf(at, `%s is no path of a claim; write it as "groups" or "realm_access.roles"`, quote(path))
			return
		}
	}
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

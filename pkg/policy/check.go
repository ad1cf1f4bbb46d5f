package policy

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
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
	if kind != "Node" || d.has("metadata.name") {
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

func (d *document) checkTarget(t *TargetSpec) {
	switch t.Protocol {
	case "postgres":
	case "":
		d.errorf("spec.protocol", `is missing; the known one is "postgres"`)
	case "ssh", "kube", "kubernetes":
		d.errorf("spec.protocol", `%s%s; use "postgres"`, t.Protocol, notSupported)
	default:
		d.errorf("spec.protocol", `unknown protocol %s; the known one is "postgres"`, quote(t.Protocol))
	}
	if len(t.Hosts) == 0 {
		d.errorf("spec.hosts", "needs at least one host such as orders.db.example:5432")
	}
	d.checkList("spec.hosts", t.Hosts)
	for i, text := range t.Hosts {
		if _, err := ParseHost(text); err != nil {
			d.errorf(fmt.Sprintf("spec.hosts[%d]", i), "%s", err)
		}
	}
	d.checkTLS(&t.TLS)
	d.checkOneOf("spec.credential", "postgresRole")
	if t.Credential.PostgresRole != nil {
		d.checkPostgresRole(t.Credential.PostgresRole)
	}
}

func (d *document) checkTLS(t *TLSSpec) {
	setDefault(&t.Mode, TLSVerifyFull)
	d.checkOptionalFile("spec.tls.caFile", t.CAFile)
	if d.has("spec.tls.serverName") {
		name := strings.ToLower(t.ServerName)
		if _, err := netip.ParseAddr(name); err != nil && checkHostName(name) != nil {
			d.errorf("spec.tls.serverName", "%s is neither a host name nor an address", quote(t.ServerName))
		}
	}
	switch t.Mode {
	case TLSVerifyFull:
	case TLSDisable:
		if t.CAFile != "" || t.ServerName != "" {
			d.errorf("spec.tls.mode", "is disable, so caFile and serverName would have no effect; remove them, or use verify-full")
		}
	default:
		d.errorf("spec.tls.mode", "%s is not accepted; use verify-full, or disable where the network itself is trusted", quote(t.Mode))
	}
}

func (d *document) checkPostgresRole(r *PostgresRoleSpec) {
	const at = "spec.credential.postgresRole"
	d.checkOneOf(at+".adminFrom", "file")
	d.checkOptionalFile(at+".adminFrom.file", r.AdminFrom.File)
	d.checkList(at+".memberOf", r.MemberOf)
	for i, role := range r.MemberOf {
		// NAMEDATALEN - 1, PostgreSQL's limit of an identifier.
		if len(role) > 63 {
			d.errorf(fmt.Sprintf("%s.memberOf[%d]", at, i), "a role's name has at most 63 bytes")
		}
	}
	if !d.has(at + ".ttl") {
		r.TTL = Duration(15 * time.Minute)
	}
	if ttl := time.Duration(r.TTL); ttl < time.Minute || ttl > 24*time.Hour {
		d.errorf(at+".ttl", "must be from 1m to 24h")
	}
	if !d.has(at + ".connectionLimit") {
		r.ConnectionLimit = 20
	}
	if r.ConnectionLimit < 1 || r.ConnectionLimit > 10000 {
		d.errorf(at+".connectionLimit", "must be from 1 to 10000")
	}
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
	setDefault(&s.Claims.Groups, "groups")
	d.checkOptionalFile("spec.caFile", s.CAFile)
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

package policy

import (
	"slices"
	"strings"
)

// Matches tells whether the principal is selected. A principal without
// subject or issuer never is.
func (s PrincipalSelect) Matches(p Principal) bool {
	if p.Subject == "" || p.Issuer == "" {
		return false
	}
	for _, group := range s.Groups {
		if slices.Contains(p.Groups, group) {
			return true
		}
	}
	for _, pattern := range s.Subjects {
		subject, issuer, ok := splitSubject(pattern)
		if ok && (issuer == "" || issuer == p.Issuer) && (subject == "*" || subject == p.Subject) {
			return true
		}
	}
	return false
}

// splitSubject reads "subject@issuer", "*@issuer" or "*"; the issuer of the
// last is empty and stands for any. A subject may hold "@" itself.
func splitSubject(s string) (subject, issuer string, ok bool) {
	if s == "*" {
		return "*", "", true
	}
	at := strings.LastIndexByte(s, '@')
	if at <= 0 || !isName(s[at+1:]) {
		return "", "", false
	}
	return s[:at], s[at+1:], true
}

// label names a principal in messages.
func (p Principal) label() string {
	if p.Subject == "" || p.Issuer == "" {
		return "nobody (no identity was proved)"
	}
	return quote(p.Subject + "@" + p.Issuer)
}

package policy

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

func (d *document) checkSink(s *SinkSpec) {
	listen, err := netip.ParseAddrPort(s.Listen)
	switch {
	case s.Listen == "":
		d.errorf("spec.listen", `is missing; it is "address:port", such as "0.0.0.0:8443"`)
	case err != nil || listen.Port() == 0:
		d.errorf("spec.listen", `%s is no "address:port", such as "0.0.0.0:8443"`, quote(s.Listen))
	case s.TLS == nil && !listen.Addr().IsLoopback():
		d.errorf("spec.tls", "is missing; only a sink that listens on loopback may do without")
	}
	if s.TLS != nil {
		d.checkFile("spec.tls.certFile", s.TLS.CertFile)
		d.checkFile("spec.tls.keyFile", s.TLS.KeyFile)
	}
	d.checkSinkURL(s)
	d.checkLogin(&s.Login)
	d.checkPrincipals("spec.admins", s.Admins)
	d.checkWebhooks(s.Webhooks)
	if s.Slack != nil {
		d.checkSlack(s.Slack)
	}
}

func (d *document) checkSinkURL(s *SinkSpec) {
	const at = "spec.url"
	u, err := url.Parse(s.URL)
	switch {
	case s.URL == "":
		d.errorf(at, "is missing; it is what browsers and command lines call the sink, such as https://chaperone.corp.example")
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		d.errorf(at, "must be an https URL without user, path, query and fragment")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname()) && u.Hostname() != "localhost"):
		d.errorf(at, "must be an https URL; http is accepted for loopback addresses only")
	default:
		s.URL = strings.TrimRight(s.URL, "/")
	}
}

func (d *document) checkLogin(l *LoginSpec) {
	const at = "spec.login"
	if l.Issuer == "" {
		d.errorf(at+".issuer", "is missing; it names an IdentityProvider document")
	}
	if l.ClientID == "" {
		d.errorf(at+".clientID", "is missing; it is the page's client at the issuer")
	}
	if l.ClientSecretFrom != nil {
		d.checkSecret(at+".clientSecretFrom", *l.ClientSecretFrom)
	}
	setDefault(&l.CLIClientID, l.ClientID)
	d.checkScopes(at+".scopes", l.Scopes)
	if !d.has(at + ".sessionLife") {
		l.SessionLife = Duration(8 * time.Hour)
	}
	if t := time.Duration(l.SessionLife); t < time.Minute || t > 7*24*time.Hour {
		d.errorf(at+".sessionLife", "must be from 1m to 168h")
	}
}

func (d *document) checkWebhooks(hooks []WebhookSpec) {
	const at = "spec.webhooks"
	d.checkLength(at, len(hooks))
	for i := range hooks {
		w, at := &hooks[i], fmt.Sprintf("%s[%d]", at, i)
		d.checkName(at+".name", w.Name)
		if slices.ContainsFunc(hooks[:i], func(o WebhookSpec) bool { return o.Name == w.Name }) {
			d.errorf(at+".name", "another webhook is named %s", quote(w.Name))
		}
		d.checkSecret(at+".urlFrom", w.URLFrom)
		if w.SecretFrom != nil {
			d.checkSecret(at+".secretFrom", *w.SecretFrom)
		}
		setDefault(&w.Format, WebhookJSON)
		if w.Format != WebhookJSON && w.Format != WebhookSlack {
			d.errorf(at+".format", "%s is unknown; use json or slack", quote(w.Format))
		}
		d.checkOptionalFile(at+".caFile", w.CAFile)
	}
}

func (d *document) checkSlack(s *SlackSpec) {
	const at = "spec.slack"
	d.checkSecret(at+".signingSecretFrom", s.SigningSecretFrom)
	if len(s.People) == 0 {
		d.errorf(at+".people", "is missing; nobody else's buttons count")
	}
	d.checkLength(at+".people", len(s.People))
	ids := map[string]bool{}
	for i, p := range s.People {
		at := fmt.Sprintf("%s.people[%d]", at, i)
		switch {
		case p.ID == "":
			d.errorf(at+".id", `is missing; it is Slack's user id, such as "U012AB3CD"`)
		case ids[p.ID]:
			d.errorf(at+".id", "%s is listed twice", quote(p.ID))
		}
		ids[p.ID] = true
		if p.Subject == "" {
			d.errorf(at+".subject", "is missing; it is the person's at the issuer")
		}
		if p.Issuer == "" {
			d.errorf(at+".issuer", "is missing; it names an IdentityProvider document")
		}
		d.checkList(at+".groups", p.Groups)
	}
}

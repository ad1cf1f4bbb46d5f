package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// checkReferences checks what documents say of each other.
func (l *loader) checkReferences() {
	targets := namesOf(l.targets, func(t *Target) string { return t.Metadata.Name })
	issuers := namesOf(l.providers, func(p *IdentityProvider) string { return p.Metadata.Name })
	for _, p := range l.policies {
		p.at.refer("spec.targets", p.doc.Spec.Targets, "Target", targets)
		p.at.referSubjects("spec.principals", p.doc.Spec.Principals, issuers)
		for i := range p.doc.Spec.Rules {
			p.at.referApproval(fmt.Sprintf("spec.rules[%d].approval", i), p.doc.Spec.Rules[i].Approval, issuers)
		}
	}
	for _, m := range l.masks {
		m.at.refer("spec.targets", m.doc.Spec.Targets, "Target", targets)
		m.at.referSubjects("spec.exempt", m.doc.Spec.Exempt, issuers)
		m.at.referApproval("spec.approval", m.doc.Spec.Approval, issuers)
		l.checkKeys(m)
	}
	for _, w := range l.workloads {
		l.checkIdentity(w, issuers)
	}
	for _, s := range l.sinks {
		s.at.referSink(&s.doc.Spec, issuers)
	}
	l.checkHostsOnce()
	l.checkPatternsOnce()
}

func namesOf[T any](docs []located[T], name func(*T) string) []string {
	names := make([]string, len(docs))
	for i := range docs {
		names[i] = name(docs[i].doc)
	}
	slices.Sort(names)
	return names
}

func (d *document) refer(at string, names []string, kind string, known []string) {
	for i, name := range names {
		if name != "*" && name != "" && !slices.Contains(known, name) {
			d.errorf(fmt.Sprintf("%s[%d]", at, i), "no %s document is named %s%s", kind, quote(name), listed(known))
		}
	}
}

func (d *document) referSubjects(at string, p PrincipalSelect, issuers []string) {
	for i, s := range p.Subjects {
		_, issuer, ok := splitSubject(s)
		if ok && issuer != "" && issuer != LocalIssuer && !slices.Contains(issuers, issuer) {
			d.errorf(fmt.Sprintf("%s.subjects[%d]", at, i), "no IdentityProvider document is named %s%s", quote(issuer), listed(issuers))
		}
	}
}

func (d *document) referApproval(at string, a *ApprovalSpec, issuers []string) {
	if a == nil {
		return
	}
	d.referSubjects(at+".from", a.From, issuers)
	for i, e := range a.Escalate {
		d.referSubjects(fmt.Sprintf("%s.escalate[%d].to", at, i), e.To, issuers)
	}
}

func (d *document) referIssuer(at, issuer string, issuers []string) {
	if issuer != "" && !slices.Contains(issuers, issuer) {
		d.errorf(at, "no IdentityProvider document is named %s%s", quote(issuer), listed(issuers))
	}
}

func (d *document) referSink(s *SinkSpec, issuers []string) {
	d.referIssuer("spec.login.issuer", s.Login.Issuer, issuers)
	d.referSubjects("spec.admins", s.Admins, issuers)
	if s.Slack == nil {
		return
	}
	for i, p := range s.Slack.People {
		d.referIssuer(fmt.Sprintf("spec.slack.people[%d].issuer", i), p.Issuer, issuers)
	}
}

// checkKeys wants the keys that a mask names in the Node document. Documents
// without one are a part of what a node loads, so there nothing can be said.
func (l *loader) checkKeys(m located[Mask]) {
	if len(l.nodes) == 0 {
		return
	}
	keys := l.nodes[0].doc.Spec.Keys
	for i, c := range m.doc.Spec.Columns {
		for field, name := range map[string]string{"hmac": c.With.HMAC, "formatPreserving": c.With.FormatPreserving} {
			if isName(name) && keys[name].File == "" {
				m.at.errorf(fmt.Sprintf("spec.columns[%d].with.%s", i, field), "the Node document's keys hold none named %s%s", quote(name), listed(slices.Sorted(maps.Keys(keys))))
			}
		}
	}
}

// listed says which names there are, if they are few enough to help.
func listed(known []string) string {
	if len(known) == 0 || len(known) > 10 {
		return ""
	}
	return "; there are " + strings.Join(known, ", ")
}

func (l *loader) checkIdentity(w located[Workload], issuers []string) {
	id := w.doc.Spec.Identity
	if id == nil || id.Issuer == "" {
		return
	}
	w.at.referIssuer("spec.identity.issuer", id.Issuer, issuers)
	for _, p := range l.providers {
		if p.doc.Metadata.Name == id.Issuer && id.Audience != "" && !slices.Contains(p.doc.Spec.Audiences, id.Audience) {
			w.at.errorf("spec.identity.audience", "%s is none of the audiences of %s: %s", quote(id.Audience), id.Issuer, strings.Join(p.doc.Spec.Audiences, ", "))
		}
	}
}

// checkHostsOnce refuses one host in two targets: nothing could ever tell
// which of them a connection is for.
func (l *loader) checkHostsOnce() {
	owners := map[Host]string{}
	for _, t := range l.targets {
		for i, text := range t.doc.Spec.Hosts {
			h, err := ParseHost(text)
			if err != nil {
				continue // reported already
			}
			name := t.doc.Metadata.Name
			if owner, taken := owners[h]; taken && owner != name {
				t.at.errorf(fmt.Sprintf("spec.hosts[%d]", i), "%s belongs to Target %s already", quote(text), quote(owner))
				continue
			}
			owners[h] = name
		}
	}
}

// checkPatternsOnce refuses two workloads that select the same jobs by the same
// words. Those that do so by others are found when such a job comes.
func (l *loader) checkPatternsOnce() {
	owners := map[string]string{}
	for _, w := range l.workloads {
		var at, pattern string
		switch sel := w.doc.Spec.Select; {
		case sel.Run != nil:
			at, pattern = "spec.select.run.name", sel.Run.Name
		case sel.Systemd != nil:
			at, pattern = "spec.select.systemd.unit", sel.Systemd.Unit
		}
		if pattern == "" {
			continue
		}
		if owner, taken := owners[at+" "+pattern]; taken {
			w.at.errorf(at, "Workload %s selects %s already", quote(owner), quote(pattern))
			continue
		}
		owners[at+" "+pattern] = w.doc.Metadata.Name
	}
}

package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

func (d *document) checkPolicy(p *PolicySpec) {
	d.checkPrincipals("spec.principals", p.Principals)
	if len(p.Principals.Groups) == 0 && len(p.Principals.Subjects) == 0 {
		d.errorf("spec.principals", "matches nobody; it needs groups or subjects")
	}
	d.checkTargetNames(p.Targets)
	if len(p.Rules) == 0 {
		d.errorf("spec.rules", "needs at least one rule")
	}
	d.checkLength("spec.rules", len(p.Rules))
	names := map[string]bool{}
	for i := range p.Rules {
		r, at := &p.Rules[i], fmt.Sprintf("spec.rules[%d]", i)
		d.checkRule(at, r)
		if r.Name != "" && names[r.Name] {
			d.errorf(at+".name", "another rule of this policy is named %s", quote(r.Name))
		}
		names[r.Name] = true
	}
	setDefault(&p.Session.Record, RecordDurable)
	if r := p.Session.Record; r != RecordDurable && r != RecordStrict {
		d.errorf("spec.session.record", "%s is unknown; use durable or strict", quote(r))
	}
}

func (d *document) checkRule(at string, r *Rule) {
	d.checkName(at+".name", r.Name)
	if strings.TrimSpace(r.When) == "" {
		d.errorf(at+".when", `is missing; it is an expression such as "statement.readOnly"`)
	}
	switch r.Then {
	case Allow:
		if r.Message != "" {
			d.errorf(at+".message", "has no effect on an allow; it is told on a denial")
		}
	case Deny:
	case "":
		d.errorf(at+".then", "is missing; use allow or deny")
	case "approve":
		d.errorf(at+".then", "approve%s; use allow or deny", notSupported)
	default:
		d.errorf(at+".then", "%s is unknown; use allow or deny", quote(string(r.Then)))
	}
	if len(r.Message) > 500 {
		d.errorf(at+".message", "has at most 500 bytes")
	}
}

// checkTargetNames checks the list that policies and masks have.
func (d *document) checkTargetNames(names []string) {
	if len(names) == 0 {
		d.errorf("spec.targets", `needs at least one Target's name, or "*" for all`)
	}
	d.checkList("spec.targets", names)
}

func (d *document) checkPrincipals(at string, p PrincipalSelect) {
	d.checkList(at+".groups", p.Groups)
	d.checkList(at+".subjects", p.Subjects)
	for i, group := range p.Groups {
		if group == "*" {
			d.errorf(fmt.Sprintf("%s.groups[%d]", at, i), `groups have no wildcard; everybody is subjects: ["*"]`)
		}
	}
	for i, s := range p.Subjects {
		if _, _, ok := splitSubject(s); !ok {
			d.errorf(fmt.Sprintf("%s.subjects[%d]", at, i), `%s must be subject@issuer, *@issuer or "*", where the issuer is an IdentityProvider's name or %q`, quote(s), LocalIssuer)
		}
	}
}

// columnPattern is three parts without white space, "*" anywhere in them.
var columnPattern = regexp.MustCompile(`^[^.\s]+\.[^.\s]+\.[^.\s]+$`)

// detectors are the names that package mask gives its content detectors.
func detectors() []string {
	return []string{"payment-card", "email", "private-key", "jwt", "cloud-key"}
}

func (d *document) checkMask(m *MaskSpec) {
	d.checkTargetNames(m.Targets)
	if len(m.Columns) == 0 && len(m.Detect) == 0 {
		d.errorf("spec", "masks nothing; it needs columns or detect")
	}
	d.checkLength("spec.columns", len(m.Columns))
	for i := range m.Columns {
		d.checkColumn(fmt.Sprintf("spec.columns[%d]", i), &m.Columns[i])
	}
	d.checkList("spec.detect", m.Detect)
	for i, name := range m.Detect {
		if !slices.Contains(detectors(), name) {
			d.errorf(fmt.Sprintf("spec.detect[%d]", i), "unknown detector %s; known are %s", quote(name), strings.Join(detectors(), ", "))
		}
	}
	setDefault(&m.Untraceable, "deny")
	switch m.Untraceable {
	case "deny":
	case "approve":
		d.errorf("spec.untraceable", "approve%s; use deny", notSupported)
	default:
		d.errorf("spec.untraceable", "%s is unknown; use deny", quote(m.Untraceable))
	}
	d.checkPrincipals("spec.exempt", m.Exempt)
}

func (d *document) checkColumn(at string, c *ColumnMask) {
	switch {
	case c.Match == "":
		d.errorf(at+".match", `is missing; it is a pattern such as "public.customers.card_number"`)
	case !columnPattern.MatchString(c.Match):
		d.errorf(at+".match", `%s is no column pattern; write schema.table.column, with "*" for any`, quote(c.Match))
	}
	if !d.has(at + ".with") {
		d.errorf(at+".with", "is missing; it is a transform such as redact or {keepLast: 4}")
		return
	}
	if p := d.places[at+".with"]; p.node != nil && len(p.node.Content) == 0 && p.node.Value != "" {
		return // one plain word, checked as it was read
	}
	d.checkOneOf(at+".with", "redact", "null", "keepFirst", "keepLast")
	d.checkKeep(at+".with.keepFirst", c.With.KeepFirst)
	d.checkKeep(at+".with.keepLast", c.With.KeepLast)
	d.checkTrue(at+".with.redact", c.With.Redact)
	d.checkTrue(at+".with.null", c.With.Null)
}

func (d *document) checkKeep(at string, n int) {
	if d.has(at) && n < 1 {
		d.errorf(at, "must be at least 1; redact keeps nothing")
	}
}

func (d *document) checkTrue(at string, on bool) {
	if d.has(at) && !on {
		d.errorf(at, "must be true, or left out")
	}
}

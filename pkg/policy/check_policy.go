package policy

import (
	"fmt"
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
	setDefault(&p.Enforce, EnforceOn)
	if p.Enforce != EnforceOn && p.Enforce != EnforceShadow {
		d.errorf("spec.enforce", "%s is unknown; use on or shadow", quote(p.Enforce))
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
			d.errorf(at+".message", "has no effect on an allow; it is told on a denial, and to who is asked for an approval")
		}
	case Deny, Approve:
	case "":
		d.errorf(at+".then", "is missing; use allow, approve or deny")
	default:
		d.errorf(at+".then", "%s is unknown; use allow, approve or deny", quote(string(r.Then)))
	}
	switch {
	case r.Then == Approve:
		d.checkApproval(at+".approval", r.Approval)
	case d.has(at + ".approval"):
		d.errorf(at+".approval", "has no effect unless then is approve")
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

package policy

import (
	"fmt"
	"time"
)

// checkApproval checks who is asked, and fills in all defaults but that of
// Per, which depends on what the rule mentions.
func (d *document) checkApproval(at string, a *ApprovalSpec) {
	if a == nil {
		d.errorf(at, "is missing; it says who is asked, as in {from: {groups: [dba]}}")
		return
	}
	d.checkAskedPeople(at+".from", a.From)
	if !d.has(at + ".count") {
		a.Count = 1
	}
	if a.Count < 1 || a.Count > 10 {
		d.errorf(at+".count", "must be from 1 to 10")
	}
	if !d.has(at + ".within") {
		a.Within = Duration(10 * time.Minute)
	}
	if t := time.Duration(a.Within); t < 10*time.Second || t > 24*time.Hour {
		d.errorf(at+".within", "must be from 10s to 24h")
	}
	setDefault(&a.Mode, ModeHold)
	if a.Mode != ModeHold && a.Mode != ModeRetry {
		d.errorf(at+".mode", "%s is unknown; use hold or retry", quote(a.Mode))
	}
	if a.Per != "" && a.Per != PerSession && a.Per != PerCommand {
		d.errorf(at+".per", "%s is unknown; use session or command", quote(a.Per))
	}
	if time.Duration(a.Standing) > 24*time.Hour {
		d.errorf(at+".standing", "must be at most 24h")
	}
	d.checkLength(at+".escalate", len(a.Escalate))
	for i, e := range a.Escalate {
		at := fmt.Sprintf("%s.escalate[%d]", at, i)
		switch {
		case e.After <= 0:
			d.errorf(at+".after", "is missing; it is how long nobody has answered for")
		case e.After >= a.Within:
			d.errorf(at+".after", "must be less than within, which is %s", a.Within)
		}
		d.checkAskedPeople(at+".to", e.To)
	}
}

func (d *document) checkAskedPeople(at string, p PrincipalSelect) {
	if len(p.Groups) == 0 && len(p.Subjects) == 0 {
		d.errorf(at, "asks nobody; it needs groups or subjects")
	}
	d.checkPrincipals(at, p)
}

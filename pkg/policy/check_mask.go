package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

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
	setDefault(&m.Untraceable, UntraceableDeny)
	switch m.Untraceable {
	case UntraceableDeny:
	case UntraceableApprove:
		d.checkApproval("spec.approval", m.Approval)
		if m.Approval != nil {
			setDefault(&m.Approval.Per, PerCommand)
		}
	default:
		d.errorf("spec.untraceable", "%s is unknown; use deny or approve", quote(m.Untraceable))
	}
	if m.Untraceable != UntraceableApprove && d.has("spec.approval") {
		d.errorf("spec.approval", "has no effect unless untraceable is approve")
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
	d.checkOneOf(at+".with", "redact", "null", "keepFirst", "keepLast", "hmac")
	d.checkKeep(at+".with.keepFirst", c.With.KeepFirst)
	d.checkKeep(at+".with.keepLast", c.With.KeepLast)
	d.checkTrue(at+".with.redact", c.With.Redact)
	d.checkTrue(at+".with.null", c.With.Null)
	if d.has(at + ".with.hmac") {
		d.checkName(at+".with.hmac", c.With.HMAC)
	}
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

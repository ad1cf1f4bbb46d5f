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
	return []string{"payment-card", "iban", "email", "phone", "us-ssn", "private-key", "jwt", "cloud-key", "url-password"}
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
	case UntraceableDeny, UntraceableApprove:
	default:
		d.errorf("spec.untraceable", "%s is unknown; use deny or approve", quote(m.Untraceable))
	}
	setDefault(&m.Predicates, PredicatesEquality)
	switch m.Predicates {
	case PredicatesAllow, PredicatesEquality, PredicatesApprove, PredicatesDeny:
	default:
		d.errorf("spec.predicates", "%s is unknown; use allow, equality, approve or deny", quote(m.Predicates))
	}
	if len(m.Columns) == 0 && d.has("spec.predicates") {
		d.errorf("spec.predicates", "has no effect without columns")
	}
	switch {
	case m.Untraceable == UntraceableApprove || m.Predicates == PredicatesApprove:
		d.checkApproval("spec.approval", m.Approval)
		if m.Approval != nil {
			setDefault(&m.Approval.Per, PerCommand)
		}
	case d.has("spec.approval"):
		d.errorf("spec.approval", "has no effect unless untraceable or predicates is approve")
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
	d.checkOneOf(at+".with", "redact", "null", "keepFirst", "keepLast", "hmac", "formatPreserving", "truncate", "fixed")
	d.checkKeep(at+".with.keepFirst", c.With.KeepFirst)
	d.checkKeep(at+".with.keepLast", c.With.KeepLast)
	d.checkTrue(at+".with.redact", c.With.Redact)
	d.checkTrue(at+".with.null", c.With.Null)
	if d.has(at + ".with.hmac") {
		d.checkName(at+".with.hmac", c.With.HMAC)
	}
	if d.has(at + ".with.formatPreserving") {
		d.checkName(at+".with.formatPreserving", c.With.FormatPreserving)
	}
	if d.has(at+".with.truncate") && c.With.Truncate != TruncateYear && c.With.Truncate != TruncateMonth {
		d.errorf(at+".with.truncate", "%s is unknown; use %s or %s", quote(c.With.Truncate), TruncateYear, TruncateMonth)
	}
	d.checkFixed(at+".with.fixed", c.With.Fixed)
}

// maxFixed bounds the text of a fixed transform, in bytes.
const maxFixed = 1024

// checkFixed checks what holds for every type; whether the text can be read as
// that of the column is known when its first row comes.
func (d *document) checkFixed(at, text string) {
	switch {
	case !d.has(at):
	case text == "":
		d.errorf(at, "must not be empty; null leaves nothing")
	case len(text) > maxFixed:
		d.errorf(at, "has %d bytes, at most %d are allowed", len(text), maxFixed)
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

package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"
)

// casesTime is "now" for cases that don't set it: a Monday.
var casesTime = time.Date(2026, time.July, 6, 12, 0, 0, 0, time.UTC)

// CaseResult is how one test case of a folder went.
type CaseResult struct {
	File     string
	Line     int
	Name     string // the case's name, or else its SQL
	Want     Action
	WantRule string // empty: any rule
	// WantShadows are what shadow policies must have said, as "policy/rule"; nil:
	// anything.
	WantShadows []string
	Got         Decision
	Passed      bool
}

// RunTests loads a folder and decides the cases in its *_test.yaml files:
//
//	as: {subject: nightly, issuer: corp-idp, groups: [planners]}
//	target: orders-db
//	cases:
//	  - {sql: "SELECT * FROM orders", expect: allow, rule: read}
//	  - {sql: "DROP TABLE orders", expect: deny}
//	  - {sql: "DELETE FROM orders", expect: approve, rule: write-needs-a-human}
//	  - {expect: deny, as: {subject: eve, issuer: corp-idp}}
//
// What stands beside cases holds for each that doesn't set it: as, target,
// workload, session and now (RFC 3339; by default noon of 2026-07-06 UTC, a
// Monday). A case has sql, or the facts of a statement, command, file or
// request, or none of them: then it asks whether the session may be opened. Rule
// is the rule that must decide, or be one of those that ask for an approval.
// Shadow lists, as "policy/rule", what shadow policies must have said.
//
// Parse reads SQL; a text that it can't read is denied. The error is that of
// [Load], or an [Errors] of what is wrong with the cases.
func RunTests(dir string, parse func(sql string) ([]Statement, error)) ([]CaseResult, error) {
	set, err := Load(dir)
	if err != nil {
		return nil, err
	}
	fsys := os.DirFS(dir)
	names, err := yamlFiles(fsys, true)
	if err != nil {
		return nil, fmt.Errorf("can't read the policy folder %s: %w", dir, err)
	}
	var cases []testCase
	var errs Errors
	for _, name := range names {
		shown := filepath.Join(dir, name)
		data, err := readFile(fsys, name)
		if err != nil {
			errs = append(errs, &DocumentError{File: shown, Message: "can't be read: " + plain(err), Err: err})
			continue
		}
		cases = append(cases, readCases(set, shown, data, &errs)...)
	}
	if len(errs) > 0 {
		return nil, errs.sorted()
	}
	results := make([]CaseResult, len(cases))
	for i := range cases {
		results[i] = cases[i].run(set, parse)
	}
	return results, nil
}

// readCases reads and checks a file of cases.
func readCases(set *Set, file string, data []byte, errs *Errors) []testCase {
	roots, yamlErr := yamlDocuments(file, data)
	if yamlErr != nil {
		*errs = append(*errs, yamlErr)
		return nil
	}
	var all []testCase
	for _, root := range roots {
		d := &document{file: file, line: root.Line, places: map[string]place{}, errs: errs}
		var f caseFile
		before := len(*errs)
		d.decode(root, reflect.ValueOf(&f).Elem(), "")
		if len(*errs) > before {
			continue
		}
		if len(f.Cases) == 0 {
			d.errorf("cases", "is missing; it is a list of cases")
		}
		for i := range f.Cases {
			c, at := &f.Cases[i], fmt.Sprintf("cases[%d]", i)
			c.inherit(f.caseSetting)
			c.file, c.line = file, d.lineOf(at)
			d.checkCase(set, at, c)
		}
		all = append(all, f.Cases...)
	}
	return all
}

// inherit takes from the file what the case doesn't set.
func (c *testCase) inherit(from caseSetting) {
	if c.As == nil {
		c.As = from.As
	}
	if c.Workload == nil {
		c.Workload = from.Workload
	}
	if c.Session == nil {
		c.Session = from.Session
	}
	setDefault(&c.Target, from.Target)
	setDefault(&c.Now, from.Now)
}

func (d *document) checkCase(set *Set, at string, c *testCase) {
	switch {
	case c.As == nil || c.As.Subject == "" || c.As.Issuer == "":
		d.errorf(at+".as", "is missing; it is {subject: …, issuer: …, groups: […]}, here or for all cases")
	case c.As.Issuer != LocalIssuer && set.IdentityProvider(c.As.Issuer) == nil:
		d.errorf(at+".as.issuer", "no IdentityProvider document is named %s", quote(c.As.Issuer))
	}
	if set.Target(c.Target) == nil {
		d.errorf(at+".target", "no Target document is named %s", quote(c.Target))
	}
	if c.Expect != Allow && c.Expect != Approve && c.Expect != Deny {
		d.errorf(at+".expect", "must be allow, approve or deny")
	}
	d.checkAsked(set, at, c)
	c.now = casesTime
	if c.Now != "" {
		var err error
		if c.now, err = time.Parse(time.RFC3339, c.Now); err != nil {
			d.errorf(at+".now", `must be a time such as "2026-07-06T12:00:00Z"`)
		}
	}
}

// checkAsked wants a case to ask one thing, of a target that has such.
func (d *document) checkAsked(set *Set, at string, c *testCase) {
	target, first := set.Target(c.Target), ""
	for _, of := range []struct {
		field string
		about about
	}{{"sql", aboutStatement}, {"statement", aboutStatement}, {"command", aboutCommand}, {"file", aboutFile}, {"request", aboutRequest}} {
		at := at + "." + of.field
		switch {
		case !d.has(at):
		case first != "":
			d.errorf(at, "has no place beside %s; only one of them may be set", first)
		case target != nil && target.Spec.Protocol != of.about.protocol():
			d.errorf(at, "is for %s targets; %s speaks %s", of.about.protocol(), quote(c.Target), target.Spec.Protocol)
		default:
			first = of.field
		}
	}
}

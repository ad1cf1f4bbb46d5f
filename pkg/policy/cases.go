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
	Got      Decision
	Passed   bool
}

// RunTests loads a folder and decides the cases in its *_test.yaml files:
//
//	as: {subject: nightly, issuer: corp-idp, groups: [planners]}
//	target: orders-db
//	cases:
//	  - {sql: "SELECT * FROM orders", expect: allow, rule: read}
//	  - {sql: "DROP TABLE orders", expect: deny}
//	  - {expect: deny, as: {subject: eve, issuer: corp-idp}}
//
// What stands beside cases holds for each that doesn't set it: as, target,
// workload, session and now (RFC 3339; by default noon of 2026-07-06 UTC, a
// Monday). A case has sql, or the facts of a statement, or neither: then it
// asks whether the session may be opened. Rule is the rule that must decide.
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

// caseFile is a file of cases.
type caseFile struct {
	caseSetting `yaml:",inline"`
	Cases       []testCase `yaml:"cases"`
}

// caseSetting is what a file may set for all of its cases.
type caseSetting struct {
	As       *caseAs       `yaml:"as"`
	Target   string        `yaml:"target"`
	Workload *caseWorkload `yaml:"workload"`
	Session  *caseSession  `yaml:"session"`
	Now      string        `yaml:"now"`
}

type caseAs struct {
	Subject string         `yaml:"subject"`
	Issuer  string         `yaml:"issuer"`
	Groups  []string       `yaml:"groups"`
	Claims  map[string]any `yaml:"claims"`
}

type caseWorkload struct {
	Name           string            `yaml:"name"`
	Node           string            `yaml:"node"`
	Executable     string            `yaml:"executable"`
	UID            int64             `yaml:"uid"`
	Unit           string            `yaml:"unit"`
	Namespace      string            `yaml:"namespace"`
	ServiceAccount string            `yaml:"serviceAccount"`
	Labels         map[string]string `yaml:"labels"`
}

type caseSession struct {
	Age      Duration `yaml:"age"`
	Rows     int64    `yaml:"rows"`
	Commands int64    `yaml:"commands"`
}

type caseStatement struct {
	Text      string   `yaml:"text"`
	Kind      string   `yaml:"kind"`
	ReadOnly  bool     `yaml:"readOnly"`
	DDL       bool     `yaml:"ddl"`
	Tables    []string `yaml:"tables"`
	Columns   []string `yaml:"columns"`
	Functions []string `yaml:"functions"`
	HasWhere  bool     `yaml:"hasWhere"`
	Multi     bool     `yaml:"multi"`
}

type testCase struct {
	caseSetting `yaml:",inline"`
	Name        string         `yaml:"name"`
	SQL         string         `yaml:"sql"`
	Statement   *caseStatement `yaml:"statement"`
	Expect      Action         `yaml:"expect"`
	Rule        string         `yaml:"rule"`

	file string
	line int
	now  time.Time
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
	if c.Expect != Allow && c.Expect != Deny {
		d.errorf(at+".expect", "must be allow or deny")
	}
	if c.SQL != "" && c.Statement != nil {
		d.errorf(at+".statement", "has no place beside sql; only one of them may be set")
	}
	c.now = casesTime
	if c.Now != "" {
		var err error
		if c.now, err = time.Parse(time.RFC3339, c.Now); err != nil {
			d.errorf(at+".now", `must be a time such as "2026-07-06T12:00:00Z"`)
		}
	}
}

// run decides the case as a session would.
func (c *testCase) run(set *Set, parse func(string) ([]Statement, error)) CaseResult {
	r := CaseResult{File: c.file, Line: c.line, Name: c.Name, Want: c.Expect, WantRule: c.Rule}
	setDefault(&r.Name, c.SQL)
	setDefault(&r.Name, "open a session")
	r.Got = c.decide(set, parse)
	r.Passed = r.Got.Action == r.Want && (r.WantRule == "" || r.WantRule == r.Got.Rule)
	return r
}

func (c *testCase) decide(set *Set, parse func(string) ([]Statement, error)) Decision {
	bound := set.Bind(c.principal(), c.workload(), set.Target(c.Target).facts())
	decision := bound.Open(c.now)
	statements, err := c.statements(parse)
	if err != nil {
		return Decision{Action: Deny, Message: err.Error()}
	}
	var sess SessionFacts
	if c.Session != nil {
		sess = SessionFacts{Age: time.Duration(c.Session.Age), Rows: c.Session.Rows, Commands: c.Session.Commands}
	}
	for i := range statements {
		if decision.Action != Allow {
			break
		}
		decision = bound.Statement(c.now, sess, &statements[i])
	}
	return decision
}

func (c *testCase) statements(parse func(string) ([]Statement, error)) ([]Statement, error) {
	if s := c.Statement; s != nil {
		return []Statement{Statement(*s)}, nil
	}
	if c.SQL == "" {
		return nil, nil
	}
	return parse(c.SQL)
}

func (c *testCase) principal() Principal {
	return Principal{Subject: c.As.Subject, Issuer: c.As.Issuer, Groups: c.As.Groups, Claims: c.As.Claims}
}

func (c *testCase) workload() WorkloadFacts {
	if c.Workload == nil {
		return WorkloadFacts{}
	}
	return WorkloadFacts(*c.Workload)
}

// facts are those of a connection to the target's first host.
func (t *Target) facts() TargetFacts {
	f := TargetFacts{Name: t.Metadata.Name, Protocol: t.Spec.Protocol, Labels: t.Metadata.Labels}
	if h, err := ParseHost(t.Spec.Hosts[0]); err == nil {
		f.Host, f.Port = h.Name, int64(h.Port)
		if h.Name == "" {
			f.Host = h.Prefix.Addr().String()
		}
	}
	return f
}

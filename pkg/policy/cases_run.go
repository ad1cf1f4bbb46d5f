package policy

import (
	"slices"
	"time"
)

// run decides the case as a session would.
func (c *testCase) run(set *Set, parse func(string) ([]Statement, error)) CaseResult {
	r := CaseResult{File: c.file, Line: c.line, Name: c.Name, Want: c.Expect, WantRule: c.Rule, WantShadows: c.Shadow}
	asked := c.asked()
	setDefault(&r.Name, c.SQL)
	if asked.about() != aboutSession {
		setDefault(&r.Name, asked.label())
	}
	setDefault(&r.Name, "open a session")
	r.Got = c.decide(set, parse)
	r.Passed = r.Got.Action == r.Want && r.ruled() && r.shadowed()
	return r
}

// ruled tells whether the rule decided that was to.
func (r *CaseResult) ruled() bool {
	return r.WantRule == "" || r.WantRule == r.Got.Rule ||
		slices.ContainsFunc(r.Got.Approvals, func(n Needed) bool { return n.Rule == r.WantRule })
}

// shadowed tells whether the shadow policies said what they were to.
func (r *CaseResult) shadowed() bool {
	if r.WantShadows == nil {
		return true
	}
	var got []string
	for _, s := range r.Got.Shadows {
		got = append(got, s.Policy+"/"+s.Rule)
	}
	slices.Sort(got)
	return slices.Equal(slices.Compact(got), slices.Sorted(slices.Values(r.WantShadows)))
}

// decide opens a session and does in it what the case asks. What is denied
// decides, then what needs an approval.
func (c *testCase) decide(set *Set, parse func(string) ([]Statement, error)) Decision {
	bound := set.Bind(c.principal(), c.workload(), set.Target(c.Target).facts())
	opened := bound.Open(c.now)
	all := []Asked{c.asked()}
	if c.SQL != "" {
		statements, err := parse(c.SQL)
		if err != nil {
			return Decision{Action: Deny, Message: err.Error()}
		}
		all = make([]Asked, len(statements))
		for i := range statements {
			all[i].Statement = &statements[i]
		}
	}
	if opened.Action == Deny || len(all) == 0 || all[0].about() == aboutSession {
		return opened
	}
	var sess SessionFacts
	if c.Session != nil {
		sess = SessionFacts{Age: time.Duration(c.Session.Age), Rows: c.Session.Rows, Commands: c.Session.Commands}
	}
	result := opened
	var shadows []Shadow
	for i, asked := range all {
		d := bound.Decide(c.now, sess, asked)
		shadows = append(shadows, d.Shadows...)
		// The first lists what opening needed again, with what it needs itself.
		if result.Action == Allow || d.Action == Deny || i == 0 && d.Action == Approve {
			result = d
		}
		if d.Action == Deny {
			break
		}
	}
	result.Shadows = shadows
	return result
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

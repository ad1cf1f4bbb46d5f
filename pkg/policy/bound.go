package policy

import (
	"fmt"
	"slices"
	"time"
)

// Bound is what a set says of one principal's job at one target. It is
// immutable, and any number of goroutines may use it.
type Bound struct {
	set       *Set
	principal Principal
	workload  WorkloadFacts
	target    TargetFacts
	variables fixed
	policies  []*compiledPolicy // that apply, in the order of their names
	rules     []*compiledRule   // of those that are enforced, in the same order
	shadows   []*compiledPolicy // those that are not
	allows    bool              // an enforced one can allow something
	session   SessionSpec
	plans     [abouts]plan
}

// Bind picks the policies that apply to the principal and the target.
func (s *Set) Bind(p Principal, w WorkloadFacts, t TargetFacts) *Bound {
	b := &Bound{set: s, principal: p, workload: w, target: t, session: SessionSpec{Record: RecordDurable}}
	b.variables = fixed{
		principal: object{s.facts["principal"], &b.principal},
		workload:  object{s.facts["workload"], &b.workload},
		target:    object{s.facts["target"], &b.target},
		session:   s.facts["session"],
	}
	for a := aboutStatement; a < abouts; a++ {
		b.variables.asked[a] = s.facts[a.variable()]
	}
	for i := range s.compiled {
		policy := &s.compiled[i]
		if !applies(policy.doc, p, t) {
			continue
		}
		b.policies = append(b.policies, policy)
		if policy.shadow() {
			b.shadows = append(b.shadows, policy)
			continue
		}
		for i := range policy.rules {
			b.rules = append(b.rules, &policy.rules[i])
		}
		b.allows = b.allows || policy.allows()
		b.session.tighten(policy.doc.Spec.Session)
	}
	return b
}

func applies(doc *Policy, p Principal, t TargetFacts) bool {
	return doc.Spec.Covers(t.Name) && doc.Spec.Principals.Matches(p)
}

// allows tells whether the policy can allow something, be it after people have
// said yes.
func (p *compiledPolicy) allows() bool {
	return slices.ContainsFunc(p.rules, func(r compiledRule) bool { return r.rule.Then != Deny })
}

// tighten keeps the tighter of each two bounds.
func (s *SessionSpec) tighten(other SessionSpec) {
	s.MaxDuration = tighter(s.MaxDuration, other.MaxDuration)
	s.MaxRows = tighter(s.MaxRows, other.MaxRows)
	s.MaxBytes = tighter(s.MaxBytes, other.MaxBytes)
	s.MaxCommandDuration = tighter(s.MaxCommandDuration, other.MaxCommandDuration)
	s.MaxSessions = tighter(s.MaxSessions, other.MaxSessions)
	if other.Record == RecordStrict {
		s.Record = other.Record
	}
}

// tighter is the smaller of two bounds, of which 0 is none.
func tighter[N Duration | Size | uint64](a, b N) N {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Session returns the bounds of sessions: of the enforced policies that apply,
// the tightest.
func (b *Bound) Session() SessionSpec { return b.session }

// BoundBy names the policy that a bound of [Bound.Session] is from, the first one
// if several say the same. field picks the bound.
func (b *Bound) BoundBy(field func(SessionSpec) any) string {
	for _, p := range b.policies {
		if !p.shadow() && field(p.doc.Spec.Session) == field(b.session) {
			return p.doc.Metadata.Name
		}
	}
	return ""
}

// Open decides whether a session may be opened: some rule that applies must
// be able to allow something, no deny rule may fire among those that mention
// nothing of a protocol, and the approvals that such rules ask for once a
// session must be given. Nothing that is done in the session is decided by it:
// the same rules are asked again then, and list the same approvals again. The
// caller remembers which of them the session was given.
func (b *Bound) Open(now time.Time) Decision {
	return b.Decide(now, SessionFacts{}, Asked{})
}

// Statement decides whether a statement may run. Every rule is asked that
// mentions the statement, or nothing of any protocol: one that denies, or
// can't be evaluated, decides before all that ask for an approval, and those
// before all that allow.
func (b *Bound) Statement(now time.Time, sess SessionFacts, st *Statement) Decision {
	return b.must(now, sess, Asked{Statement: st}, "statement")
}

// Command decides like [Bound.Statement] whether an SSH command may run.
func (b *Bound) Command(now time.Time, sess SessionFacts, c *Command) Decision {
	return b.must(now, sess, Asked{Command: c}, "command")
}

// File decides like [Bound.Statement] whether a file operation may be done.
func (b *Bound) File(now time.Time, sess SessionFacts, f *File) Decision {
	return b.must(now, sess, Asked{File: f}, "file operation")
}

// Request decides like [Bound.Statement] whether an API request may be made.
func (b *Bound) Request(now time.Time, sess SessionFacts, r *Request) Decision {
	return b.must(now, sess, Asked{Request: r}, "request")
}

// must refuses to take a nil pointer for the question whether a session may be
// opened.
func (b *Bound) must(now time.Time, sess SessionFacts, asked Asked, what string) Decision {
	if asked.about() == aboutSession {
		return Decision{Action: Deny, Message: "there is no " + what + " to decide"}
	}
	return b.Decide(now, sess, asked)
}

// Decide decides whatever is asked: like [Bound.Open] when that is nothing.
func (b *Bound) Decide(now time.Time, sess SessionFacts, asked Asked) Decision {
	if asked.about() == aboutSession {
		sess = SessionFacts{} // there is none yet
	}
	in := b.input(now, sess, asked)
	if d, expired := b.expired(in); expired {
		return d
	}
	d := b.decision(in, b.plan(in.about).ask(in))
	for _, policy := range b.shadows {
		own := policy.alone(in, nil)
		if d.changedBy(own.action) {
			d.Shadows = append(d.Shadows, Shadow{policy.doc.Metadata.Name, own.rule, own.action})
		}
	}
	return d
}

func (b *Bound) expired(in *input) (Decision, bool) {
	e := b.principal.Expires
	if e.IsZero() || in.at.Before(e) {
		return Decision{}, false
	}
	return Decision{Action: Deny, Message: fmt.Sprintf("the identity of %s expired at %s", b.principal.label(), e.UTC().Format(time.RFC3339))}, true
}

// decision makes a decision of what the rules said.
func (b *Bound) decision(in *input, said answers) Decision {
	p := b.plan(in.about)
	switch {
	case said.denied != none:
		r := b.rules[said.denied]
		// A rule that lasts denies again, whatever the rules before it say then.
		return Decision{Action: Deny, Policy: r.policy, Rule: r.rule.Name, Message: r.denial(said.cause), Lasting: r.lasting}
	case len(said.approvals) > 0:
		d := Decision{Action: Approve, Approvals: make([]Needed, len(said.approvals)), Lasting: p.lasting}
		for i, index := range said.approvals {
			r := b.rules[index]
			d.Approvals[i] = Needed{Policy: r.policy, Rule: r.rule.Name, Message: r.rule.Message, Spec: r.rule.Approval}
		}
		d.Policy, d.Rule = d.Approvals[0].Policy, d.Approvals[0].Rule
		return d
	case said.allowed != none:
		r := b.rules[said.allowed]
		return Decision{Action: Allow, Policy: r.policy, Rule: r.rule.Name, Lasting: p.lasting}
	case in.about == aboutSession && b.allows:
		return Decision{Action: Allow, Lasting: p.lasting}
	}
	return Decision{Action: Deny, Message: b.nothingAllows(in.asked), Lasting: p.lasting}
}

// nothingAllows is the message of the default denial.
func (b *Bound) nothingAllows(asked Asked) string {
	if asked.about() == aboutSession {
		return fmt.Sprintf("no policy lets %s open a session to target %s", b.principal.label(), quote(b.target.Name))
	}
	return fmt.Sprintf("no rule allows %s for %s at target %s", asked.label(), b.principal.label(), quote(b.target.Name))
}

// label names what is asked in messages.
func (a Asked) label() string {
	switch {
	case a.Statement != nil && a.Statement.Kind != "":
		return a.Statement.Kind
	case a.Statement != nil:
		return "this statement"
	case a.Command != nil && a.Command.Forward != "":
		return quote(a.Command.Forward) + " forwarding"
	case a.Command != nil && a.Command.Subsystem != "":
		return "the subsystem " + quote(a.Command.Subsystem)
	case a.Command != nil && a.Command.Program != "":
		return "the command " + quote(a.Command.Program)
	case a.Command != nil && a.Command.Text == "":
		return "a shell"
	case a.Command != nil:
		return "this command"
	case a.File != nil:
		return a.File.Op + " of " + quote(a.File.Path)
	case a.Request != nil && a.Request.NonResourcePath != "":
		return a.Request.Verb + " " + quote(a.Request.NonResourcePath)
	case a.Request != nil:
		return a.Request.Verb + " " + quote(a.Request.Resource)
	}
	return "a session"
}

// denial is what the client is told. The cause of a failed evaluation may hold
// parts of the statement's text, and stays out.
func (r *compiledRule) denial(cause error) string {
	switch {
	case cause != nil:
		return fmt.Sprintf("rule %s of policy %s could not be evaluated, so it denies", quote(r.rule.Name), quote(r.policy))
	case r.rule.Message != "":
		return r.rule.Message
	default:
		return fmt.Sprintf("denied by rule %s of policy %s", quote(r.rule.Name), quote(r.policy))
	}
}

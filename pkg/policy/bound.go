package policy

import (
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/common/types"
)

// Bound is what a set says of one principal's job at one target. It is
// immutable, and any number of goroutines may use it.
type Bound struct {
	set       *Set
	principal Principal
	workload  WorkloadFacts
	target    TargetFacts
	variables fixed
	rules     []compiledRule // of the policies that apply, in the order of their names
	allows    bool           // one of them can allow something
	session   SessionSpec
}

// Bind picks the policies that apply to the principal and the target.
func (s *Set) Bind(p Principal, w WorkloadFacts, t TargetFacts) *Bound {
	b := &Bound{set: s, principal: p, workload: w, target: t, session: SessionSpec{Record: RecordDurable}}
	b.variables = fixed{
		principal: object{s.facts["principal"], &b.principal},
		workload:  object{s.facts["workload"], &b.workload},
		target:    object{s.facts["target"], &b.target},
		session:   s.facts["session"],
		statement: s.facts["statement"],
	}
	for _, policy := range s.compiled {
		if applies(policy.doc, p, t) {
			b.rules = append(b.rules, policy.rules...)
			b.allows = b.allows || slices.ContainsFunc(policy.rules, func(r compiledRule) bool { return r.rule.Then == Allow })
			b.session.tighten(policy.doc.Spec.Session)
		}
	}
	return b
}

func applies(doc *Policy, p Principal, t TargetFacts) bool {
	return doc.Spec.Covers(t.Name) && doc.Spec.Principals.Matches(p)
}

// tighten keeps the tighter of each two bounds.
func (s *SessionSpec) tighten(other SessionSpec) {
	s.MaxDuration = tighter(s.MaxDuration, other.MaxDuration)
	s.MaxRows = tighter(s.MaxRows, other.MaxRows)
	if other.Record == RecordStrict {
		s.Record = other.Record
	}
}

// tighter is the smaller of two bounds, of which 0 is none.
func tighter[N Duration | uint64](a, b N) N {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Session returns the bounds of sessions: of the policies that apply, the
// tightest.
func (b *Bound) Session() SessionSpec { return b.session }

// Open decides whether a session may be opened: some rule that applies must
// be able to allow something, and no deny rule may fire among those that don't
// ask for the statement. Nothing a statement may do is decided by it.
func (b *Bound) Open(now time.Time) Decision {
	return b.decide(b.input(now, SessionFacts{}, nil), nil)
}

// Statement decides whether a statement may run. Every rule is asked: one
// that denies, or can't be evaluated, decides before all that allow.
func (b *Bound) Statement(now time.Time, sess SessionFacts, st *Statement) Decision {
	if st == nil {
		return Decision{Action: Deny, Message: "there is no statement to decide"}
	}
	return b.decide(b.input(now, sess, st), nil)
}

// decide asks the rules in order. Given results, one per rule, it asks all of
// them and writes down what each said; without, it stops at the first that
// denies, since nothing can change the outcome then.
func (b *Bound) decide(in *input, results []RuleResult) Decision {
	if e := b.principal.Expires; !e.IsZero() && !in.at.Before(e) {
		return Decision{Action: Deny, Message: fmt.Sprintf("the identity of %s expired at %s", b.principal.label(), e.UTC().Format(time.RFC3339))}
	}
	allowed, denied, lasting := -1, -1, true
	var cause error
	for i := range b.rules {
		r := &b.rules[i]
		if in.statement == nil && (r.statement || r.rule.Then == Allow) {
			continue // it is asked for each statement
		}
		matched, err := r.evaluate(in)
		if results != nil {
			results[i].Asked, results[i].Matched, results[i].Err = true, matched, err
		}
		if denied >= 0 {
			continue
		}
		lasting = lasting && r.lasting
		if err != nil || matched && r.rule.Then == Deny {
			denied, cause = i, err
			if results == nil {
				break
			}
		} else if matched && allowed < 0 {
			allowed = i
		}
	}
	switch {
	case denied >= 0:
		r := &b.rules[denied]
		if results != nil {
			results[denied].Decided = true
		}
		// A rule that lasts denies again, whatever the rules before it say then.
		return Decision{Action: Deny, Policy: r.policy, Rule: r.rule.Name, Message: r.denial(cause), Lasting: r.lasting}
	case allowed >= 0:
		r := &b.rules[allowed]
		if results != nil {
			results[allowed].Decided = true
		}
		return Decision{Action: Allow, Policy: r.policy, Rule: r.rule.Name, Lasting: lasting}
	case in.statement == nil && b.allows:
		return Decision{Action: Allow, Lasting: lasting}
	default:
		return Decision{Action: Deny, Message: b.nothingAllows(in.statement), Lasting: lasting}
	}
}

// nothingAllows is the message of the default denial.
func (b *Bound) nothingAllows(st *Statement) string {
	if st == nil {
		return fmt.Sprintf("no policy lets %s open a session to target %s", b.principal.label(), quote(b.target.Name))
	}
	what := "this statement"
	if st.Kind != "" {
		what = st.Kind
	}
	return fmt.Sprintf("no rule allows %s for %s at target %s", what, b.principal.label(), quote(b.target.Name))
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

// evaluate asks one rule.
func (r *compiledRule) evaluate(in *input) (bool, error) {
	out, _, err := r.program.Eval(in)
	if err != nil {
		return false, err
	}
	matched, ok := out.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the rule yielded a %s instead of a bool", out.Type().TypeName())
	}
	return bool(matched), nil
}

package policy

import "time"

// RuleResult is what one rule said to a decision.
type RuleResult struct {
	Policy string
	Rule   string
	When   string
	Then   Action
	// Applies is false when the policy is not for this principal or target;
	// Why says which. Its rules are not asked then.
	Applies bool
	Why     string
	// Shadow is true for rules of policies with "enforce: shadow". They have no
	// effect.
	Shadow bool
	// Asked is false for a rule that applies but is about something else: a
	// statement while a session is being opened, a file when a command is run.
	Asked   bool
	Matched bool  // the expression was true
	Err     error // it could not be evaluated; such a rule denies. It may quote the statement.
	Decided bool  // the decision names this rule: as the one that decided, an approval, or a shadow
}

// Explain decides like [Bound.Statement], or like [Bound.Open] when st is
// nil; see [Bound.ExplainAsked].
func (b *Bound) Explain(now time.Time, sess SessionFacts, st *Statement) (Decision, []RuleResult) {
	return b.ExplainAsked(now, sess, Asked{Statement: st})
}

// ExplainAsked decides like [Bound.Decide], and says what every rule of the
// set made of it: first the rules that apply, in the order in which they are
// asked, then those that don't. Where Decide may know more than one way to the
// same answer, this evaluates rule by rule, as they are written.
func (b *Bound) ExplainAsked(now time.Time, sess SessionFacts, asked Asked) (Decision, []RuleResult) {
	if asked.about() == aboutSession {
		sess = SessionFacts{}
	}
	in := b.input(now, sess, asked)
	results := make([]RuleResult, 0, len(b.rules))
	decision, expired := b.expired(in)
	if expired {
		for _, policy := range b.policies {
			results = append(results, policy.results()...)
		}
	} else {
		results, decision = b.explain(in)
	}
	for i := range b.set.compiled {
		policy := &b.set.compiled[i]
		if applies(policy.doc, b.principal, b.target) {
			continue
		}
		why := "the policy is for other principals"
		if !policy.doc.Spec.Covers(b.target.Name) {
			why = "the policy is for other targets"
		}
		for _, r := range policy.results() {
			r.Applies, r.Why = false, why
			results = append(results, r)
		}
	}
	return decision, results
}

// explain asks every rule of the policies that apply.
func (b *Bound) explain(in *input) ([]RuleResult, Decision) {
	var results []RuleResult
	var places []int // of the enforced rules, in results
	opinions := make([]opinion, len(b.policies))
	said := answers{denied: none, allowed: none}
	for n, policy := range b.policies {
		from := len(results)
		results = append(results, policy.results()...)
		if policy.shadow() {
			opinions[n] = policy.alone(in, func(i int, matched bool, err error) { results[from+i].say(matched, err) })
			continue
		}
		for i := range policy.rules {
			r, rule := &policy.rules[i], int32(len(places))
			places = append(places, from+i)
			if !r.asks(in.about) {
				continue
			}
			matched, err := r.evaluate(in)
			results[from+i].say(matched, err)
			q := question{first: rule, denies: none, allows: none}
			q.add(rule, r.rule.Then)
			said.add(&q, matched, err)
		}
	}
	decision := b.decision(in, said)
	switch {
	case said.denied != none:
		results[places[said.denied]].Decided = true
	case len(said.approvals) > 0:
		for _, rule := range said.approvals {
			results[places[rule]].Decided = true
		}
	case said.allowed != none:
		results[places[said.allowed]].Decided = true
	}
	from := 0
	for n, policy := range b.policies {
		if own := opinions[n]; policy.shadow() && decision.changedBy(own.action) {
			decision.Shadows = append(decision.Shadows, Shadow{policy.doc.Metadata.Name, own.rule, own.action})
			if own.index >= 0 {
				results[from+own.index].Decided = true
			}
		}
		from += len(policy.rules)
	}
	return results, decision
}

func (r *RuleResult) say(matched bool, err error) {
	r.Asked, r.Matched, r.Err = true, matched, err
}

// results has one result for each rule, not asked yet.
func (p *compiledPolicy) results() []RuleResult {
	results := make([]RuleResult, len(p.rules))
	for i := range p.rules {
		r := &p.rules[i]
		results[i] = RuleResult{Policy: r.policy, Rule: r.rule.Name, When: r.rule.When, Then: r.rule.Then, Applies: true, Shadow: p.shadow()}
	}
	return results
}

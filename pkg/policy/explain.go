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
	// Asked is false for a rule that applies but is asked for statements
	// only, while a session is being opened.
	Asked   bool
	Matched bool  // the expression was true
	Err     error // it could not be evaluated; such a rule denies. It may quote the statement.
	Decided bool  // the decision names this rule
}

// Explain decides like [Bound.Statement], or like [Bound.Open] when st is
// nil, and says what every rule of the set made of it: first the rules that
// apply, in the order in which they are asked, then those that don't.
func (b *Bound) Explain(now time.Time, sess SessionFacts, st *Statement) (Decision, []RuleResult) {
	results := make([]RuleResult, len(b.rules))
	for i := range b.rules {
		results[i] = resultOf(&b.rules[i])
		results[i].Applies = true
	}
	if st == nil {
		sess = SessionFacts{}
	}
	decision := b.decide(b.input(now, sess, st), results)
	for _, policy := range b.set.compiled {
		if applies(policy.doc, b.principal, b.target) {
			continue
		}
		why := "the policy is for other principals"
		if !policy.doc.Spec.Covers(b.target.Name) {
			why = "the policy is for other targets"
		}
		for i := range policy.rules {
			r := resultOf(&policy.rules[i])
			r.Why = why
			results = append(results, r)
		}
	}
	return decision, results
}

func resultOf(r *compiledRule) RuleResult {
	return RuleResult{Policy: r.policy, Rule: r.rule.Name, When: r.rule.When, Then: r.rule.Then}
}

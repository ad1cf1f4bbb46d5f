package policy

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"cel.dev/cel-go/common/types"
)

// plan is how the rules of a [Bound] are asked about one thing. It is made when
// it is first needed.
type plan struct {
	once      sync.Once
	questions []question // in the order of the first rule that asks each
	lasting   bool       // nothing that is asked changes while a session lives
	ways      ways
}

// none is no rule. It comes after all that are one.
const none = math.MaxInt32

// question is one condition and the rules that ask it, as indices in
// Bound.rules. However many policies say the same, it is evaluated once.
type question struct {
	*condition
	first    int32 // of the rules; it denies when the condition can't be evaluated
	denies   int32 // the first rule that denies, or none
	allows   int32 // the first that allows, or none
	approves []int32
}

// answers are what the rules came to. Rules are indices in Bound.rules.
type answers struct {
	denied, allowed int32 // the first of either kind that matched, or none
	cause           error // that the rule which denies could not be evaluated
	approvals       []int32
}

// asks tells whether a rule is asked about something. While a session is being
// opened only those are that can keep it from being so.
func (r *compiledRule) asks(a about) bool {
	if a != aboutSession {
		return r.about == aboutSession || r.about == a
	}
	return r.about == aboutSession && (r.rule.Then == Deny || r.rule.Then == Approve && r.rule.Approval.Per == PerSession)
}

// plan returns the plan of what is asked about.
func (b *Bound) plan(a about) *plan {
	p := &b.plans[a]
	p.once.Do(func() { b.fill(p, a) })
	return p
}

func (b *Bound) fill(p *plan, a about) {
	p.lasting = true
	known := map[*condition]int{}
	for i, r := range b.rules {
		if !r.asks(a) {
			continue
		}
		p.lasting = p.lasting && r.lasting
		at, ok := known[r.condition]
		if !ok {
			at = len(p.questions)
			known[r.condition] = at
			p.questions = append(p.questions, question{condition: r.condition, first: int32(i), denies: none, allows: none})
		}
		p.questions[at].add(int32(i), r.rule.Then)
	}
	p.ways = b.ways(p.questions)
	// What would have been decided is on record with the decision, so it must
	// last as well.
	for _, policy := range b.shadows {
		for i := range policy.rules {
			p.lasting = p.lasting && (policy.rules[i].lasting || !policy.rules[i].asks(a))
		}
	}
}

func (q *question) add(rule int32, then Action) {
	switch then {
	case Deny:
		q.denies = min(q.denies, rule)
	case Approve:
		q.approves = append(q.approves, rule)
	case Allow:
		q.allows = min(q.allows, rule)
	}
}

// ask evaluates the questions that can change the outcome.
func (p *plan) ask(in *input) answers {
	said := answers{denied: none, allowed: none}
	p.ways.walk(in, func(i int32, certain bool) {
		q := &p.questions[i]
		if q.first > said.denied {
			return
		}
		matched, err := certain, error(nil)
		if !certain {
			matched, err = q.evaluate(in)
		}
		said.add(q, matched, err)
	})
	slices.Sort(said.approvals)
	said.approvals = slices.Compact(said.approvals) // a list may hold a value twice
	return said
}

func (a *answers) add(q *question, matched bool, err error) {
	switch {
	case err != nil && q.first < a.denied:
		a.denied, a.cause = q.first, err
	case err == nil && matched:
		if q.denies < a.denied {
			a.denied, a.cause = q.denies, nil
		}
		a.allowed = min(a.allowed, q.allows)
		a.approvals = append(a.approvals, q.approves...)
	}
}

// evaluate asks one condition.
func (c *condition) evaluate(in *input) (bool, error) {
	out, _, err := c.program.Eval(in)
	if err != nil {
		return false, err
	}
	matched, ok := out.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the rule yielded a %s instead of a bool", out.Type().TypeName())
	}
	return bool(matched), nil
}

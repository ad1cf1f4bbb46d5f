package mask

import (
	"slices"

	"chaperone.dev/chaperone/pkg/policy"
)

// predicates is what a masked column may decide: which rows come, how many, or
// in which order. The values are in order of strictness.
type predicates uint8

const (
	predicatesAllow predicates = iota
	predicatesEquality
	predicatesApprove
	predicatesDeny
)

// predicatesOf reads MaskSpec.Predicates. What isn't known is the strictest.
func predicatesOf(word string) predicates {
	switch word {
	case policy.PredicatesAllow:
		return predicatesAllow
	case policy.PredicatesEquality, "":
		return predicatesEquality
	case policy.PredicatesApprove:
		return predicatesApprove
	}
	return predicatesDeny
}

// masking is what rules say of a column.
type masking struct {
	with       policy.Transform
	label      string // of the rule that the transform is from
	predicates predicates
	asks       []string // the masks that have people asked about predicates
}

func (r *columnRule) masking() masking {
	m := masking{with: r.with, label: r.label, predicates: r.predicates}
	if r.predicates == predicatesApprove {
		m.asks = []string{r.mask}
	}
	return m
}

// and is what holds for a column that both are for.
func (m masking) and(o masking) masking {
	if s := stronger(m.with, o.with); s != m.with {
		m.with, m.label = s, o.label
	}
	m.predicates = max(m.predicates, o.predicates)
	for _, name := range o.asks {
		if !slices.Contains(m.asks, name) {
			m.asks = append(slices.Clip(m.asks), name)
		}
	}
	return m
}

// same tells whether two hold the same.
func (m masking) same(o masking) bool {
	return m.with == o.with && m.predicates == o.predicates && len(m.asks) == len(o.asks)
}

// predicate judges a place where a value decides over rows. exact says that it
// tells no more than which values are equal, or NULL.
//
// In the definition of a view everything goes: that was an administrator's
// decision, and CREATE VIEW itself is checked.
func (a *analyzer) predicate(t taint, exact bool, where string) error {
	if a.inView {
		return nil
	}
	for _, s := range t.sources {
		switch {
		case s.predicates == predicatesDeny:
			return untraceable("%s would tell about masked column %s by the rows that come, and its mask lets it tell nothing", where, s)
		case s.predicates == predicatesEquality && !exact:
			return untraceable("%s would tell about masked column %s by the rows that come; it can be compared with = and constants only", where, s)
		}
	}
	for _, s := range t.sources {
		if s.predicates != predicatesApprove {
			continue
		}
		for _, mask := range s.asks {
			if !slices.ContainsFunc(a.asks, func(q Question) bool { return q.Mask == mask }) {
				a.asks = append(a.asks, Question{Mask: mask, Why: where + " tells about masked column " + s.String() + " by the rows that come"})
			}
		}
	}
	return nil
}

// Question is what people are to be asked before a statement runs, by the mask
// whose predicates are "approve".
type Question struct{ Mask, Why string }

// Asks are the questions that people have to say yes to before the statement
// runs. Its result is covered all the same. The slice must not be changed.
func (p *Plan) Asks() []Question { return p.asks }

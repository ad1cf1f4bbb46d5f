package policy

import (
	"cmp"
	"slices"
	"time"
)

// With a thousand policies that all apply, what most conditions begin with
// tells that they don't hold: another kind of statement, another table. The ways
// lead from the facts to the few that may.

// ways lead to the questions of a plan.
type ways struct {
	indexes []index
	rest    branch
}

// index leads on by what a field holds.
type index struct {
	read  func(*input) []string
	value func(*input) string
	found map[string]*branch
}

// branch is what lies behind a guard that holds. A guard that many conditions
// share is tested once for all of them.
type branch struct {
	test     test    // nil: always
	matched  []int32 // questions that hold here
	open     []int32 // questions whose programs must tell
	branches []branch
}

// lead is a question and the guards that are still to be tested.
type lead struct {
	question int32
	whole    bool // nothing is to be evaluated behind the guards
	guards   []*guard
}

// ways finds the ways to questions. What only names the principal, the workload
// and the target is tested now.
func (b *Bound) ways(questions []question) ways {
	in := b.input(time.Time{}, SessionFacts{}, Asked{})
	var leads []lead
	for i := range questions {
		l := lead{question: int32(i), whole: questions[i].whole}
		never := false
		for j := range questions[i].guards {
			g := &questions[i].guards[j]
			switch {
			case !g.fixed:
				l.guards = append(l.guards, g)
			case !g.test(in):
				never = true
			}
		}
		if !never {
			leads = append(leads, l)
		}
	}
	return waysOf(leads)
}

// waysOf gives each question that can have one the look-up by which the fewest
// are found with it.
func waysOf(leads []lead) ways {
	type key struct{ field, value string }
	shared := map[key]int{}
	for _, l := range leads {
		for _, g := range l.guards {
			for _, value := range g.wanted {
				shared[key{g.field, value}]++
			}
		}
	}
	var w ways
	var rest []lead
	var found []map[string][]lead // of each index
	places := map[string]int{}    // in w.indexes, by field
	for _, l := range leads {
		best, fewest := -1, none
		for i, g := range l.guards {
			most := 0
			for _, value := range g.wanted {
				most = max(most, shared[key{g.field, value}])
			}
			if g.field != "" && most < fewest {
				best, fewest = i, most
			}
		}
		if best < 0 {
			rest = append(rest, l)
			continue
		}
		g := l.guards[best]
		at, ok := places[g.field]
		if !ok {
			at = len(w.indexes)
			places[g.field] = at
			w.indexes = append(w.indexes, index{read: g.read, value: g.value})
			found = append(found, map[string][]lead{})
		}
		l.guards = slices.Delete(slices.Clone(l.guards), best, best+1)
		for i, value := range g.wanted {
			if !slices.Contains(g.wanted[:i], value) {
				found[at][value] = append(found[at][value], l)
			}
		}
	}
	w.rest = branchOf(nil, sorted(rest))
	for i := range w.indexes {
		w.indexes[i].found = make(map[string]*branch, len(found[i]))
		for value, leads := range found[i] {
			branch := branchOf(nil, sorted(leads))
			w.indexes[i].found[value] = &branch
		}
	}
	return w
}

// sorted puts the guards that most share first: none of them can fail, so
// their order is free.
func sorted(leads []lead) []lead {
	shared := map[string]int{}
	for _, l := range leads {
		for _, g := range l.guards {
			shared[g.text]++
		}
	}
	for i := range leads {
		guards := slices.Clone(leads[i].guards)
		slices.SortFunc(guards, func(a, b *guard) int {
			return cmp.Or(cmp.Compare(shared[b.text], shared[a.text]), cmp.Compare(a.text, b.text))
		})
		leads[i].guards = guards
	}
	return leads
}

// branchOf makes the branch behind a test.
func branchOf(test test, leads []lead) branch {
	b := branch{test: test}
	var order []*guard
	behind := map[string][]lead{}
	for _, l := range leads {
		switch {
		case len(l.guards) > 0:
			g := l.guards[0]
			if behind[g.text] == nil {
				order = append(order, g)
			}
			behind[g.text] = append(behind[g.text], lead{l.question, l.whole, l.guards[1:]})
		case l.whole:
			b.matched = append(b.matched, l.question)
		default:
			b.open = append(b.open, l.question)
		}
	}
	for _, g := range order {
		b.branches = append(b.branches, branchOf(g.test, behind[g.text]))
	}
	return b
}

// walk calls reach for each question that may hold, and tells whether it is
// certain to. It may do so twice for one.
func (w *ways) walk(in *input, reach func(question int32, certain bool)) {
	for i := range w.indexes {
		index := &w.indexes[i]
		if index.value != nil {
			index.found[index.value(in)].walk(in, reach)
			continue
		}
		for _, value := range index.read(in) {
			index.found[value].walk(in, reach)
		}
	}
	w.rest.walk(in, reach)
}

func (b *branch) walk(in *input, reach func(question int32, certain bool)) {
	if b == nil || b.test != nil && !b.test(in) {
		return
	}
	for _, q := range b.matched {
		reach(q, true)
	}
	for _, q := range b.open {
		reach(q, false)
	}
	for i := range b.branches {
		b.branches[i].walk(in, reach)
	}
}

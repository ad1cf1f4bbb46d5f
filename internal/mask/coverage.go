package mask

import (
	"fmt"
	"slices"
	"sync"

	"chaperone.dev/chaperone/pkg/policy"
)

// source is a masked column of a table or view.
type source struct {
	relation *relation
	num      uint16
	masking
}

// taint is what is known of the masked columns that feed a value. The zero
// value means that none does.
type taint struct {
	sources []*source // without repetition; not changed once it is shared
	// plain: the value is that of one of the sources as it stands, or NULL.
	// It means nothing without sources.
	plain bool
}

func (t taint) any() bool { return len(t.sources) > 0 }

// derived is the taint of a value that is made from one with taint t.
func (t taint) derived() taint { return taint{sources: t.sources} }

// join is the taint of a value that is made from both.
func (t taint) join(o taint) taint {
	if !o.any() {
		return t.derived()
	}
	if !t.any() {
		return o.derived()
	}
	return taint{sources: union(t.sources, o.sources)}
}

// either is the taint of a value that is one or the other as it stands.
func (t taint) either(o taint) taint {
	j := t.join(o)
	j.plain = t.any() && o.any() && t.plain && o.plain && t.transform() == o.transform()
	return j
}

// oneOf is the taint of a name that means one of two values.
func (t taint) oneOf(o taint) taint {
	switch {
	case !t.any():
		return o
	case !o.any():
		return t
	}
	return t.either(o)
}

func union(a, b []*source) []*source {
	out := slices.Clip(slices.Clone(a))
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// transform is how a value of this taint is covered.
func (t taint) transform() policy.Transform {
	with := t.sources[0].with
	for _, s := range t.sources[1:] {
		with = stronger(with, s.with)
	}
	if !t.plain && !with.Null {
		return policy.Transform{Redact: true}
	}
	return with
}

// coverage is which columns of a catalog are masked by some rules. Views are
// traced when they are first asked for.
type coverage struct {
	rules *Rules
	cat   *Catalog

	mu     sync.Mutex
	tables map[uint32][]*source     // masked columns of each relation, by position
	known  map[uint32]relationTaint // of the relations that were asked for
}

type relationTaint struct {
	columns   []taint
	sensitive bool // masked columns are read somewhere in it
	err       error
}

// coverageOf returns the coverage of a catalog, kept until another is asked
// for. Then the plans that were made with it go too.
func (r *Rules) coverageOf(cat *Catalog) *coverage {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.coverage == nil || r.coverage.cat != cat {
		r.coverage = newCoverage(r, cat)
		r.plans.Purge()
	}
	return r.coverage
}

func newCoverage(r *Rules, cat *Catalog) *coverage {
	c := &coverage{rules: r, cat: cat, tables: map[uint32][]*source{}, known: map[uint32]relationTaint{}}
	for _, rel := range cat.byOID {
		for i, col := range rel.columns {
			if m, ok := r.match(rel, col.name); ok {
				c.cover(rel, i, m)
			}
		}
	}
	c.inherit()
	return c
}

// inherit spreads masks over columns of the same name between parents and
// children: rows of a child are rows of its parent, and what is read through a
// parent comes from its children.
func (c *coverage) inherit() {
	for changed := true; changed; {
		changed = false
		for _, child := range c.cat.byOID {
			for _, oid := range child.parents {
				parent := c.cat.byOID[oid]
				changed = c.spread(child, parent) || changed
				changed = c.spread(parent, child) || changed
			}
		}
	}
}

// spread covers in one relation what is covered in the other.
func (c *coverage) spread(from, to *relation) (changed bool) {
	for i, s := range c.tables[from.oid] {
		if s == nil {
			continue
		}
		name := from.columns[i].name
		if j := slices.IndexFunc(to.columns, func(col catalogColumn) bool { return col.name == name }); j >= 0 {
			changed = c.cover(to, j, s.masking) || changed
		}
	}
	return changed
}

// match combines the rules that name a column.
func (r *Rules) match(rel *relation, column string) (m masking, ok bool) {
	for i := range r.columns {
		rule := &r.columns[i]
		switch {
		case !rule.matches(rel.schema, rel.name, column):
		case !ok:
			m, ok = rule.masking(), true
		default:
			m = m.and(rule.masking())
		}
	}
	return m, ok
}

// cover masks the i-th column of a relation, and tells whether that is news.
func (c *coverage) cover(rel *relation, i int, m masking) bool {
	if c.tables[rel.oid] == nil {
		c.tables[rel.oid] = make([]*source, len(rel.columns))
	}
	s := c.tables[rel.oid][i]
	if s == nil {
		c.tables[rel.oid][i] = &source{relation: rel, num: rel.columns[i].num, masking: m}
		return true
	}
	before := s.masking
	s.masking = s.and(m)
	return !s.same(before)
}

// taints tells the taint of each column of a relation.
func (c *coverage) taints(rel *relation) relationTaint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.locked(rel, 0)
}

// maxViewDepth bounds views over views.
const maxViewDepth = 64

// locked is taints for those who hold the lock: the tracing of views.
func (c *coverage) locked(rel *relation, depth int) relationTaint {
	if v, ok := c.known[rel.oid]; ok {
		return v
	}
	own := relationTaint{columns: make([]taint, len(rel.columns))}
	for i, s := range c.tables[rel.oid] {
		if s != nil {
			own.columns[i] = taint{sources: []*source{s}, plain: true}
			own.sensitive = true
		}
	}
	if !rel.isView() {
		c.known[rel.oid] = own
		return own
	}
	v := c.trace(rel, depth)
	if v.err == nil && len(v.columns) != len(rel.columns) {
		v.err = untraceable("the definition of view %s doesn't match its columns", rel)
	}
	if v.err == nil {
		v.sensitive = v.sensitive || own.sensitive
		for i, o := range own.columns { // rules may name a view's columns as well
			switch {
			case o.any() && v.columns[i].any():
				v.columns[i] = o.join(v.columns[i])
			case o.any():
				v.columns[i] = o
			}
		}
	}
	c.known[rel.oid] = v
	return v
}

// trace follows the definition of a view.
func (c *coverage) trace(rel *relation, depth int) relationTaint {
	if depth > maxViewDepth {
		return relationTaint{err: untraceable("view %s is built on too many others", rel)}
	}
	q, err := c.rules.views.Parse(rel.definition)
	if err != nil {
		return relationTaint{err: &Untraceable{Message: fmt.Sprintf("the definition of view %s can't be read", rel), Err: err}}
	}
	if len(q.Statements) != 1 || q.Statements[0].Tree.GetSelectStmt() == nil {
		return relationTaint{err: untraceable("the definition of view %s is no query", rel)}
	}
	a := &analyzer{coverage: c, path: []string{}, viewDepth: depth + 1, inView: true}
	out, err := a.selectStmt(q.Statements[0].Tree.GetSelectStmt(), nil, nil)
	switch {
	case err != nil:
		return relationTaint{err: &Untraceable{Message: fmt.Sprintf("view %s: %v", rel, err), Err: err}}
	case out.open:
		return relationTaint{err: untraceable("view %s returns columns whose number isn't known", rel)}
	}
	v := relationTaint{sensitive: a.sensitive}
	for _, col := range out.columns {
		v.columns = append(v.columns, col.taint)
	}
	return v
}

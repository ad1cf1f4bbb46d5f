package mask

import (
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// column is one output column of a query, or one column of a FROM item.
type column struct {
	name string // how the query around it refers to it; empty: not known
	// inferred: PostgreSQL made up the name, and may have made up another.
	inferred bool
	expect   string // its name in the result, where that is certain
	taint    taint
	typ      uint32 // OID of its base type; 0: not known
}

// output is what a query, or a statement with RETURNING, yields.
type output struct {
	columns []column
	// open: there are more columns than are known of, none of them tainted.
	// The statement is refused if any of the known ones is tainted.
	open bool
}

// item is a FROM item that columns can be qualified with.
type item struct {
	schema, name string
	columns      []column
	// open: it has columns that aren't known, each of the taint rest.
	open bool
	rest taint
	// rel: it is a relation, and so has system columns.
	rel bool
}

func (i *item) whole() taint {
	var t taint
	for _, c := range i.columns {
		t = t.join(c.taint)
	}
	return t.join(i.rest)
}

// scope is what names mean in a part of a query.
type scope struct {
	parent *scope // of the query around it, or what LATERAL sees
	// query is the scope around the query that this is one of: where a
	// sub-query in FROM looks that isn't LATERAL.
	query   *scope
	env     *env
	items   []*item
	columns []column // that need no qualification, in order of "*"
	open    bool     // one of the items is open
	rest    taint    // of the columns of open items
	windows map[string]taint
}

func newScope(parent *scope, env *env) *scope {
	return &scope{parent: parent, query: parent, env: env}
}

func (s *scope) add(items []*item, columns []column) {
	s.items = append(s.items, items...)
	s.columns = append(s.columns, columns...)
	for _, i := range items {
		s.open = s.open || i.open
		s.rest = s.rest.join(i.rest)
	}
}

// env is the WITH queries in scope, innermost first.
type env struct {
	parent *env
	ctes   map[string]*cte
}

func (e *env) lookup(name string) *cte {
	for ; e != nil; e = e.parent {
		if c := e.ctes[name]; c != nil {
			return c
		}
	}
	return nil
}

// cte is a WITH query. It is traced when it is first referred to.
type cte struct {
	expr      *pg_query.CommonTableExpr
	env       *env // that its own query sees
	recursive bool
	state     cteState
	out       output
	err       error
}

type cteState uint8

const (
	cteNew cteState = iota
	cteTracing
	cteKnown // for a recursive one: as far as it is known while it is traced
)

// systemColumn tells whether every table has the column.
func systemColumn(name string) bool {
	switch name {
	case "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid":
		return true
	}
	return false
}

// lookupColumn finds what an unqualified name means: a column of this query,
// else of the ones around it, and only then a whole row of a FROM item, again
// from the inside out (transformColumnRef in parser/parse_expr.c). Where a
// scope may or may not have the column, because not all its names are known,
// the search goes on and the taints of all that it might mean are joined.
func (s *scope) lookupColumn(name string) (taint, bool) {
	var t taint
	maybe := false
	for in := s; in != nil; in = in.parent {
		sure := false
		for _, c := range in.columns {
			switch {
			case c.name == name:
				sure = sure || !c.inferred
			case c.name == "" && c.taint.any():
			default:
				continue
			}
			if maybe {
				t = t.join(c.taint)
			} else {
				t = c.taint
			}
			maybe = true
		}
		if sure {
			return t, true
		}
		if in.open {
			t, maybe = t.join(in.rest), true
		}
	}
	for in := s; in != nil; in = in.parent {
		for _, i := range in.items {
			if i.name == name {
				return t.join(i.whole()), true
			}
		}
	}
	if maybe {
		return t, true
	}
	for in := s; in != nil; in = in.parent {
		if systemColumn(name) && len(in.items) > 0 {
			return taint{}, true
		}
	}
	return taint{}, false
}

// lookupItem finds the FROM item that a name is qualified with.
func (s *scope) lookupItem(schema, name string) *item {
	for ; s != nil; s = s.parent {
		for _, i := range s.items {
			if i.name == name && (schema == "" || schema == i.schema) {
				return i
			}
		}
	}
	return nil
}

// column finds a column of the item. A name that isn't known is refused, and
// one that isn't certain is the whole row: c.f may call the function f with it.
func (i *item) column(name string) (taint, bool) {
	var t taint
	found, sure := false, false
	for _, c := range i.columns {
		switch {
		case c.name == name:
			sure = sure || !c.inferred
		case c.name == "" && c.taint.any():
		default:
			continue
		}
		if found {
			t = t.join(c.taint)
		} else {
			t = c.taint
		}
		found = true
	}
	switch {
	case sure:
		return t, true
	case found:
		return i.whole(), true
	}
	return i.rest, i.open || i.rel && systemColumn(name)
}

// has tells whether a column of the item is certainly called so.
func (i *item) has(name string) bool {
	return slices.ContainsFunc(i.columns, func(c column) bool { return c.name == name && !c.inferred })
}

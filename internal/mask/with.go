package mask

import (
	"fmt"
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// with brings the queries of a WITH clause into scope and traces them all:
// those that change data run even if nothing refers to them.
func (a *analyzer) with(w *pg_query.WithClause, e *env) (*env, error) {
	if w == nil {
		return e, nil
	}
	var all []*cte
	inner := e
	if w.Recursive {
		inner = &env{parent: e, ctes: map[string]*cte{}}
	}
	for _, n := range w.Ctes {
		x := n.GetCommonTableExpr()
		if x == nil || x.SearchClause != nil || x.CycleClause != nil {
			return nil, untraceable("a WITH query with SEARCH or CYCLE can't be traced to masked columns")
		}
		c := &cte{expr: x, env: inner, recursive: w.Recursive}
		if w.Recursive {
			inner.ctes[x.Ctename] = c
		} else {
			// Each sees those before it, and no other of its own name.
			inner = &env{parent: inner, ctes: map[string]*cte{x.Ctename: c}}
		}
		all = append(all, c)
	}
	for _, c := range all {
		if _, err := a.cte(c); err != nil {
			return nil, err
		}
	}
	return inner, nil
}

// cte tells what a WITH query yields.
func (a *analyzer) cte(c *cte) (output, error) {
	switch c.state {
	case cteKnown:
		return c.out, c.err
	case cteTracing:
		return output{}, untraceable("WITH query %q refers to itself in a way that can't be traced", c.expr.Ctename)
	}
	c.state = cteTracing
	out, err := a.traceCTE(c)
	c.state, c.out, c.err = cteKnown, out, err
	return out, err
}

func (a *analyzer) traceCTE(c *cte) (output, error) {
	s := c.expr.Ctequery.GetSelectStmt()
	if !c.recursive || s == nil || s.Op != pg_query.SetOperation_SETOP_UNION {
		out, err := a.query(c.expr.Ctequery, nil, c.env)
		return renamed(out, c.expr.Aliascolnames), err
	}
	// WITH RECURSIVE: what the first branch yields is what the second sees
	// first. Taints only grow, so this comes to an end.
	e, err := a.with(s.WithClause, c.env)
	if err != nil {
		return output{}, err
	}
	first, err := a.selectStmt(s.Larg, nil, e)
	if err != nil {
		return output{}, err
	}
	c.state, c.out = cteKnown, renamed(first, c.expr.Aliascolnames)
	for range maxRounds {
		out, err := a.query(c.expr.Ctequery, nil, c.env)
		if err != nil {
			return output{}, err
		}
		out = renamed(out, c.expr.Aliascolnames)
		if same(out, c.out) {
			return out, nil
		}
		c.out = out
	}
	return output{}, untraceable("recursive WITH query %q can't be traced to masked columns", c.expr.Ctename)
}

// maxRounds bounds the tracing of a recursive query. Each round but the last
// taints a further column.
const maxRounds = 64

func same(a, b output) bool {
	if len(a.columns) != len(b.columns) || a.open != b.open {
		return false
	}
	for i := range a.columns {
		x, y := a.columns[i].taint, b.columns[i].taint
		if len(x.sources) != len(y.sources) || x.any() && x.plain != y.plain {
			return false
		}
	}
	return true
}

// renamed gives columns the names of an alias, as in AS t (a, b).
func renamed(out output, names []*pg_query.Node) output {
	columns := make([]column, len(out.columns))
	copy(columns, out.columns)
	for i, n := range names {
		name := n.GetString_().GetSval()
		if i < len(columns) {
			columns[i].name, columns[i].expect, columns[i].inferred = name, name, false
		} else if out.open {
			columns = append(columns, column{name: name})
		}
	}
	return output{columns: columns, open: out.open}
}

// rangeVar finds what a name in FROM stands for: a WITH query or a relation.
func (a *analyzer) rangeVar(r *pg_query.RangeVar, e *env) (*item, error) {
	i := &item{schema: r.Schemaname, name: r.Relname}
	if c := e.lookup(r.Relname); c != nil && r.Schemaname == "" {
		out, err := a.cte(c)
		if err != nil {
			return nil, err
		}
		i.columns, i.open = out.columns, out.open
		return aliased(i, r.Alias), nil
	}
	rel, columns, err := a.relation(r)
	if err != nil {
		return nil, err
	}
	i.schema, i.columns, i.rel = rel.schema, columns, true
	return aliased(i, r.Alias), nil
}

// relation finds a relation and the taints of its columns.
func (a *analyzer) relation(r *pg_query.RangeVar) (*relation, []column, error) {
	rel, err := a.coverage.cat.lookup(r.Schemaname, r.Relname, a.path)
	if err != nil {
		return nil, nil, untraceable("%s %v", r.Relname, err)
	}
	if own, columns, err := a.temporary(r, rel); own != nil || err != nil {
		a.sensitive = a.sensitive || slices.ContainsFunc(columns, func(c column) bool { return c.taint.any() })
		return own, columns, err
	}
	if rel == nil {
		name := r.Relname
		if r.Schemaname != "" {
			name = r.Schemaname + "." + name
		}
		return nil, nil, &Untraceable{Message: fmt.Sprintf("relation %s isn't known, so its columns can't be traced to masked ones", name), Unknown: name}
	}
	if holdsSamples(rel) {
		return nil, nil, untraceable("%s holds values of other tables, masked ones maybe", rel)
	}
	if a.inView && rel.temporary() {
		return nil, nil, untraceable("temporary table %s can't be followed through a view", rel)
	}
	v := a.taintsOf(rel)
	if v.err != nil {
		return nil, nil, v.err
	}
	a.sensitive = a.sensitive || v.sensitive
	if err := a.spend(len(v.columns)); err != nil {
		return nil, nil, err
	}
	return rel, columnsOf(rel, v), nil
}

func columnsOf(rel *relation, v relationTaint) []column {
	columns := make([]column, len(v.columns))
	for i, t := range v.columns {
		columns[i] = column{name: rel.columns[i].name, taint: t, typ: rel.columns[i].typ}
	}
	return columns
}

func (a *analyzer) taintsOf(rel *relation) relationTaint {
	if a.inView {
		return a.coverage.locked(rel, a.viewDepth)
	}
	return a.coverage.taints(rel)
}

// holdsSamples tells whether a system relation shows values of other tables, or
// the texts of other sessions' statements.
func holdsSamples(r *relation) bool {
	switch r.name {
	case "pg_stats", "pg_stats_ext", "pg_stats_ext_exprs", "pg_statistic", "pg_statistic_ext_data",
		"pg_stat_activity", "pg_largeobject":
		return r.schema == "pg_catalog"
	case "pg_stat_statements", "pg_stat_monitor", "pg_store_plans":
		return true // extensions, in whatever schema
	}
	return false
}

// aliased applies AS name (columns).
func aliased(i *item, alias *pg_query.Alias) *item {
	if alias == nil {
		return i
	}
	out := renamed(output{columns: i.columns, open: i.open}, alias.Colnames)
	for k := len(i.columns); k < len(out.columns); k++ {
		out.columns[k].taint = i.rest
	}
	return &item{name: alias.Aliasname, columns: out.columns, open: i.open, rest: i.rest, rel: i.rel}
}

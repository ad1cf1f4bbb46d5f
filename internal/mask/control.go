package mask

import (
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// control traces an expression that decides which rows come, or how many. A
// masked value could be read off those, so it is up to the mask's predicates
// (see predicate). Exact is what tells no more than a guess does: whether the
// value is NULL, whether it equals a constant or a parameter, and whether two
// masked columns are equal.
func (a *analyzer) control(n *pg_query.Node, sc *scope, where string) error {
	if n == nil || n.Node == nil {
		return nil
	}
	if err := a.enter(); err != nil {
		return err
	}
	defer a.leave()
	switch x := n.Node.(type) {
	case *pg_query.Node_BoolExpr:
		for _, arg := range x.BoolExpr.Args {
			if err := a.control(arg, sc, where); err != nil {
				return err
			}
		}
		return nil
	case *pg_query.Node_NullTest:
		t, err := a.expr(x.NullTest.Arg, sc)
		if err != nil {
			return err
		}
		return a.predicate(t, t.plain, where)
	case *pg_query.Node_AExpr:
		if equality(x.AExpr) {
			return a.equal(x.AExpr, sc, where)
		}
	case *pg_query.Node_SubLink:
		if s := x.SubLink; s.SubLinkType == pg_query.SubLinkType_ANY_SUBLINK && len(s.OperName) == 0 {
			return a.in(s, sc, where)
		}
	}
	t, err := a.expr(n, sc)
	if err != nil {
		return err
	}
	return a.predicate(t, false, where)
}

// equality tells whether an expression is =, <>, IN or = ANY.
func equality(e *pg_query.A_Expr) bool {
	switch e.Kind {
	case pg_query.A_Expr_Kind_AEXPR_OP, pg_query.A_Expr_Kind_AEXPR_OP_ANY, pg_query.A_Expr_Kind_AEXPR_IN:
	default:
		return false
	}
	name := dotted(e.Name)
	return name == "=" || name == "<>"
}

func (a *analyzer) equal(e *pg_query.A_Expr, sc *scope, where string) error {
	l, r := e.Lexpr, e.Rexpr
	if err := a.operator(e); err != nil {
		return err
	}
	lt, err := a.expr(l, sc)
	if err != nil {
		return err
	}
	rt, err := a.expr(r, sc)
	if err != nil {
		return err
	}
	return a.comparable(lt, rt, lt.any() && constant(r) || rt.any() && constant(l), where)
}

// comparable tells whether two values may be compared for equality.
func (a *analyzer) comparable(l, r taint, withConstant bool, where string) error {
	switch {
	case !l.any() && !r.any():
		return nil
	case l.any() && r.any():
		return a.predicate(l.join(r), l.plain && r.plain, where)
	}
	return a.predicate(l.join(r), withConstant && (l.plain && l.any() || r.plain && r.any()), where)
}

// in checks x IN (SELECT …).
func (a *analyzer) in(s *pg_query.SubLink, sc *scope, where string) error {
	l, err := a.expr(s.Testexpr, sc)
	if err != nil {
		return err
	}
	out, err := a.query(s.Subselect, sc, sc.env)
	if err != nil {
		return err
	}
	var r taint
	if len(out.columns) == 1 {
		r = out.columns[0].taint
	} else {
		r = (&item{columns: out.columns}).whole()
	}
	return a.comparable(l, r, false, where)
}

// constant tells whether an expression is made of constants and parameters.
func constant(n *pg_query.Node) bool {
	switch x := n.GetNode().(type) {
	case *pg_query.Node_AConst, *pg_query.Node_ParamRef:
		return true
	case *pg_query.Node_TypeCast:
		return constant(x.TypeCast.Arg)
	case *pg_query.Node_AArrayExpr:
		return !slices.ContainsFunc(x.AArrayExpr.Elements, varies)
	case *pg_query.Node_List:
		return !slices.ContainsFunc(x.List.Items, varies)
	}
	return false
}

func varies(n *pg_query.Node) bool { return !constant(n) }

// sortClause refuses to sort by masked values: the order tells about them, and
// next to known values it tells all.
func (a *analyzer) sortClause(list []*pg_query.Node, sc *scope, out output) error {
	for _, n := range list {
		t, err := a.outputOr(n.GetSortBy().GetNode(), sc, out)
		if err != nil {
			return err
		}
		if err := a.predicate(t, false, "ORDER BY"); err != nil {
			return err
		}
	}
	return nil
}

// groupClause traces GROUP BY. Groups of masked columns as they stand tell which
// rows are equal, no more, where exact holds. Those of expressions would tell more.
func (a *analyzer) groupClause(list []*pg_query.Node, sc *scope, out output, exact bool) error {
	for _, n := range list {
		if set := n.GetGroupingSet(); set != nil {
			if err := a.groupClause(set.Content, sc, out, exact); err != nil {
				return err
			}
			continue
		}
		if err := a.distinguish(n, sc, out, exact, "GROUP BY"); err != nil {
			return err
		}
	}
	return nil
}

func (a *analyzer) distinctClause(list []*pg_query.Node, sc *scope, out output, exact bool) error {
	if len(list) == 0 {
		return nil
	}
	if len(list) == 1 && list[0].GetNode() == nil { // plain DISTINCT
		for _, c := range out.columns {
			if err := a.predicate(c.taint, exact && c.taint.plain, "DISTINCT"); err != nil {
				return err
			}
		}
		return nil
	}
	for _, n := range list { // which rows are sorted for
		if err := a.distinguish(n, sc, out, false, "DISTINCT ON"); err != nil {
			return err
		}
	}
	return nil
}

// orderless tells whether the order of a query's rows tells nothing that groups of its
// rows could be known by: the server finds groups by sorting or hashing, and the
// rows come accordingly. It holds where all that is clear in a row is constant, a
// count, or sorted by.
func orderless(s *pg_query.SelectStmt, out output) bool {
	if out.open {
		return false
	}
	for i, c := range out.columns {
		var value *pg_query.Node
		if len(s.TargetList) == len(out.columns) {
			value = s.TargetList[i].GetResTarget().GetVal()
		}
		counts := value.GetFuncCall() != nil && last(value.GetFuncCall().Funcname) == "count"
		if c.taint.any() || constant(value) || counts || sortedBy(s.SortClause, i, c.name) {
			continue
		}
		return false
	}
	return true
}

// sortedBy tells whether ORDER BY has an output column, by its position or name.
func sortedBy(list []*pg_query.Node, i int, name string) bool {
	return slices.ContainsFunc(list, func(n *pg_query.Node) bool {
		by := n.GetSortBy().GetNode()
		if ref := by.GetColumnRef(); ref != nil && name != "" {
			return len(ref.Fields) == 1 && last(ref.Fields) == name
		}
		v, ok := by.GetAConst().GetVal().(*pg_query.A_Const_Ival)
		return ok && int(v.Ival.GetIval()) == i+1
	})
}

func (a *analyzer) distinguish(n *pg_query.Node, sc *scope, out output, exact bool, where string) error {
	nodes := []*pg_query.Node{n}
	if row := n.GetRowExpr(); row != nil {
		nodes = row.Args
	}
	for _, n := range nodes {
		t, err := a.outputOr(n, sc, out)
		if err != nil {
			return err
		}
		if err := a.predicate(t, exact && t.plain, where); err != nil {
			return err
		}
	}
	return nil
}

// outputOr traces an expression of ORDER BY, GROUP BY or DISTINCT ON, where an
// integer is the position of an output column and a bare name may be that of
// one. ORDER BY prefers the output column and GROUP BY the input; here it is
// either.
func (a *analyzer) outputOr(n *pg_query.Node, sc *scope, out output) (taint, error) {
	if c := n.GetAConst(); c != nil {
		if v, ok := c.Val.(*pg_query.A_Const_Ival); ok {
			i := int(v.Ival.GetIval())
			switch {
			case i >= 1 && i <= len(out.columns) && !out.open:
				return out.columns[i-1].taint, nil
			case out.open:
				return (&item{columns: out.columns}).whole(), nil
			}
		}
		return taint{}, nil
	}
	ref := n.GetColumnRef()
	if ref == nil || len(ref.Fields) != 1 {
		return a.expr(n, sc)
	}
	var t taint
	found := false
	for _, c := range out.columns {
		if c.name == last(ref.Fields) || c.name == "" && c.taint.any() {
			if found {
				t = t.join(c.taint)
			} else {
				t, found = c.taint, true
			}
		}
	}
	in, ok := sc.lookupColumn(last(ref.Fields))
	switch {
	case found && ok:
		return t.oneOf(in), nil
	case found:
		return t, nil
	}
	return a.expr(n, sc)
}

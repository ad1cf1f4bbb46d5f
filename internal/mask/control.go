package mask

import (
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// control traces an expression that decides which rows come, or how many. A
// masked value could be read off those, so it is refused but for what tells no
// more than an exact guess does: whether it is NULL, whether it equals a
// constant or a parameter, and whether two masked columns are equal.
//
// In the definition of a view everything goes: that was an administrator's
// decision, and CREATE VIEW itself is checked.
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
		return a.allowed(!t.any() || t.plain, t, where)
	case *pg_query.Node_AExpr:
		if equality(x.AExpr) {
			return a.equal(x.AExpr.Lexpr, x.AExpr.Rexpr, sc, where)
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
	return a.allowed(!t.any(), t, where)
}

func (a *analyzer) allowed(ok bool, t taint, where string) error {
	if ok || a.inView {
		return nil
	}
	return untraceable("%s would tell about masked column %s by the rows that come; it can be compared with = and constants only", where, t.sources[0])
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

func (a *analyzer) equal(l, r *pg_query.Node, sc *scope, where string) error {
	lt, err := a.expr(l, sc)
	if err != nil {
		return err
	}
	rt, err := a.expr(r, sc)
	if err != nil {
		return err
	}
	return a.comparable(lt, rt, constant(l) || constant(r), where)
}

// comparable tells whether two values may be compared for equality.
func (a *analyzer) comparable(l, r taint, withConstant bool, where string) error {
	switch {
	case !l.any() && !r.any():
		return nil
	case l.any() && r.any():
		return a.allowed(l.plain && r.plain, l.join(r), where)
	}
	t := l.join(r)
	return a.allowed(withConstant && (l.plain && l.any() || r.plain && r.any()), t, where)
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
		if t.any() && !a.inView {
			return untraceable("ORDER BY would tell about masked column %s by the order of the rows", t.sources[0])
		}
	}
	return nil
}

// groupClause lets masked columns be grouped by as they stand, which tells
// which rows are equal. Of expressions it would tell more.
func (a *analyzer) groupClause(list []*pg_query.Node, sc *scope, out output) error {
	for _, n := range list {
		if set := n.GetGroupingSet(); set != nil {
			if err := a.groupClause(set.Content, sc, out); err != nil {
				return err
			}
			continue
		}
		if err := a.distinguish(n, sc, out, "GROUP BY"); err != nil {
			return err
		}
	}
	return nil
}

func (a *analyzer) distinctClause(list []*pg_query.Node, sc *scope, out output) error {
	if len(list) == 0 {
		return nil
	}
	if len(list) == 1 && list[0].GetNode() == nil { // plain DISTINCT
		for _, c := range out.columns {
			if c.taint.any() && !c.taint.plain && !a.inView {
				return untraceable("DISTINCT would compare values that are made from masked column %s", c.taint.sources[0])
			}
		}
		return nil
	}
	for _, n := range list {
		if err := a.distinguish(n, sc, out, "DISTINCT ON"); err != nil {
			return err
		}
	}
	return nil
}

func (a *analyzer) distinguish(n *pg_query.Node, sc *scope, out output, where string) error {
	nodes := []*pg_query.Node{n}
	if row := n.GetRowExpr(); row != nil {
		nodes = row.Args
	}
	for _, n := range nodes {
		t, err := a.outputOr(n, sc, out)
		if err != nil {
			return err
		}
		if t.any() && !t.plain && !a.inView {
			return untraceable("%s would compare values that are made from masked column %s", where, t.sources[0])
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

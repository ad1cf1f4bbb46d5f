package mask

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"

	"chaperone.dev/chaperone/internal/pgsql"
)

type protoMessage = interface {
	ProtoReflect() protoreflect.Message
}

// expr tells which masked columns feed the value of an expression. Kinds of
// nodes that aren't known are refused.
func (a *analyzer) expr(n *pg_query.Node, sc *scope) (taint, error) {
	if n == nil || n.Node == nil {
		return taint{}, nil
	}
	if err := a.enter(); err != nil {
		return taint{}, err
	}
	defer a.leave()
	switch x := n.Node.(type) {
	case *pg_query.Node_ParamRef:
		if i := int(x.ParamRef.Number) - 1; i >= 0 && i < len(a.params) {
			return a.params[i], nil
		}
		return taint{}, nil
	case *pg_query.Node_AConst, *pg_query.Node_SqlvalueFunction, *pg_query.Node_SetToDefault,
		*pg_query.Node_CurrentOfExpr, *pg_query.Node_String_, *pg_query.Node_Integer, *pg_query.Node_Float,
		*pg_query.Node_Boolean, *pg_query.Node_GroupingFunc, *pg_query.Node_MergeSupportFunc:
		return taint{}, nil
	case *pg_query.Node_ColumnRef:
		return a.columnRef(x.ColumnRef, sc)
	case *pg_query.Node_FuncCall:
		return a.funcCall(x.FuncCall, sc)
	case *pg_query.Node_SubLink:
		return a.subLink(x.SubLink, sc)
	case *pg_query.Node_CollateClause:
		return a.expr(x.CollateClause.Arg, sc) // the value as it stands
	case *pg_query.Node_TypeCast:
		if err := a.typeName(x.TypeCast.TypeName); err != nil {
			return taint{}, err
		}
		t, err := a.expr(x.TypeCast.Arg, sc)
		return t.derived(), err
	case *pg_query.Node_AIndirection:
		return a.indirection(x.AIndirection, sc)
	case *pg_query.Node_AIndices:
		return a.all(sc, x.AIndices.Lidx, x.AIndices.Uidx)
	case *pg_query.Node_AStar:
		return taint{}, nil // of an indirection whose argument was traced
	case *pg_query.Node_AExpr:
		if err := a.operator(x.AExpr); err != nil {
			return taint{}, err
		}
		return a.all(sc, x.AExpr.Lexpr, x.AExpr.Rexpr)
	case *pg_query.Node_BoolExpr:
		return a.all(sc, x.BoolExpr.Args...)
	case *pg_query.Node_NullTest:
		return a.all(sc, x.NullTest.Arg)
	case *pg_query.Node_BooleanTest:
		return a.all(sc, x.BooleanTest.Arg)
	case *pg_query.Node_AArrayExpr:
		return a.all(sc, x.AArrayExpr.Elements...)
	case *pg_query.Node_RowExpr:
		return a.all(sc, x.RowExpr.Args...)
	case *pg_query.Node_List:
		return a.all(sc, x.List.Items...)
	case *pg_query.Node_CoalesceExpr:
		return a.all(sc, x.CoalesceExpr.Args...)
	case *pg_query.Node_MinMaxExpr:
		return a.all(sc, x.MinMaxExpr.Args...)
	case *pg_query.Node_CaseExpr:
		return a.all(sc, append([]*pg_query.Node{x.CaseExpr.Arg, x.CaseExpr.Defresult}, x.CaseExpr.Args...)...)
	case *pg_query.Node_CaseWhen:
		return a.all(sc, x.CaseWhen.Expr, x.CaseWhen.Result)
	case *pg_query.Node_NamedArgExpr:
		return a.all(sc, x.NamedArgExpr.Arg)
	case *pg_query.Node_MultiAssignRef:
		return a.all(sc, x.MultiAssignRef.Source)
	case *pg_query.Node_SortBy:
		return a.all(sc, x.SortBy.Node)
	case *pg_query.Node_XmlExpr, *pg_query.Node_XmlSerialize,
		*pg_query.Node_JsonFuncExpr, *pg_query.Node_JsonObjectConstructor, *pg_query.Node_JsonArrayConstructor,
		*pg_query.Node_JsonArrayQueryConstructor, *pg_query.Node_JsonObjectAgg, *pg_query.Node_JsonArrayAgg,
		*pg_query.Node_JsonParseExpr, *pg_query.Node_JsonScalarExpr, *pg_query.Node_JsonSerializeExpr,
		*pg_query.Node_JsonIsPredicate, *pg_query.Node_JsonKeyValue, *pg_query.Node_JsonValueExpr,
		*pg_query.Node_JsonArgument:
		return a.gather(inner(n), sc)
	}
	return taint{}, untraceable("an expression of a kind that isn't known can't be traced to masked columns")
}

// indirection traces a subscript or the selection of a field.
func (a *analyzer) indirection(x *pg_query.A_Indirection, sc *scope) (taint, error) {
	var row *item
	if ref := x.Arg.GetColumnRef(); ref != nil && ref.Fields[len(ref.Fields)-1].GetString_() != nil {
		var err error
		if row, err = a.qualified(ref.Fields, sc); err != nil {
			return taint{}, err
		}
	}
	for i, n := range x.Indirection {
		if name := n.GetString_().GetSval(); name != "" {
			if i > 0 {
				row = nil
			}
			if err := a.field(row, name); err != nil {
				return taint{}, err
			}
		}
	}
	return a.all(sc, append([]*pg_query.Node{x.Arg}, x.Indirection...)...)
}

// field refuses the selection of a field that may be the call of a function: of
// a value that has no such field x.f means f(x).
func (a *analyzer) field(of *item, name string) error {
	if of != nil && of.has(name) || a.inView || !a.coverage.cat.functions[name] && !pgsql.SideEffect(name) {
		return nil
	}
	return untraceable("selecting %q may call the function of that name, which may read masked columns", name)
}

// inner is the message that a node holds.
func inner(n *pg_query.Node) protoreflect.Message {
	m := n.ProtoReflect()
	return m.Get(m.WhichOneof(m.Descriptor().Oneofs().Get(0))).Message()
}

// all joins the taints of what a value is made from.
func (a *analyzer) all(sc *scope, nodes ...*pg_query.Node) (taint, error) {
	var t taint
	for _, n := range nodes {
		o, err := a.expr(n, sc)
		if err != nil {
			return taint{}, err
		}
		t = t.join(o)
	}
	return t.derived(), nil
}

// gather joins the taints of everything below a node, for the many small nodes
// of SQL/XML and SQL/JSON.
func (a *analyzer) gather(m protoreflect.Message, sc *scope) (taint, error) {
	if err := a.enter(); err != nil {
		return taint{}, err
	}
	defer a.leave()
	var t taint
	visit := func(m protoreflect.Message) error {
		var o taint
		var err error
		switch n := m.Interface().(type) {
		case *pg_query.TypeName, *pg_query.Alias:
			return nil
		case *pg_query.Node:
			switch v := n.Node.(type) {
			case *pg_query.Node_SelectStmt:
				var out output
				out, err = a.selectStmt(v.SelectStmt, sc, sc.env)
				o = (&item{columns: out.columns}).whole()
			case *pg_query.Node_ResTarget, *pg_query.Node_RangeTableFuncCol, *pg_query.Node_JsonTableColumn,
				*pg_query.Node_JsonTablePathSpec, *pg_query.Node_TypeName, *pg_query.Node_DefElem,
				*pg_query.Node_WindowDef, *pg_query.Node_JsonBehavior, *pg_query.Node_JsonOutput,
				*pg_query.Node_JsonReturning, *pg_query.Node_JsonFormat, *pg_query.Node_JsonAggConstructor:
				o, err = a.gather(inner(n), sc)
			default:
				o, err = a.expr(n, sc)
			}
		default:
			o, err = a.gather(m, sc)
		}
		t = t.join(o)
		return err
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || !m.Has(f) {
			continue
		}
		if !f.IsList() {
			if err := visit(m.Get(f).Message()); err != nil {
				return taint{}, err
			}
			continue
		}
		for j := range m.Get(f).List().Len() {
			if err := visit(m.Get(f).List().Get(j).Message()); err != nil {
				return taint{}, err
			}
		}
	}
	return t.derived(), nil
}

func (a *analyzer) columnRef(r *pg_query.ColumnRef, sc *scope) (taint, error) {
	if err := a.spend(len(sc.columns) / 32); err != nil {
		return taint{}, err
	}
	t, err := a.resolve(r.Fields, sc)
	a.readMasked = a.readMasked || t.any()
	return t, err
}

// resolve finds what a name in an expression means.
func (a *analyzer) resolve(fields []*pg_query.Node, sc *scope) (taint, error) {
	name := last(fields)
	if fields[len(fields)-1].GetAStar() != nil { // count(t.*), ROW(t.*)
		if len(fields) == 1 {
			return (&item{columns: sc.columns, rest: sc.rest}).whole(), nil
		}
		i, err := a.qualified(fields[:len(fields)-1], sc)
		if err != nil {
			return taint{}, err
		}
		if i != nil {
			return i.whole(), nil
		}
		return taint{}, untraceable("%q isn't known in the statement", last(fields[:len(fields)-1]))
	}
	if len(fields) == 1 {
		if t, ok := sc.lookupColumn(name); ok {
			return t, nil
		}
		return taint{}, untraceable("column %q isn't known, so it can't be traced to masked columns", name)
	}
	i, err := a.qualified(fields[:len(fields)-1], sc)
	if err != nil {
		return taint{}, err
	}
	if i != nil {
		if t, ok := i.column(name); ok {
			return t, a.field(i, name)
		}
	}
	return taint{}, untraceable("column %q of %q isn't known, so it can't be traced to masked columns", name, last(fields[:len(fields)-1]))
}

// funcCall traces a function, aggregate or window function.
func (a *analyzer) funcCall(f *pg_query.FuncCall, sc *scope) (taint, error) {
	if fn := a.userFunction(f); fn != nil {
		out, err := a.inline(fn, f, sc)
		return (&item{columns: out.columns}).whole(), err
	}
	name, err := a.function(f)
	if err != nil {
		return taint{}, err
	}
	var args, rest taint
	countable := true // counting values of masked columns as they stand tells nothing but which are NULL
	for _, n := range f.Args {
		t, err := a.expr(n, sc)
		if err != nil {
			return taint{}, err
		}
		countable = countable && (!t.any() || t.plain)
		args = args.join(t)
	}
	rest, err = a.all(sc, append([]*pg_query.Node{f.AggFilter}, f.AggOrder...)...)
	if err != nil {
		return taint{}, err
	}
	over, err := a.window(f.Over, sc)
	if err != nil {
		return taint{}, err
	}
	rest = rest.join(over)
	t := args.join(rest)
	if pgsql.SetReturning(name) {
		if err := a.predicate(t, false, name); err != nil {
			return taint{}, err
		}
	}
	if name == "count" && countable && !rest.any() {
		return taint{}, nil
	}
	return t.derived(), nil
}

// function refuses to call what isn't known not to read tables by itself, and
// returns the bare name of the function.
func (a *analyzer) function(f *pg_query.FuncCall) (string, error) {
	name := last(f.Funcname)
	qualified := len(f.Funcname) > 1
	if qualified && (len(f.Funcname) > 2 || f.Funcname[0].GetString_().GetSval() != "pg_catalog") {
		return "", untraceable("function %s isn't PostgreSQL's own: it may read masked columns", dotted(f.Funcname))
	}
	// A view's definition qualifies all that isn't PostgreSQL's own.
	if !qualified && !a.inView && a.coverage.cat.functions[name] {
		return "", untraceable("function %s may be one that isn't PostgreSQL's own: it may read masked columns", name)
	}
	if name == "set_config" && len(f.Args) > 0 {
		if c := f.Args[0].GetAConst(); c != nil {
			if err := setting(c.GetSval().GetSval()); err != nil {
				return "", err
			}
		}
	}
	switch name {
	case "nextval", "setval", "set_config", "pg_advisory_lock", "pg_advisory_xact_lock", "pg_advisory_unlock",
		"pg_try_advisory_lock", "pg_try_advisory_xact_lock", "pg_notify", "pg_cancel_backend", "pg_sleep":
		// Harmless, unless a masked value decides over the call.
		a.sideEffect = name
		return name, nil
	case "pg_stat_get_activity", "pg_stat_get_backend_activity":
		return "", untraceable("%s shows the texts of other sessions", name)
	}
	if !pgsql.Builtin(name) {
		return "", untraceable("function %s isn't known not to read tables: it may read masked columns", name)
	}
	return name, nil
}

func dotted(parts []*pg_query.Node) string {
	s := ""
	for i, p := range parts {
		if i > 0 {
			s += "."
		}
		s += p.GetString_().GetSval()
	}
	return s
}

// windows traces the WINDOW clause, whose entries may build on earlier ones.
func (a *analyzer) windows(list []*pg_query.Node, sc *scope) error {
	sc.windows = map[string]taint{}
	for _, n := range list {
		w := n.GetWindowDef()
		t, err := a.window(w, sc)
		if err != nil {
			return err
		}
		sc.windows[w.GetName()] = t
	}
	return nil
}

// window is what the place of a row among the others depends on.
func (a *analyzer) window(w *pg_query.WindowDef, sc *scope) (taint, error) {
	if w == nil {
		return taint{}, nil
	}
	// The rows of the whole query come in the order of its windows.
	nodes := append([]*pg_query.Node{w.StartOffset, w.EndOffset}, w.PartitionClause...)
	t, err := a.all(sc, append(nodes, w.OrderClause...)...)
	if err != nil {
		return taint{}, err
	}
	if err := a.predicate(t, false, "a window"); err != nil {
		return taint{}, err
	}
	for s := sc; s != nil; s = s.parent {
		if s.windows == nil {
			continue
		}
		if len(w.OrderClause) == 0 && len(w.PartitionClause) == 0 && w.Refname == "" {
			t = t.join(s.windows[w.Name]) // OVER w
		}
		return t.join(s.windows[w.Refname]), nil
	}
	return t, nil
}

func (a *analyzer) subLink(s *pg_query.SubLink, sc *scope) (taint, error) {
	test, err := a.expr(s.Testexpr, sc)
	if err != nil {
		return taint{}, err
	}
	out, err := a.query(s.Subselect, sc, sc.env)
	if err != nil {
		return taint{}, err
	}
	switch s.SubLinkType {
	case pg_query.SubLinkType_EXISTS_SUBLINK:
		return taint{}, nil // what decides over its rows was checked in it
	case pg_query.SubLinkType_EXPR_SUBLINK:
		if len(out.columns) == 1 {
			return out.columns[0].taint, nil
		}
	}
	return test.join((&item{columns: out.columns}).whole()), nil
}

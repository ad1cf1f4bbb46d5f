package mask

import (
	"fmt"
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// analyzer traces one statement.
type analyzer struct {
	coverage  *coverage
	path      []string // that names are looked up in
	runtime   []string // the session's; nil: not known
	viewDepth int
	inView    bool // the query is a view's: an administrator's, not the client's

	sensitive  bool   // a relation with masked columns is touched
	readMasked bool   // a masked column is read
	sideEffect string // a function that others can see the effect of is called
	depth      int
	work       int // see spend
	asks       []Question

	params        []taint // of the function whose body is traced
	functionDepth int

	local  *Local
	writes []tableWrite // to temporary tables
	made   bool         // it reads a table that the catalog may not have yet
}

// maxDepth bounds the recursion over a parse tree, whose own depth is bounded
// by what protobuf decodes.
const maxDepth = 10_000

func (a *analyzer) enter() error {
	if a.depth++; a.depth > maxDepth {
		return untraceable("the statement is nested too deeply to be traced")
	}
	return a.spend(1)
}

// Bounds of what the tracing of a statement may cost: nodes and columns that are
// looked at, and columns that a FROM clause has, or a result (MaxTupleAttributeNumber
// of access/htup_details.h: the server refuses more).
const (
	maxWork        = 1_000_000
	maxFromColumns = 100_000
	maxColumnsOut  = 1664
)

// spend refuses statements whose tracing goes on and on.
func (a *analyzer) spend(n int) error {
	if a.work += n; a.work > maxWork {
		return untraceable("the statement is too large to be traced")
	}
	return nil
}

func (a *analyzer) leave() { a.depth-- }

// query traces a statement that yields rows: a sub-query, a WITH query, …
func (a *analyzer) query(n *pg_query.Node, parent *scope, e *env) (output, error) {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		return a.selectStmt(s.SelectStmt, parent, e)
	case *pg_query.Node_InsertStmt:
		return a.insert(s.InsertStmt, parent, e)
	case *pg_query.Node_UpdateStmt:
		return a.update(s.UpdateStmt, parent, e)
	case *pg_query.Node_DeleteStmt:
		return a.delete(s.DeleteStmt, parent, e)
	case *pg_query.Node_MergeStmt:
		return a.merge(s.MergeStmt, parent, e)
	}
	return output{}, untraceable("this kind of query can't be traced to masked columns")
}

func (a *analyzer) selectStmt(s *pg_query.SelectStmt, parent *scope, e *env) (output, error) {
	if err := a.enter(); err != nil {
		return output{}, err
	}
	defer a.leave()
	e, err := a.with(s.WithClause, e)
	if err != nil {
		return output{}, err
	}
	var out output
	var sc *scope
	switch {
	case s.Op != pg_query.SetOperation_SETOP_NONE && s.Op != pg_query.SetOperation_SET_OPERATION_UNDEFINED:
		out, err = a.setOperation(s, parent, e)
		sc = newScope(parent, e) // ORDER BY sees the output columns only
		sc.columns = out.columns
	case len(s.ValuesLists) > 0:
		sc = newScope(parent, e)
		out, err = a.values(s.ValuesLists, sc)
	default:
		sc = newScope(parent, e)
		out, err = a.plainSelect(s, sc)
	}
	if err != nil {
		return output{}, err
	}
	if err := a.sortClause(s.SortClause, sc, out); err != nil {
		return output{}, err
	}
	for _, n := range []*pg_query.Node{s.LimitCount, s.LimitOffset} {
		if err := a.control(n, sc, "LIMIT and OFFSET"); err != nil {
			return output{}, err
		}
	}
	if s.IntoClause != nil {
		if err := a.create(s.IntoClause, out, false); err != nil {
			return output{}, err
		}
	}
	return out, nil
}

func (a *analyzer) plainSelect(s *pg_query.SelectStmt, sc *scope) (output, error) {
	if err := a.from(s.FromClause, sc); err != nil {
		return output{}, err
	}
	if err := a.control(s.WhereClause, sc, "WHERE"); err != nil {
		return output{}, err
	}
	if err := a.windows(s.WindowClause, sc); err != nil {
		return output{}, err
	}
	out, err := a.targets(s.TargetList, sc)
	if err != nil {
		return output{}, err
	}
	exact := orderless(s, out)
	if err := a.groupClause(s.GroupClause, sc, out, exact); err != nil {
		return output{}, err
	}
	if err := a.control(s.HavingClause, sc, "HAVING"); err != nil {
		return output{}, err
	}
	return out, a.distinctClause(s.DistinctClause, sc, out, exact)
}

// targets traces a SELECT or RETURNING list.
func (a *analyzer) targets(list []*pg_query.Node, sc *scope) (output, error) {
	var out output
	for _, n := range list {
		r := n.GetResTarget()
		if r == nil {
			return output{}, untraceable("an output column can't be traced to masked columns")
		}
		expanded, ok, err := a.star(r.Val, sc)
		if err != nil {
			return output{}, err
		}
		if ok {
			out.columns = append(out.columns, expanded.columns...)
			out.open = out.open || expanded.open
			if len(out.columns) > maxColumnsOut {
				return output{}, untraceable("a result can have at most %d columns", maxColumnsOut)
			}
			if err := a.spend(len(expanded.columns)); err != nil {
				return output{}, err
			}
			continue
		}
		t, err := a.expr(r.Val, sc)
		if err != nil {
			return output{}, err
		}
		c := column{name: r.Name, expect: r.Name, taint: t, typ: outputType(r.Val, t)}
		if r.Name == "" {
			c.name, c.inferred = columnName(r.Val)
			if !c.inferred {
				c.expect = c.name
			}
		}
		out.columns = append(out.columns, c)
	}
	return out, nil
}

// star expands "*", "t.*" and "(t).*".
func (a *analyzer) star(n *pg_query.Node, sc *scope) (output, bool, error) {
	if ind := n.GetAIndirection(); ind != nil && len(ind.Indirection) > 0 {
		if ind.Indirection[len(ind.Indirection)-1].GetAStar() == nil {
			return output{}, false, nil
		}
		if ref := ind.Arg.GetColumnRef(); ref != nil && len(ind.Indirection) == 1 {
			if i, err := a.qualified(ref.Fields, sc); err == nil && i != nil {
				return a.expand(i), true, closed(i.rest)
			}
		}
		t, err := a.expr(ind.Arg, sc)
		if err != nil {
			return output{}, false, err
		}
		if t.any() {
			return output{}, false, untraceable("the columns of a composite value can't be traced to masked columns")
		}
		return output{open: true}, true, nil
	}
	ref := n.GetColumnRef()
	if ref == nil || ref.Fields[len(ref.Fields)-1].GetAStar() == nil {
		return output{}, false, nil
	}
	if len(ref.Fields) == 1 {
		a.reads(sc.columns)
		return output{columns: known(sc.columns), open: sc.open}, true, closed(sc.rest)
	}
	i, err := a.qualified(ref.Fields[:len(ref.Fields)-1], sc)
	if err != nil {
		return output{}, false, err
	}
	if i == nil {
		return output{}, false, untraceable("%q isn't known in the statement", last(ref.Fields[:len(ref.Fields)-1]))
	}
	return a.expand(i), true, closed(i.rest)
}

func (a *analyzer) expand(i *item) output {
	a.reads(i.columns)
	return output{columns: known(i.columns), open: i.open}
}

// closed refuses "*" where columns that can't be counted are masked.
func closed(rest taint) error {
	if !rest.any() {
		return nil
	}
	return untraceable("* stands for columns that can't be counted, and masked column %s feeds them; name them", rest.sources[0])
}

// known are columns with the names that they must have in the result.
func known(columns []column) []column {
	out := slices.Clone(columns)
	for i := range out {
		out[i].expect = ""
		if !out[i].inferred {
			out[i].expect = out[i].name
		}
	}
	return out
}

func (a *analyzer) reads(columns []column) {
	for _, c := range columns {
		a.readMasked = a.readMasked || c.taint.any()
	}
}

// qualified finds the FROM item that the parts of a name lead to, nil if there
// is none. The parts are [[database.]schema.]name.
func (a *analyzer) qualified(parts []*pg_query.Node, sc *scope) (*item, error) {
	if len(parts) > 3 {
		return nil, untraceable("a name with %d parts can't be traced", len(parts))
	}
	name, schema := last(parts), ""
	if len(parts) > 1 {
		schema = parts[len(parts)-2].GetString_().GetSval()
	}
	return sc.lookupItem(schema, name), nil
}

func last(parts []*pg_query.Node) string {
	return parts[len(parts)-1].GetString_().GetSval()
}

func (a *analyzer) values(lists []*pg_query.Node, sc *scope) (output, error) {
	var out output
	for row, n := range lists {
		for i, item := range n.GetList().GetItems() {
			t, err := a.expr(item, sc)
			if err != nil {
				return output{}, err
			}
			switch {
			case row == 0:
				name := fmt.Sprintf("column%d", i+1)
				out.columns = append(out.columns, column{name: name, expect: name, taint: t})
			case i < len(out.columns):
				out.columns[i].taint = out.columns[i].taint.either(t)
			}
		}
	}
	return out, nil
}

func (a *analyzer) setOperation(s *pg_query.SelectStmt, parent *scope, e *env) (output, error) {
	l, err := a.selectStmt(s.Larg, parent, e)
	if err != nil {
		return output{}, err
	}
	r, err := a.selectStmt(s.Rarg, parent, e)
	if err != nil {
		return output{}, err
	}
	out, err := merge(l, r)
	if err != nil {
		return output{}, err
	}
	union := s.Op == pg_query.SetOperation_SETOP_UNION
	for _, c := range out.columns {
		if union && s.All {
			break
		}
		where, exact := "INTERSECT and EXCEPT", false
		if union { // equal values of masked columns become one row
			where, exact = "UNION without ALL", c.taint.plain && orderless(s, out)
		}
		if err := a.predicate(c.taint, exact, where); err != nil {
			return output{}, err
		}
	}
	return out, nil
}

// merge puts the columns of two branches of a set operation over one another.
func merge(l, r output) (output, error) {
	out := output{open: l.open || r.open}
	if !out.open && len(l.columns) != len(r.columns) {
		return output{}, untraceable("the branches of a set operation have %d and %d columns", len(l.columns), len(r.columns))
	}
	if out.open {
		for _, c := range append(known(l.columns), r.columns...) {
			if c.taint.any() {
				return output{}, untraceable("masked column %s meets columns that can't be counted in a set operation", c.taint.sources[0])
			}
		}
		return output{open: true}, nil
	}
	for i, c := range l.columns {
		c.taint = c.taint.either(r.columns[i].taint)
		out.columns = append(out.columns, c)
	}
	return out, nil
}

// outputType is the type of an output column as far as covering it in COPY data
// takes it, 0 where that isn't known.
func outputType(n *pg_query.Node, t taint) uint32 {
	if t.any() && t.plain {
		return plainType(t)
	}
	switch x := n.GetNode().(type) {
	case *pg_query.Node_TypeCast:
		if names := x.TypeCast.TypeName.GetNames(); len(names) > 0 && len(x.TypeCast.TypeName.ArrayBounds) == 0 {
			switch last(names) {
			case "text", "varchar", "bpchar":
				return oidText
			}
		}
	case *pg_query.Node_FuncCall:
		switch last(x.FuncCall.Funcname) {
		case "upper", "lower", "initcap", "concat", "concat_ws", "format", "left", "right", "lpad", "rpad", "repeat",
			"replace", "translate", "split_part", "regexp_replace", "md5", "quote_literal", "quote_ident", "to_char", "encode":
			return oidText
		}
	}
	return 0
}

// plainType is the type of a value that is masked as it stands, 0 if that isn't
// known.
func plainType(t taint) uint32 {
	if !t.any() || !t.plain {
		return 0
	}
	typ := t.sources[0].typ()
	if slices.ContainsFunc(t.sources, func(s *source) bool { return s.typ() != typ }) {
		return 0
	}
	return typ
}

// typ is the OID of the column's base type.
func (s *source) typ() uint32 {
	for _, c := range s.relation.columns {
		if c.num == s.num {
			return c.typ
		}
	}
	return 0
}

// String names a masked column in messages.
func (s *source) String() string {
	for _, c := range s.relation.columns {
		if c.num == s.num {
			return s.relation.String() + "." + c.name
		}
	}
	return s.relation.String()
}

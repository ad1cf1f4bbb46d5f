package mask

import (
	"fmt"
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// from brings the items of a FROM clause into scope.
func (a *analyzer) from(list []*pg_query.Node, sc *scope) error {
	for _, n := range list {
		items, columns, err := a.fromItem(n, sc)
		if err != nil {
			return err
		}
		sc.add(items, columns)
		if len(sc.columns) > maxFromColumns {
			return untraceable("a FROM clause can have at most %d columns to be traced", maxFromColumns)
		}
	}
	return nil
}

// fromItem traces one FROM item. sc is what a LATERAL one sees.
func (a *analyzer) fromItem(n *pg_query.Node, sc *scope) ([]*item, []column, error) {
	if err := a.enter(); err != nil {
		return nil, nil, err
	}
	defer a.leave()
	one := func(i *item, err error) ([]*item, []column, error) {
		if err != nil {
			return nil, nil, err
		}
		return []*item{i}, i.columns, nil
	}
	switch f := n.GetNode().(type) {
	case *pg_query.Node_RangeVar:
		return one(a.rangeVar(f.RangeVar, sc.env))
	case *pg_query.Node_RangeSubselect:
		return one(a.subselect(f.RangeSubselect, sc))
	case *pg_query.Node_RangeFunction:
		return one(a.rangeFunction(f.RangeFunction, sc))
	case *pg_query.Node_JoinExpr:
		return a.join(f.JoinExpr, sc)
	case *pg_query.Node_RangeTableSample:
		for _, arg := range append(f.RangeTableSample.Args, f.RangeTableSample.Repeatable) {
			if err := a.control(arg, sc, "TABLESAMPLE"); err != nil {
				return nil, nil, err
			}
		}
		return a.fromItem(f.RangeTableSample.Relation, sc)
	case *pg_query.Node_RangeTableFunc:
		return one(a.opaque(f.RangeTableFunc, f.RangeTableFunc.Alias, "XMLTABLE", sc))
	case *pg_query.Node_JsonTable:
		return one(a.opaque(f.JsonTable, f.JsonTable.Alias, "JSON_TABLE", sc))
	}
	return nil, nil, untraceable("an item of FROM can't be traced to masked columns")
}

func (a *analyzer) subselect(r *pg_query.RangeSubselect, sc *scope) (*item, error) {
	parent := sc.query
	if r.Lateral {
		parent = sc
	}
	out, err := a.query(r.Subquery, parent, sc.env)
	if err != nil {
		return nil, err
	}
	return aliased(&item{columns: out.columns, open: out.open}, r.Alias), nil
}

// rangeFunction traces functions in FROM. How many rows they return depends on
// their arguments, and so do all their columns.
func (a *analyzer) rangeFunction(r *pg_query.RangeFunction, sc *scope) (*item, error) {
	i := &item{}
	for _, n := range r.Functions {
		items := n.GetList().GetItems()
		if len(items) == 0 {
			return nil, untraceable("a function in FROM can't be traced to masked columns")
		}
		if f := items[0].GetFuncCall(); f != nil && len(r.Functions) == 1 && len(r.Coldeflist) == 0 && len(items[1].GetList().GetItems()) == 0 {
			if fn := a.userFunction(f); fn != nil {
				out, err := a.inline(fn, f, sc)
				if err != nil {
					return nil, err
				}
				single := fn.name
				if r.Alias != nil {
					single = r.Alias.Aliasname
				}
				i = a.functionItem(fn, out, single)
				continue
			}
		}
		t, err := a.expr(items[0], sc)
		if err != nil {
			return nil, err
		}
		if err := a.predicate(t, false, "a function in FROM"); err != nil {
			return nil, err
		}
		columns, open := functionColumns(items[0], r)
		if len(items) > 1 {
			columns, open = definedColumns(items[1].GetList().GetItems())
		}
		if t.any() {
			for k := range columns {
				columns[k].taint = t.derived()
			}
			if open {
				i.rest = i.rest.join(t)
			}
		}
		i.columns, i.open = append(i.columns, columns...), i.open || open
		if i.name == "" {
			i.name, _ = columnName(items[0])
		}
	}
	if len(r.Coldeflist) > 0 {
		tainted := i.whole()
		i.columns, i.open = definedColumns(r.Coldeflist)
		for k := range i.columns {
			i.columns[k].taint = tainted
		}
		i.rest = taint{}
	}
	if r.Ordinality {
		i.columns = append(i.columns, column{name: "ordinality"})
	}
	return aliased(i, r.Alias), nil
}

// functionColumns are the columns of a function in FROM. They are known for
// those that return single values: one, named like the function or its alias.
func functionColumns(n *pg_query.Node, r *pg_query.RangeFunction) (columns []column, open bool) {
	f := n.GetFuncCall()
	if f == nil {
		return nil, true
	}
	switch last(f.Funcname) {
	case "json_each", "jsonb_each", "json_each_text", "jsonb_each_text":
		return []column{{name: "key"}, {name: "value"}}, false
	case "json_array_elements", "jsonb_array_elements", "json_array_elements_text", "jsonb_array_elements_text":
		return []column{{name: "value"}}, false
	}
	if !returnsSingleValues(last(f.Funcname)) {
		return nil, true
	}
	if r.Alias != nil && len(r.Functions) == 1 {
		return []column{{name: r.Alias.Aliasname}}, false
	}
	return []column{{name: last(f.Funcname)}}, false
}

// returnsSingleValues tells whether a function is known to return rows of one
// column that is named after the function.
func returnsSingleValues(name string) bool {
	switch name {
	case "generate_series", "generate_subscripts", "regexp_matches", "regexp_split_to_table", "string_to_table",
		"jsonb_object_keys", "json_object_keys", "jsonb_path_query", "jsonb_path_query_tz":
		return true
	}
	return false
}

// definedColumns are those of a column definition list, AS (a int, b text).
func definedColumns(list []*pg_query.Node) ([]column, bool) {
	columns := make([]column, len(list))
	for i, n := range list {
		columns[i].name = n.GetColumnDef().GetColname()
	}
	return columns, len(list) == 0
}

// opaque is an item whose columns aren't told apart.
func (a *analyzer) opaque(m protoMessage, alias *pg_query.Alias, what string, sc *scope) (*item, error) {
	t, err := a.gather(m.ProtoReflect(), sc)
	if err != nil {
		return nil, err
	}
	if err := a.predicate(t, false, what); err != nil {
		return nil, err
	}
	return aliased(&item{name: strings.ToLower(what), open: true, rest: t.derived()}, alias), nil
}

// join traces a JOIN. Its right side may look into the left one if LATERAL.
func (a *analyzer) join(j *pg_query.JoinExpr, sc *scope) ([]*item, []column, error) {
	leftItems, left, err := a.fromItem(j.Larg, sc)
	if err != nil {
		return nil, nil, err
	}
	lateral := &scope{parent: sc, query: sc.query, env: sc.env}
	lateral.add(leftItems, left)
	rightItems, right, err := a.fromItem(j.Rarg, lateral)
	if err != nil {
		return nil, nil, err
	}
	items := append(leftItems[:len(leftItems):len(leftItems)], rightItems...)
	open, rest := false, taint{}
	for _, i := range items {
		open, rest = open || i.open, rest.join(i.rest)
	}
	var using []string
	for _, n := range j.UsingClause {
		using = append(using, n.GetString_().GetSval())
	}
	if j.IsNatural {
		inferred := func(c column) bool { return c.inferred }
		if open || slices.ContainsFunc(left, inferred) || slices.ContainsFunc(right, inferred) {
			return nil, nil, untraceable("NATURAL JOIN with columns whose names aren't certain can't be traced")
		}
		using = commonNames(left, right)
	}
	columns, merged, err := a.using(using, left, right, open)
	if err != nil {
		return nil, nil, err
	}
	if err := a.spend(2 * len(columns)); err != nil {
		return nil, nil, err
	}
	on := newScope(sc.query, sc.env) // it sees nothing beside the join
	on.add(items, columns)
	if err := a.control(j.Quals, on, "JOIN … ON"); err != nil {
		return nil, nil, err
	}
	if j.JoinUsingAlias != nil {
		items = append(items, &item{name: j.JoinUsingAlias.Aliasname, columns: merged})
	}
	if j.Alias != nil { // hides the names inside
		i := aliased(&item{columns: columns, open: open, rest: rest}, j.Alias)
		return []*item{i}, i.columns, nil
	}
	return items, columns, nil
}

func commonNames(left, right []column) []string {
	var names []string
	for _, l := range left {
		for _, r := range right {
			if l.name == r.name {
				names = append(names, l.name)
			}
		}
	}
	return names
}

// using merges the columns of JOIN … USING: they come first and stand for both.
func (a *analyzer) using(names []string, left, right []column, open bool) (all, merged []column, err error) {
	if len(names) > 0 && open {
		return nil, nil, untraceable("JOIN … USING with columns that aren't known can't be traced")
	}
	in := func(list []column, name string) (t taint, err error) {
		for _, c := range list {
			if c.name == name {
				return c.taint, nil
			}
		}
		return taint{}, untraceable("column %q of USING isn't known", name)
	}
	named := map[string]bool{}
	for _, name := range names {
		l, err := in(left, name)
		if err != nil {
			return nil, nil, err
		}
		r, err := in(right, name)
		if err != nil {
			return nil, nil, err
		}
		if err := a.comparable(l, r, false, fmt.Sprintf("USING (%s)", name)); err != nil {
			return nil, nil, err
		}
		t := l.either(r)
		merged = append(merged, column{name: name, taint: t})
		named[name] = true
	}
	all = append(all, merged...)
	for _, c := range append(left[:len(left):len(left)], right...) {
		if !named[c.name] {
			all = append(all, c)
		}
	}
	return all, merged, nil
}

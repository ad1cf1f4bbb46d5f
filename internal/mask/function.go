package mask

import (
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// sqlFunction is a function of users whose body is one query, so that it can be
// traced as if the query stood in its place.
type sqlFunction struct {
	schema, name string
	arguments    int
	names        []string // of the arguments, where they have any
	columns      []string // of the rows that it returns, where their names are known
	set          bool     // it returns rows
	body         string
	// qualified: the body names everything with its schema. Else names are looked
	// up in path, or where that is nil in the one of whoever calls.
	qualified bool
	path      []string
	owners    bool // it runs as its owner
}

// maxFunctionDepth bounds functions that call functions.
const maxFunctionDepth = 16

// userFunction is the one that a call means, nil if that isn't known or it can't
// be traced. Only names that a single function has are known.
func (a *analyzer) userFunction(f *pg_query.FuncCall) *sqlFunction {
	fn := a.coverage.cat.sqlFunctions[last(f.Funcname)]
	if fn == nil || f.Over != nil || f.AggFilter != nil || len(f.AggOrder) > 0 || f.FuncVariadic || f.AggStar || f.AggDistinct || len(f.Args) != fn.arguments {
		return nil // arguments that have defaults call what isn't seen
	}
	if len(f.Funcname) > 2 || len(f.Funcname) == 2 && f.Funcname[0].GetString_().GetSval() != fn.schema {
		return nil
	}
	return fn
}

// inline traces the call of a function by its body.
func (a *analyzer) inline(fn *sqlFunction, f *pg_query.FuncCall, sc *scope) (output, error) {
	if a.functionDepth >= maxFunctionDepth {
		return output{}, untraceable("function %s calls too many others", fn.name)
	}
	params := make([]taint, fn.arguments)
	for i, n := range f.Args {
		at := i
		if named := n.GetNamedArgExpr(); named != nil {
			if at = slices.Index(fn.names, named.Name); at < 0 || at >= len(params) {
				return output{}, untraceable("argument %q of function %s isn't known", named.Name, fn.name)
			}
		}
		t, err := a.expr(n, sc)
		if err != nil {
			return output{}, err
		}
		if fn.set {
			// Whether it is NULL may decide over the rows.
			if err := a.predicate(t, t.plain, "function "+fn.name); err != nil {
				return output{}, err
			}
		}
		params[at] = t
	}
	q, err := a.coverage.rules.views.Parse(fn.body)
	if err != nil || len(q.Statements) != 1 || q.Statements[0].Tree.GetSelectStmt() == nil || q.Statements[0].Tree.GetSelectStmt().IntoClause != nil {
		return output{}, untraceable("function %s isn't one query: it may read masked columns", fn.name)
	}
	outer := *a
	a.params, a.functionDepth = params, a.functionDepth+1
	switch {
	case fn.path != nil:
		a.runtime = fn.path
	case fn.owners:
		a.runtime = nil // "$user" in it would be another
	}
	a.path = a.runtime
	if fn.qualified {
		a.path = []string{}
	}
	root := newScope(nil, nil)
	arguments := &item{name: fn.name}
	for i, name := range fn.names {
		if i < len(params) && name != "" {
			arguments.columns = append(arguments.columns, column{name: name, taint: params[i]})
		}
	}
	root.add([]*item{arguments}, arguments.columns)
	out, err := a.selectStmt(q.Statements[0].Tree.GetSelectStmt(), root, nil)
	a.params, a.functionDepth, a.path, a.runtime = outer.params, outer.functionDepth, outer.path, outer.runtime
	if err != nil {
		return output{}, &Untraceable{Message: "function " + fn.name + ": " + err.Error(), Err: err}
	}
	// What it returns may be cast to what it is declared to return.
	out = renamed(out, nil)
	for i := range out.columns {
		out.columns[i] = column{taint: out.columns[i].taint.derived()}
	}
	return out, nil
}

// functionItem is what a function of users yields in FROM.
func (a *analyzer) functionItem(fn *sqlFunction, out output, single string) *item {
	i := &item{name: fn.name, open: true, rest: (&item{columns: out.columns}).whole()}
	names := fn.columns
	if names == nil && len(out.columns) == 1 && !out.open {
		names = []string{single}
	}
	if out.open || len(names) != len(out.columns) || names == nil {
		return i
	}
	i.open, i.rest = false, taint{}
	for k, name := range names {
		i.columns = append(i.columns, column{name: name, taint: out.columns[k].taint})
	}
	return i
}

// functionBody is the query of a function's body as the catalog has it: its text,
// or what pg_get_function_sqlbody makes of a standard SQL one.
func functionBody(source, sqlBody string) (body string, qualified bool) {
	if sqlBody == "" {
		return source, false
	}
	if expr, ok := strings.CutPrefix(sqlBody, "RETURN "); ok {
		return "SELECT " + expr, true
	}
	if rest, ok := strings.CutPrefix(sqlBody, "BEGIN ATOMIC"); ok {
		if rest, ok = strings.CutSuffix(rest, "END"); ok {
			return rest, true
		}
	}
	return "", true
}

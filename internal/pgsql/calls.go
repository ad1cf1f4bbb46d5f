package pgsql

import (
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// This file finds the code that a statement calls, by functions and operators,
// and what in its text may be such a call in one database and none in another.

func (w *walker) function(f *pg_query.FuncCall) {
	// Unquoted names are lower case in the tree, so one that isn't is no
	// built-in function, though rules see it like one.
	name := dotted(f.Funcname)
	bare, qualified := strings.CutPrefix(name, "pg_catalog.")
	if qualified && f.Funcformat == pg_query.CoercionForm_COERCE_SQL_SYNTAX {
		name = bare // EXTRACT(…), OVERLAY(…): the schema is the grammar's, not the writer's
	}
	w.functions.add(strings.ToLower(name))
	switch {
	case bare == "set_config" && w.restricts:
	case bare == "set_config":
		w.unknownCode = w.unknownCode || !ordinarySetting(constant(f.Args))
		w.refuse(checkSetConfig(f))
	case strings.HasPrefix(name, "information_schema._pg_"): // drivers read catalogs with those
	case !Builtin(bare):
		w.unknownCode = true
	}
	if !qualified {
		w.calls[CallPlain].add(bare)
	}
}

// column looks at a reference to a column. Of a.b, b may be a function of a's
// rows: PostgreSQL calls b(a) where a has no column b.
func (w *walker) column(parts []*pg_query.Node) {
	if last := parts[len(parts)-1].GetString_(); last != nil && len(parts) > 1 {
		w.calls[CallRow].add(last.Sval)
	}
}

// fields looks at what is selected from a value. Of (x).f, f may be a function
// of any type's values.
func (w *walker) fields(parts []*pg_query.Node) {
	for _, p := range parts {
		name := p.GetString_().GetSval()
		if name == "" {
			continue
		}
		w.calls[CallValue].add(name)
		if SideEffect(name) {
			w.functions.add(name)
			w.unknownCode = true
		}
	}
}

func (w *walker) expression(e *pg_query.A_Expr) {
	switch e.Kind {
	case pg_query.A_Expr_Kind_AEXPR_BETWEEN, pg_query.A_Expr_Kind_AEXPR_NOT_BETWEEN,
		pg_query.A_Expr_Kind_AEXPR_BETWEEN_SYM, pg_query.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		for _, name := range []string{">=", "<=", "<", ">"} {
			w.operator.add(name)
		}
	default:
		w.operators(e.Name)
	}
}

func (w *walker) compares(name []*pg_query.Node) {
	if len(name) == 0 {
		w.operator.add("=") // IN
		return
	}
	w.operators(name)
}

// operators adds an operator's name, unless it says whose it is.
func (w *walker) operators(name []*pg_query.Node) {
	if len(name) == 1 {
		w.operator.add(part(name[0]))
	}
}

// merges adds what WHEN does.
func (w *walker) merges(command pg_query.CmdType) {
	switch command {
	case pg_query.CmdType_CMD_INSERT:
		w.kinds.add("INSERT")
	case pg_query.CmdType_CMD_UPDATE:
		w.kinds.add("UPDATE")
	case pg_query.CmdType_CMD_DELETE:
		w.kinds.add("DELETE")
	}
}

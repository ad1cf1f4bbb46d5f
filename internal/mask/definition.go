package mask

import (
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// definition refuses what a definition keeps, and the server runs later or for
// every row: functions that may read masked columns, in a default, a check, a
// generated column, USING. What they make would be taken for clear.
func (a *analyzer) definition(m protoreflect.Message) error {
	if err := a.enter(); err != nil {
		return err
	}
	defer a.leave()
	switch n := m.Interface().(type) {
	case *pg_query.FuncCall:
		if _, err := a.function(n); err != nil {
			return err
		}
	case *pg_query.A_Indirection:
		for _, part := range n.Indirection {
			if name := part.GetString_().GetSval(); name != "" {
				if err := a.field(nil, name); err != nil {
					return err
				}
			}
		}
	case *pg_query.ColumnRef:
		if len(n.Fields) > 1 {
			if err := a.field(nil, last(n.Fields)); err != nil {
				return err
			}
		}
	case *pg_query.A_Expr:
		if err := a.operator(n); err != nil {
			return err
		}
	case *pg_query.TypeName:
		if err := a.typeName(n); err != nil {
			return err
		}
	case *pg_query.SelectStmt:
		return untraceable("a query in a definition can't be traced to masked columns")
	}
	var err error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Kind() != protoreflect.MessageKind:
		case f.IsList():
			for i := range v.List().Len() {
				if err = a.definition(v.List().Get(i).Message()); err != nil {
					return false
				}
			}
		default:
			err = a.definition(v.Message())
		}
		return err == nil
	})
	return err
}

// operator refuses those that are known to call code that may read tables.
func (a *analyzer) operator(e *pg_query.A_Expr) error {
	if a.inView || len(e.Name) == 0 || !a.coverage.cat.operators[last(e.Name)] {
		return nil
	}
	return untraceable("operator %s calls a function that isn't PostgreSQL's own: it may read masked columns", last(e.Name))
}

// typeName refuses types whose casts or checks call such code.
func (a *analyzer) typeName(t *pg_query.TypeName) error {
	if a.inView || len(t.GetNames()) == 0 || !a.coverage.cat.types[last(t.Names)] {
		return nil
	}
	return untraceable("a cast or check of type %s calls a function that isn't PostgreSQL's own: it may read masked columns", last(t.Names))
}

// setting refuses settings that make the planner sort by masked columns: the order of
// the rows would tell about them.
func setting(name string) error {
	name = strings.ToLower(name)
	switch name {
	case "work_mem", "hash_mem_multiplier", "geqo", "geqo_threshold", "from_collapse_limit", "join_collapse_limit", "plan_cache_mode",
		"cursor_tuple_fraction", "constraint_exclusion":
	default:
		if !strings.HasPrefix(name, "enable_") && !strings.HasSuffix(name, "_cost") {
			return nil
		}
	}
	return untraceable("setting %s steers the planner, so that the order of rows could tell about masked columns", name)
}

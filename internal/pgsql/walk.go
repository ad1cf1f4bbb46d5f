package pgsql

import (
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// walker visits every node of a statement, whatever its kind, and collects
// names and hazards. It goes by reflection over the tree, so a kind of node
// that a newer grammar brings is visited as well, without a line here.
type walker struct {
	tables, columns, functions set

	ctes []string // names of the WITH queries in scope

	writes      bool // a part changes data, locks rows or makes a table
	unknownCode bool // a part calls a function that isn't known to be harmless
	firstWrite  string

	changes, changesWithWhere int // UPDATE, DELETE parts
	refused                   error
}

func newWalker() *walker { return &walker{} }

// set is a list of names without repetition, in the order of appearance.
type set struct {
	list []string
	seen map[string]bool
}

func (s *set) add(name string) {
	if len(s.list) < 8 {
		if slices.Contains(s.list, name) {
			return
		}
	} else if s.seen == nil {
		s.seen = make(map[string]bool, 16)
		for _, n := range s.list {
			s.seen[n] = true
		}
	}
	if s.seen[name] {
		return
	}
	if s.seen != nil {
		s.seen[name] = true
	}
	s.list = append(s.list, name)
}

// node visits one node with all below it.
func (w *walker) node(n *pg_query.Node) {
	if n != nil {
		w.message(n.ProtoReflect())
	}
}

func (w *walker) message(m protoreflect.Message) {
	switch n := m.Interface().(type) {
	case *pg_query.SelectStmt:
		defer w.with(n.WithClause)()
		w.writes = w.writes || n.IntoClause != nil || len(n.LockingClause) > 0
	case *pg_query.InsertStmt:
		defer w.with(n.WithClause)()
		w.write("INSERT")
	case *pg_query.UpdateStmt:
		defer w.with(n.WithClause)()
		w.write("UPDATE")
		w.change(n.WhereClause)
		w.refuse(updatesSettings(n))
	case *pg_query.DeleteStmt:
		defer w.with(n.WithClause)()
		w.write("DELETE")
		w.change(n.WhereClause)
	case *pg_query.MergeStmt:
		defer w.with(n.WithClause)()
		w.write("MERGE")
		w.refuse(mergesSettings(n))
	case *pg_query.WithClause:
		return // visited by the statement that it belongs to
	case *pg_query.RangeVar:
		w.table(n)
	case *pg_query.ColumnRef:
		w.columns.add(dotted(n.Fields))
	case *pg_query.FuncCall:
		w.function(n)
	case *pg_query.RangeTableSample:
		if m := strings.ToLower(dotted(n.Method)); m != "system" && m != "bernoulli" {
			w.functions.add(m)
			w.unknownCode = true
		}
	case *pg_query.VariableSetStmt:
		w.refuse(checkSetting(n))
	case *pg_query.DropStmt:
		w.objects(n.RemoveType, n.Objects)
	case *pg_query.CommentStmt:
		w.objects(n.Objtype, []*pg_query.Node{n.Object})
	case *pg_query.SecLabelStmt:
		w.objects(n.Objtype, []*pg_query.Node{n.Object})
	case *pg_query.CompositeTypeStmt:
		return // its RangeVar names a type
	case *pg_query.TypeName:
		return // types are no tables, and their modifiers are constants
	}
	w.children(m)
}

// children visits the fields in the order of the grammar's definition.
func (w *walker) children(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || !m.Has(f) {
			continue
		}
		v := m.Get(f)
		if !f.IsList() {
			w.message(v.Message())
			continue
		}
		list := v.List()
		for j := range list.Len() {
			w.message(list.Get(j).Message())
		}
	}
}

// with visits the WITH queries of a statement and brings their names into
// scope until the returned function is called. A WITH query sees those before
// it, and itself only if it is recursive: WITH t AS (SELECT * FROM t) reads
// the table t.
func (w *walker) with(clause *pg_query.WithClause) (leave func()) {
	before := len(w.ctes)
	if clause != nil {
		ctes := make([]*pg_query.CommonTableExpr, 0, len(clause.Ctes))
		for _, n := range clause.Ctes {
			if c := n.GetCommonTableExpr(); c != nil {
				ctes = append(ctes, c)
			}
		}
		if clause.Recursive {
			for _, c := range ctes {
				w.ctes = append(w.ctes, c.Ctename)
			}
		}
		for _, c := range ctes {
			w.children(c.ProtoReflect())
			if !clause.Recursive {
				w.ctes = append(w.ctes, c.Ctename)
			}
		}
	}
	return func() { w.ctes = w.ctes[:before] }
}

func (w *walker) write(kind string) {
	w.writes = true
	if w.firstWrite == "" {
		w.firstWrite = kind
	}
}

func (w *walker) change(where *pg_query.Node) {
	w.changes++
	if where != nil {
		w.changesWithWhere++
	}
}

func (w *walker) refuse(err error) {
	if w.refused == nil {
		w.refused = err
	}
}

func (w *walker) table(r *pg_query.RangeVar) {
	if r.Schemaname == "" && slices.Contains(w.ctes, r.Relname) {
		return
	}
	name := r.Relname
	if r.Schemaname != "" {
		name = r.Schemaname + "." + name
	}
	if r.Catalogname != "" {
		name = r.Catalogname + "." + name
	}
	w.tables.add(name)
}

func (w *walker) function(f *pg_query.FuncCall) {
	name := strings.ToLower(dotted(f.Funcname))
	bare, qualified := strings.CutPrefix(name, "pg_catalog.")
	if qualified && f.Funcformat == pg_query.CoercionForm_COERCE_SQL_SYNTAX {
		name = bare // EXTRACT(…), OVERLAY(…): the schema is the grammar's, not the writer's
	}
	w.functions.add(name)
	if bare == "set_config" {
		w.unknownCode = w.unknownCode || !ordinarySetting(constant(f.Args))
		w.refuse(checkSetConfig(f))
		return
	}
	w.unknownCode = w.unknownCode || !Builtin(bare)
}

// objects adds the tables among the objects of DROP, COMMENT and the like,
// which the grammar keeps as lists of strings.
func (w *walker) objects(kind pg_query.ObjectType, objects []*pg_query.Node) {
	cut := 0
	switch kind {
	case pg_query.ObjectType_OBJECT_TABLE, pg_query.ObjectType_OBJECT_VIEW, pg_query.ObjectType_OBJECT_MATVIEW,
		pg_query.ObjectType_OBJECT_FOREIGN_TABLE, pg_query.ObjectType_OBJECT_SEQUENCE:
	case pg_query.ObjectType_OBJECT_COLUMN, pg_query.ObjectType_OBJECT_TRIGGER, pg_query.ObjectType_OBJECT_RULE,
		pg_query.ObjectType_OBJECT_POLICY, pg_query.ObjectType_OBJECT_TABCONSTRAINT:
		cut = 1 // the last part names something of the table
	default:
		return
	}
	for _, o := range objects {
		if items := o.GetList().GetItems(); len(items) > cut {
			w.tables.add(dotted(items[:len(items)-cut]))
		}
	}
}

// dotted writes a qualified name, with "*" for all columns.
func dotted(parts []*pg_query.Node) string {
	if len(parts) == 1 {
		return part(parts[0])
	}
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = part(p)
	}
	return strings.Join(names, ".")
}

func part(n *pg_query.Node) string {
	if n.GetAStar() != nil {
		return "*"
	}
	return n.GetString_().GetSval()
}

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
	kinds                      set // INSERT, UPDATE, DELETE and MERGE, of the parts

	// What the names of the statement may stand for in a database.
	relations       []Relation
	known           map[Relation]bool
	calls           [CallValue + 1]set
	operator, types set

	ctes    []string       // names of the WITH queries in scope
	inScope map[string]int // how many of each

	writes      bool // a part changes data, locks rows or makes a table
	unknownCode bool // a part calls a function that isn't known to be harmless
	firstWrite  string

	changes, changesWithWhere int // UPDATE, DELETE parts
	refused                   error
	restricts                 bool // it is one that restrictsRelations knows
}

func newWalker() *walker { return &walker{inScope: map[string]int{}, known: map[Relation]bool{}} }

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
	case *pg_query.Node:
		// It is one of some 270 fields: asking each would cost more than the parse.
		if f := m.WhichOneof(m.Descriptor().Oneofs().Get(0)); f != nil {
			w.message(m.Get(f).Message())
		}
		return
	case *pg_query.SelectStmt:
		defer w.with(n.WithClause)()
		w.writes = w.writes || n.IntoClause != nil || len(n.LockingClause) > 0
	case *pg_query.InsertStmt:
		defer w.with(n.WithClause)()
		w.write("INSERT")
		if n.OnConflictClause.GetAction() == pg_query.OnConflictAction_ONCONFLICT_UPDATE {
			w.kinds.add("UPDATE")
		}
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
	case *pg_query.MergeWhenClause:
		w.merges(n.CommandType)
	case *pg_query.WithClause:
		return // visited by the statement that it belongs to
	case *pg_query.RangeVar:
		w.table(n)
	case *pg_query.ColumnRef:
		w.columns.add(dotted(n.Fields))
		w.column(n.Fields)
	case *pg_query.A_Indirection:
		w.fields(n.Indirection)
	case *pg_query.FuncCall:
		w.function(n)
	case *pg_query.A_Expr:
		w.expression(n)
	case *pg_query.SubLink:
		w.compares(n.OperName)
	case *pg_query.CaseExpr:
		if n.Arg != nil {
			w.operator.add("=")
		}
	case *pg_query.JoinExpr:
		if n.IsNatural || len(n.UsingClause) > 0 {
			w.operator.add("=")
		}
	case *pg_query.SortBy:
		w.operators(n.UseOp)
	case *pg_query.RangeTableSample:
		if m := dotted(n.Method); m != "system" && m != "bernoulli" {
			w.functions.add(strings.ToLower(m))
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
		if len(n.Names) > 0 {
			w.types.add(part(n.Names[len(n.Names)-1]))
		}
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
				w.enter(c.Ctename)
			}
		}
		for _, c := range ctes {
			w.children(c.ProtoReflect())
			if !clause.Recursive {
				w.enter(c.Ctename)
			}
		}
	}
	return func() {
		for _, name := range w.ctes[before:] {
			w.inScope[name]--
		}
		w.ctes = w.ctes[:before]
	}
}

func (w *walker) enter(cte string) {
	w.ctes = append(w.ctes, cte)
	w.inScope[cte]++
}

func (w *walker) write(kind string) {
	w.writes = true
	w.kinds.add(kind)
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
	if r.Schemaname == "" && w.inScope[r.Relname] > 0 {
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
	w.relation(Relation{Schema: r.Schemaname, Name: r.Relname})
}

func (w *walker) relation(r Relation) {
	if !w.known[r] {
		w.known[r] = true
		w.relations = append(w.relations, r)
	}
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
			items = items[:len(items)-cut]
			w.tables.add(dotted(items))
			r := Relation{Name: part(items[len(items)-1])}
			if len(items) > 1 {
				r.Schema = part(items[len(items)-2])
			}
			w.relation(r)
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

package pgsql

import (
	"slices"
	"strings"

	"chaperone.dev/chaperone/pkg/policy"
)

// Relation is a table, view, … as a statement names it.
type Relation struct {
	Schema string // empty: the statement doesn't say
	Name   string
}

// String is the name as rules have it.
func (r Relation) String() string {
	if r.Schema == "" {
		return r.Name
	}
	return r.Schema + "." + r.Name
}

// Call is a way to call a function.
type Call uint8

// The ways.
const (
	CallPlain Call = iota // f(a, b)
	CallRow               // a.f, of the rows of a table a
	CallValue             // (a).f, of any value
)

// Names tells what names stand for in one database. It must be safe for
// concurrent use.
type Names interface {
	// ChangingFunction tells whether a user's function of the name, which may
	// change something, can be called in that way. Which one a call means
	// depends on its arguments' types, so the schema is not asked for.
	ChangingFunction(name string, call Call) bool
	// ChangingOperator tells the same of operators.
	ChangingOperator(name string) bool
	// ChangingType tells whether turning a value into one of the type, or from
	// one, may change something, by a user's cast or the checks of a domain.
	ChangingType(name string) bool
	// ChangingView tells whether reading the relation may change something,
	// because it is a view that calls functions. Without a schema it is any
	// of the name.
	ChangingView(Relation) bool
	// Relations are the schemas that have a relation of the name, of those
	// that a session may mean by the name alone.
	Relations(name string) []string
}

// Surroundings are what a statement's meaning depends on, besides its text.
type Surroundings struct {
	Names Names
	// Prepared is what SQL's EXECUTE runs by that name: the PREPARE, or nil
	// where that isn't known.
	Prepared func(name string) *Statement
}

// names are what a statement's text leaves open.
type names struct {
	relations []Relation
	functions [CallValue + 1][]string // that may be built-in ones or columns, or users' functions
	operators []string
	types     []string
}

// usual are the relations in a session that has its usual search path.
func (n *names) usual() []string {
	var out set
	for _, r := range n.relations {
		if r.Schema == "" {
			r.Schema = "public"
			if strings.HasPrefix(r.Name, "pg_") {
				r.Schema = "pg_catalog"
			}
		}
		out.add(r.String())
	}
	return out.list
}

// Bare tells whether the facts of the statement are the same in all surroundings.
func (s *Statement) Bare() bool {
	n := &s.names
	for _, list := range n.functions {
		if len(list) > 0 {
			return false
		}
	}
	return len(n.relations) == 0 && len(n.operators) == 0 && len(n.types) == 0 && s.Executes() == ""
}

// FactsIn are the facts of a statement that runs in a session of a database.
//
// They differ from those of [Statement.Facts] in Relations, which holds each
// relation that a bare name may stand for, whatever the search path; a name
// that the database doesn't have stays as it is. ReadOnly is false where
// users' functions, operators, casts or views hide behind a name, and may change
// something. And EXECUTE is known by what it runs.
//
// A user's function counts as one that may change something if it is declared
// volatile, as functions are unless their definition says otherwise: PostgreSQL
// itself holds the others to reading.
func (s *Statement) FactsIn(text string, in Surroundings) policy.Statement {
	f := s.Facts(text)
	f.Relations = s.names.among(in.Names)
	f.ReadOnly = f.ReadOnly && !s.names.changing(in.Names)
	if name := s.Executes(); name != "" && in.Prepared != nil {
		if prepared := in.Prepared(name); prepared != nil {
			s.executing(&f, prepared.FactsIn("", in))
		}
	}
	return f
}

// Executes is the name of the prepared statement that EXECUTE runs, or EXPLAIN
// shows, if the statement is or has one.
func (s *Statement) Executes() string {
	n := s.Tree
	if e := n.GetExplainStmt(); e != nil {
		n = e.Query
	}
	if c := n.GetCreateTableAsStmt(); c != nil {
		n = c.Query
	}
	return n.GetExecuteStmt().GetName()
}

// executing adds the facts of what is executed.
func (s *Statement) executing(f *policy.Statement, prepared policy.Statement) {
	f.Tables = joined(f.Tables, prepared.Tables)
	f.Relations = joined(f.Relations, prepared.Relations)
	f.Columns = joined(f.Columns, prepared.Columns)
	f.Functions = joined(f.Functions, prepared.Functions)
	if e := s.Tree.GetExplainStmt(); e != nil && !analyzes(e) {
		return
	}
	f.Kinds = joined(prepared.Kinds[1:], f.Kinds) // the first is PREPARE
	f.HasWhere = prepared.HasWhere
	if f.Kind == "EXECUTE" {
		f.Kind = f.Kinds[0]
		f.ReadOnly = s.harmless && prepared.ReadOnly
	}
}

func joined(a, b []string) []string {
	var out set
	for _, list := range [][]string{a, b} {
		for _, name := range list {
			out.add(name)
		}
	}
	return out.list
}

// among are the relations in a database.
func (n *names) among(known Names) []string {
	var out set
	for _, r := range n.relations {
		schemas := []string{r.Schema}
		if r.Schema == "" {
			schemas = known.Relations(r.Name)
		}
		if len(schemas) == 0 {
			out.add(r.Name)
		}
		for _, schema := range schemas {
			out.add(Relation{schema, r.Name}.String())
		}
	}
	return out.list
}

func (n *names) changing(known Names) bool {
	for call, list := range n.functions {
		for _, name := range list {
			if known.ChangingFunction(name, Call(call)) {
				return true
			}
		}
	}
	return slices.ContainsFunc(n.operators, known.ChangingOperator) || slices.ContainsFunc(n.types, known.ChangingType) ||
		slices.ContainsFunc(n.relations, known.ChangingView)
}

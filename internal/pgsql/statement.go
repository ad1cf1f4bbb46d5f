package pgsql

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"

	"chaperone.dev/chaperone/pkg/policy"
)

// CopyDirection says which way COPY data flows on the client's connection.
type CopyDirection uint8

// The directions.
const (
	CopyNone CopyDirection = iota // no COPY, or one from or to the server's own files
	CopyIn                        // COPY … FROM STDIN
	CopyOut                       // COPY … TO STDOUT
)

// Statement is one statement of a [Query]. It is immutable.
type Statement struct {
	// Tree is the statement's node of the parse tree. It is shared: readers
	// must not change it. Its constants, where they are but values, and its
	// places may be those of another text of the same shape.
	Tree *pg_query.Node
	// Copy is set for COPY from and to the client.
	Copy CopyDirection

	facts policy.Statement
	names names
	// As far as its own text goes: EXECUTE runs another.
	harmless, unknownCode bool
}

// UnknownCode tells whether the statement runs code that isn't in its text, but for
// triggers and what EXECUTE runs: functions that aren't known to be harmless, DO, CALL.
func (s *Statement) UnknownCode() bool { return s.unknownCode }

// Facts are what policies see of the statement, text being the query string
// that it came in, as far as the text alone tells it: [Statement.FactsIn] says
// what is different in a database. The slices are shared and must not be
// changed.
//
// Kind is the command's name. Where one statement does more than its first
// word says, it is that of what it does to data: DELETE for WITH x AS (DELETE
// …) SELECT and for EXPLAIN ANALYZE DELETE. Among several data-modifying
// parts the outermost counts, then the first. Kinds are Kind, the statement's
// own name where that is another, and all data-modifying parts, those of MERGE
// and ON CONFLICT too.
//
// ReadOnly holds for what can be seen from the text to change neither data,
// nor schema, nor anything on the server: reads that call no function but
// known built-in ones; transaction control (without two-phase commit), SHOW,
// cursors over such reads, and SET of settings that only shape the session's
// own reading (see ordinarySetting). BEGIN READ WRITE and its kin are among
// them: what a transaction then does is asked by itself.
//
// Relations are the tables with their schemas. Where the text has none, it is
// the one that a session begins with.
//
// DDL follows log_statement = ddl of PostgreSQL: CREATE, ALTER, DROP, GRANT,
// COMMENT and their kin, and also CREATE TABLE AS and SELECT INTO.
//
// HasWhere: every UPDATE and DELETE of the statement has a WHERE, or, where it
// holds none, the SELECT has one.
func (s *Statement) Facts(text string) policy.Statement {
	f := s.facts
	f.Text = text
	return f
}

func newStatement(tree *pg_query.Node) (*Statement, error) {
	w := newWalker()
	w.restricts = restrictsRelations(tree)
	w.node(tree)
	if w.refused != nil {
		return nil, w.refused
	}
	s := &Statement{Tree: tree, Copy: copyDirection(tree.GetCopyStmt())}
	s.unknownCode = w.unknownCode || tree.GetDoStmt() != nil
	s.harmless = !w.writes && !w.unknownCode
	s.names = names{relations: w.relations, operators: w.operator.list, types: w.types.list}
	for call, names := range w.calls {
		s.names.functions[call] = names.list
	}
	s.facts = policy.Statement{
		Kind:      w.kind(tree),
		Kinds:     w.kindsOf(tree),
		ReadOnly:  w.readOnly(tree),
		DDL:       isDDL(tree),
		Tables:    w.tables.list,
		Relations: s.names.usual(),
		Columns:   w.columns.list,
		Functions: w.functions.list,
		HasWhere:  w.hasWhere(tree),
	}
	return s, nil
}

func copyDirection(c *pg_query.CopyStmt) CopyDirection {
	switch {
	case c == nil || c.IsProgram || c.Filename != "":
		return CopyNone
	case c.IsFrom:
		return CopyIn
	}
	return CopyOut
}

// executed is the statement that running n really runs: that of EXPLAIN
// ANALYZE, DECLARE CURSOR and COPY (…) TO, else n.
func executed(n *pg_query.Node) *pg_query.Node {
	for {
		var inner *pg_query.Node
		switch s := n.GetNode().(type) {
		case *pg_query.Node_ExplainStmt:
			if analyzes(s.ExplainStmt) {
				inner = s.ExplainStmt.Query
			}
		case *pg_query.Node_DeclareCursorStmt:
			inner = s.DeclareCursorStmt.Query
		case *pg_query.Node_CopyStmt:
			inner = s.CopyStmt.Query
		}
		if inner == nil {
			return n
		}
		n = inner
	}
}

// analyzes tells whether EXPLAIN runs the statement. An option that can't be
// read counts as yes.
func analyzes(e *pg_query.ExplainStmt) bool {
	on := false
	for _, o := range e.Options {
		d := o.GetDefElem()
		if d == nil || d.Defname != "analyze" {
			continue
		}
		switch v := d.Arg.GetNode().(type) {
		case nil:
			on = true
		case *pg_query.Node_String_:
			on = v.String_.Sval != "false" && v.String_.Sval != "off"
		case *pg_query.Node_Integer:
			on = v.Integer.Ival != 0
		case *pg_query.Node_Boolean:
			on = v.Boolean.Boolval
		default:
			on = true
		}
		if on {
			return true // the last one counts for the server; any counts here
		}
	}
	return false
}

func (w *walker) hasWhere(n *pg_query.Node) bool {
	if w.changes > 0 {
		return w.changesWithWhere == w.changes
	}
	s := executed(n).GetSelectStmt()
	return s != nil && s.WhereClause != nil
}

// readOnly holds for statements that certainly change nothing.
func (w *walker) readOnly(n *pg_query.Node) bool {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		return !w.writes && !w.unknownCode
	case *pg_query.Node_ExplainStmt:
		// Planning runs immutable functions over constants.
		if w.unknownCode {
			return false
		}
		return !analyzes(s.ExplainStmt) || s.ExplainStmt.Query.GetSelectStmt() != nil && !w.writes
	case *pg_query.Node_DeclareCursorStmt:
		return !w.writes && !w.unknownCode
	case *pg_query.Node_CopyStmt:
		return copyDirection(s.CopyStmt) == CopyOut && !w.writes && !w.unknownCode
	case *pg_query.Node_PrepareStmt:
		// It runs later, in EXECUTE, which is never read-only.
		return !w.writes && !w.unknownCode
	case *pg_query.Node_VariableSetStmt:
		return readOnlySetting(s.VariableSetStmt)
	case *pg_query.Node_TransactionStmt:
		return !twoPhase(s.TransactionStmt.Kind)
	case *pg_query.Node_VariableShowStmt, *pg_query.Node_FetchStmt, *pg_query.Node_ClosePortalStmt,
		*pg_query.Node_DeallocateStmt, *pg_query.Node_ListenStmt, *pg_query.Node_UnlistenStmt,
		*pg_query.Node_ConstraintsSetStmt:
		return true
	case *pg_query.Node_DiscardStmt:
		// DISCARD TEMP drops tables, if only the session's own.
		return s.DiscardStmt.Target == pg_query.DiscardMode_DISCARD_PLANS ||
			s.DiscardStmt.Target == pg_query.DiscardMode_DISCARD_SEQUENCES
	}
	return false
}

func twoPhase(k pg_query.TransactionStmtKind) bool {
	switch k {
	case pg_query.TransactionStmtKind_TRANS_STMT_PREPARE,
		pg_query.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED,
		pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
		return true
	}
	return false
}

package pgsql

import (
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// kind names a statement in the words of PostgreSQL's command tags
// (CreateCommandTag in tcop/utility.c).
func (w *walker) kind(n *pg_query.Node) string {
	switch s := executed(n).GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		switch {
		case w.firstWrite != "":
			return w.firstWrite
		case s.SelectStmt.IntoClause != nil:
			return "SELECT INTO"
		}
		if executed(n) == n {
			return "SELECT"
		}
	case *pg_query.Node_InsertStmt:
		return "INSERT"
	case *pg_query.Node_UpdateStmt:
		return "UPDATE"
	case *pg_query.Node_DeleteStmt:
		return "DELETE"
	case *pg_query.Node_MergeStmt:
		return "MERGE"
	}
	if e := n.GetExplainStmt(); e != nil && analyzes(e) && e.Query.GetSelectStmt() == nil {
		return utilityKind(e.Query) // CREATE TABLE AS, EXECUTE, …
	}
	return utilityKind(n)
}

// kindsOf are the statement's kind, its own name, and what it does to data by
// its parts. What a statement only writes down, as CREATE RULE does, it doesn't
// do; but PREPARE's is among them, since EXECUTE doesn't show what it runs.
func (w *walker) kindsOf(n *pg_query.Node) []string {
	var kinds set
	kinds.add(w.kind(n))
	own := n
	switch n.GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		if n.GetSelectStmt().IntoClause != nil {
			kinds.add("SELECT INTO")
		} else {
			kinds.add("SELECT")
		}
	case *pg_query.Node_InsertStmt, *pg_query.Node_UpdateStmt, *pg_query.Node_DeleteStmt, *pg_query.Node_MergeStmt:
	default:
		kinds.add(utilityKind(n))
	}
	if p := own.GetPrepareStmt(); p != nil {
		own = p.Query
	}
	switch executed(own).GetNode().(type) {
	case *pg_query.Node_SelectStmt, *pg_query.Node_InsertStmt, *pg_query.Node_UpdateStmt, *pg_query.Node_DeleteStmt,
		*pg_query.Node_MergeStmt, *pg_query.Node_CreateTableAsStmt:
		for _, k := range w.kinds.list {
			kinds.add(k)
		}
	}
	return kinds.list
}

func utilityKind(n *pg_query.Node) string {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_TransactionStmt:
		return transactionKind(s.TransactionStmt.Kind)
	case *pg_query.Node_VariableSetStmt:
		if k := s.VariableSetStmt.Kind; k == pg_query.VariableSetKind_VAR_RESET || k == pg_query.VariableSetKind_VAR_RESET_ALL {
			return "RESET"
		}
		return "SET"
	case *pg_query.Node_FetchStmt:
		if s.FetchStmt.Ismove {
			return "MOVE"
		}
		return "FETCH"
	case *pg_query.Node_DiscardStmt:
		return "DISCARD"
	case *pg_query.Node_VacuumStmt:
		if s.VacuumStmt.IsVacuumcmd {
			return "VACUUM"
		}
		return "ANALYZE"
	case *pg_query.Node_GrantStmt:
		return grant(s.GrantStmt.IsGrant)
	case *pg_query.Node_GrantRoleStmt:
		return grant(s.GrantRoleStmt.IsGrant) + " ROLE"
	case *pg_query.Node_CreateTableAsStmt:
		if s.CreateTableAsStmt.Objtype == pg_query.ObjectType_OBJECT_MATVIEW {
			return "CREATE MATERIALIZED VIEW"
		}
		return "CREATE TABLE AS"
	case *pg_query.Node_CreateFunctionStmt:
		if s.CreateFunctionStmt.IsProcedure {
			return "CREATE PROCEDURE"
		}
		return "CREATE FUNCTION"
	case *pg_query.Node_DefineStmt:
		return "CREATE " + objectName(s.DefineStmt.Kind)
	case *pg_query.Node_DropStmt:
		return "DROP " + objectName(s.DropStmt.RemoveType)
	case *pg_query.Node_RenameStmt:
		return "ALTER " + objectName(s.RenameStmt.RenameType, s.RenameStmt.RelationType)
	case *pg_query.Node_AlterTableStmt:
		return "ALTER " + objectName(s.AlterTableStmt.Objtype)
	case *pg_query.Node_AlterFunctionStmt:
		return "ALTER " + objectName(s.AlterFunctionStmt.Objtype)
	case *pg_query.Node_AlterOwnerStmt:
		return "ALTER " + objectName(s.AlterOwnerStmt.ObjectType)
	case *pg_query.Node_AlterObjectSchemaStmt:
		return "ALTER " + objectName(s.AlterObjectSchemaStmt.ObjectType)
	case *pg_query.Node_AlterObjectDependsStmt:
		return "ALTER " + objectName(s.AlterObjectDependsStmt.ObjectType)
	}
	name, ok := utilityNames[messageName(n)]
	if !ok {
		return spell(messageName(n))
	}
	return name
}

func grant(is bool) string {
	if is {
		return "GRANT"
	}
	return "REVOKE"
}

func transactionKind(k pg_query.TransactionStmtKind) string {
	switch k {
	case pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		return "ROLLBACK"
	case pg_query.TransactionStmtKind_TRANS_STMT_START:
		return "START TRANSACTION"
	case pg_query.TransactionStmtKind_TRANS_STMT_PREPARE:
		return "PREPARE TRANSACTION"
	}
	return words(strings.TrimPrefix(k.String(), "TRANS_STMT_"))
}

// objectName is the name of a kind of object as commands spell it. For parts of
// a relation, such as a column, it is the kind of relation.
func objectName(t pg_query.ObjectType, relation ...pg_query.ObjectType) string {
	switch t {
	case pg_query.ObjectType_OBJECT_COLUMN, pg_query.ObjectType_OBJECT_TABCONSTRAINT:
		if len(relation) > 0 && t == pg_query.ObjectType_OBJECT_COLUMN {
			return objectName(relation[0])
		}
		return "TABLE"
	case pg_query.ObjectType_OBJECT_ATTRIBUTE:
		return "TYPE"
	case pg_query.ObjectType_OBJECT_DOMCONSTRAINT:
		return "DOMAIN"
	case pg_query.ObjectType_OBJECT_MATVIEW:
		return "MATERIALIZED VIEW"
	case pg_query.ObjectType_OBJECT_FDW:
		return "FOREIGN DATA WRAPPER"
	case pg_query.ObjectType_OBJECT_FOREIGN_SERVER:
		return "SERVER"
	case pg_query.ObjectType_OBJECT_OPCLASS:
		return "OPERATOR CLASS"
	case pg_query.ObjectType_OBJECT_OPFAMILY:
		return "OPERATOR FAMILY"
	case pg_query.ObjectType_OBJECT_LARGEOBJECT:
		return "LARGE OBJECT"
	case pg_query.ObjectType_OBJECT_STATISTIC_EXT:
		return "STATISTICS"
	case pg_query.ObjectType_OBJECT_TSCONFIGURATION:
		return "TEXT SEARCH CONFIGURATION"
	case pg_query.ObjectType_OBJECT_TSDICTIONARY:
		return "TEXT SEARCH DICTIONARY"
	case pg_query.ObjectType_OBJECT_TSPARSER:
		return "TEXT SEARCH PARSER"
	case pg_query.ObjectType_OBJECT_TSTEMPLATE:
		return "TEXT SEARCH TEMPLATE"
	}
	return words(strings.TrimPrefix(t.String(), "OBJECT_"))
}

func words(enum string) string { return strings.ReplaceAll(enum, "_", " ") }

// messageName is the name of the node's type, such as "IndexStmt".
func messageName(n *pg_query.Node) string {
	m := n.ProtoReflect()
	f := m.WhichOneof(m.Descriptor().Oneofs().ByName("node"))
	if f == nil {
		return ""
	}
	return string(f.Message().Name())
}

// spell makes words of a type's name: "CreateStatsStmt" → "CREATE STATS".
func spell(name string) string {
	var b strings.Builder
	for i, r := range strings.TrimSuffix(name, "Stmt") {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

// utilityNames are the kinds that one type of node stands for, where the words
// of the type's name aren't those of the command.
var utilityNames = map[string]string{
	"AlterDatabaseRefreshCollStmt": "ALTER DATABASE", "AlterDatabaseSetStmt": "ALTER DATABASE",
	"AlterEnumStmt": "ALTER TYPE", "AlterEventTrigStmt": "ALTER EVENT TRIGGER",
	"AlterExtensionContentsStmt": "ALTER EXTENSION", "AlterFdwStmt": "ALTER FOREIGN DATA WRAPPER",
	"AlterForeignServerStmt": "ALTER SERVER", "AlterOpFamilyStmt": "ALTER OPERATOR FAMILY",
	"AlterRoleSetStmt": "ALTER ROLE", "AlterSeqStmt": "ALTER SEQUENCE", "AlterStatsStmt": "ALTER STATISTICS",
	"AlterTableMoveAllStmt": "ALTER TABLE", "AlterTableSpaceOptionsStmt": "ALTER TABLESPACE",
	"AlterTSConfigurationStmt": "ALTER TEXT SEARCH CONFIGURATION", "AlterTSDictionaryStmt": "ALTER TEXT SEARCH DICTIONARY",
	"CheckPointStmt": "CHECKPOINT", "ClosePortalStmt": "CLOSE CURSOR", "CompositeTypeStmt": "CREATE TYPE",
	"ConstraintsSetStmt": "SET CONSTRAINTS", "CreateAmStmt": "CREATE ACCESS METHOD", "CreatedbStmt": "CREATE DATABASE",
	"CreateEnumStmt": "CREATE TYPE", "CreateEventTrigStmt": "CREATE EVENT TRIGGER",
	"CreateFdwStmt": "CREATE FOREIGN DATA WRAPPER", "CreateForeignServerStmt": "CREATE SERVER",
	"CreateOpClassStmt": "CREATE OPERATOR CLASS", "CreateOpFamilyStmt": "CREATE OPERATOR FAMILY",
	"CreatePLangStmt": "CREATE LANGUAGE", "CreateRangeStmt": "CREATE TYPE", "CreateSeqStmt": "CREATE SEQUENCE",
	"CreateStatsStmt": "CREATE STATISTICS", "CreateStmt": "CREATE TABLE", "CreateTableSpaceStmt": "CREATE TABLESPACE",
	"CreateTrigStmt": "CREATE TRIGGER", "DropdbStmt": "DROP DATABASE", "DropTableSpaceStmt": "DROP TABLESPACE",
	"IndexStmt": "CREATE INDEX", "LockStmt": "LOCK TABLE", "RefreshMatViewStmt": "REFRESH MATERIALIZED VIEW",
	"RuleStmt": "CREATE RULE", "SecLabelStmt": "SECURITY LABEL", "TruncateStmt": "TRUNCATE TABLE",
	"VariableShowStmt": "SHOW", "ViewStmt": "CREATE VIEW", "DeclareCursorStmt": "DECLARE CURSOR",
}

// isDDL follows GetCommandLogLevel in tcop/utility.c. Kinds that aren't known
// to be something else count as DDL.
func isDDL(n *pg_query.Node) bool {
	e := executed(n)
	switch s := e.GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		return s.SelectStmt.IntoClause != nil
	case *pg_query.Node_PrepareStmt:
		return isDDL(s.PrepareStmt.Query)
	case *pg_query.Node_InsertStmt, *pg_query.Node_UpdateStmt, *pg_query.Node_DeleteStmt, *pg_query.Node_MergeStmt,
		*pg_query.Node_CopyStmt, *pg_query.Node_TruncateStmt, *pg_query.Node_TransactionStmt,
		*pg_query.Node_VariableSetStmt, *pg_query.Node_VariableShowStmt, *pg_query.Node_DiscardStmt,
		*pg_query.Node_DeclareCursorStmt, *pg_query.Node_FetchStmt, *pg_query.Node_ClosePortalStmt,
		*pg_query.Node_ExecuteStmt, *pg_query.Node_DeallocateStmt, *pg_query.Node_ExplainStmt,
		*pg_query.Node_DoStmt, *pg_query.Node_CallStmt, *pg_query.Node_VacuumStmt, *pg_query.Node_LockStmt,
		*pg_query.Node_NotifyStmt, *pg_query.Node_ListenStmt, *pg_query.Node_UnlistenStmt,
		*pg_query.Node_ConstraintsSetStmt, *pg_query.Node_CheckPointStmt, *pg_query.Node_LoadStmt,
		*pg_query.Node_ReindexStmt:
		return false
	}
	return true
}

package session

import (
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"chaperone.dev/chaperone/internal/pgsql"
)

// schemaWatch tells whether the session is in a transaction block in which it
// changed the schema, by the statements that it lets through. It errs toward
// yes: a BEGIN that the server never ran counts until the next end.
type schemaWatch struct {
	block   bool // in a transaction block
	changed bool // and the schema was changed in it
}

func (w *schemaWatch) begin(query *pgsql.Query) {
	for _, statement := range query.Statements {
		transaction := statement.Tree.GetTransactionStmt()
		if transaction == nil {
			continue
		}
		switch transaction.Kind {
		case pg_query.TransactionStmtKind_TRANS_STMT_BEGIN, pg_query.TransactionStmtKind_TRANS_STMT_START:
			w.block = true
		case pg_query.TransactionStmtKind_TRANS_STMT_COMMIT, pg_query.TransactionStmtKind_TRANS_STMT_ROLLBACK,
			pg_query.TransactionStmtKind_TRANS_STMT_PREPARE:
			w.block, w.changed = transaction.Chain, false
		}
	}
	w.changed = w.changed || w.block && slices.ContainsFunc(query.Statements, changesSchema)
}

// changesSchema tells whether a statement may change what names mean that the
// catalog knows. A temporary table of a new name doesn't.
func changesSchema(statement *pgsql.Statement) bool {
	var made *pg_query.RangeVar
	switch node := statement.Tree.GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		made = node.SelectStmt.IntoClause.GetRel()
	case *pg_query.Node_CreateTableAsStmt:
		made = node.CreateTableAsStmt.Into.GetRel()
	case *pg_query.Node_CreateStmt:
		if len(node.CreateStmt.InhRelations) == 0 && node.CreateStmt.Partbound == nil {
			made = node.CreateStmt.Relation
		}
	}
	return statement.Facts("").DDL && made.GetRelpersistence() != "t"
}

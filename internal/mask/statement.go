package mask

import (
	"slices"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// statement traces a whole statement. What isn't listed is refused: it may
// carry masked values where they can't be followed.
func (a *analyzer) statement(n *pg_query.Node) (output, error) {
	anyRows := output{open: true}
	switch s := n.GetNode().(type) {
	case *pg_query.Node_SelectStmt:
		if err := a.fresh(s.SelectStmt.IntoClause.GetRel()); err != nil {
			return output{}, err
		}
		return a.query(n, nil, nil)
	case *pg_query.Node_InsertStmt, *pg_query.Node_UpdateStmt, *pg_query.Node_DeleteStmt, *pg_query.Node_MergeStmt:
		return a.query(n, nil, nil)
	case *pg_query.Node_ExplainStmt:
		// The plan shows constants of the statement and numbers of rows; the
		// rows that a masked value decides over are refused within.
		_, err := a.statement(s.ExplainStmt.Query)
		return anyRows, err
	case *pg_query.Node_CopyStmt:
		return a.copy(s.CopyStmt)
	case *pg_query.Node_CreateTableAsStmt:
		if err := a.fresh(s.CreateTableAsStmt.Into.GetRel()); err != nil {
			return output{}, err
		}
		return output{}, a.clear(s.CreateTableAsStmt.Query)
	case *pg_query.Node_ViewStmt:
		// A view that replaces a clear one shows its columns at once, before
		// its transaction ends and any catalog tells of it.
		if err := a.fresh(s.ViewStmt.View); err != nil {
			return output{}, err
		}
		return output{}, a.clear(s.ViewStmt.Query)
	case *pg_query.Node_CreateStmt:
		return output{}, a.fresh(s.CreateStmt.Relation)
	case *pg_query.Node_CreateSeqStmt:
		return output{}, a.fresh(s.CreateSeqStmt.Sequence)
	case *pg_query.Node_AlterTableStmt:
		return output{}, a.alter(s.AlterTableStmt)
	case *pg_query.Node_RenameStmt:
		return output{}, a.rename(s.RenameStmt)
	case *pg_query.Node_AlterObjectSchemaStmt:
		r := s.AlterObjectSchemaStmt.Relation
		if r == nil {
			return output{}, untraceable("ALTER … SET SCHEMA of what isn't a table can't be let through: masks go by names")
		}
		if err := a.unmasked(r, "ALTER … SET SCHEMA"); err != nil {
			return output{}, err
		}
		return output{}, a.unused(r.Relname, "")
	case *pg_query.Node_IndexStmt:
		return output{}, a.index(s.IndexStmt)
	case *pg_query.Node_CreateSchemaStmt:
		if len(s.CreateSchemaStmt.SchemaElts) > 0 {
			return output{}, untraceable("CREATE SCHEMA can be let through without elements only")
		}
		return output{}, nil
	case *pg_query.Node_VariableSetStmt, *pg_query.Node_TransactionStmt, *pg_query.Node_DiscardStmt,
		*pg_query.Node_DeallocateStmt, *pg_query.Node_ClosePortalStmt, *pg_query.Node_ConstraintsSetStmt,
		*pg_query.Node_ListenStmt, *pg_query.Node_UnlistenStmt, *pg_query.Node_NotifyStmt, *pg_query.Node_LockStmt,
		*pg_query.Node_TruncateStmt, *pg_query.Node_VacuumStmt, *pg_query.Node_ClusterStmt, *pg_query.Node_ReindexStmt,
		*pg_query.Node_CheckPointStmt, *pg_query.Node_RefreshMatViewStmt,
		*pg_query.Node_DropStmt, *pg_query.Node_AlterSeqStmt, *pg_query.Node_GrantStmt,
		*pg_query.Node_GrantRoleStmt, *pg_query.Node_CommentStmt, *pg_query.Node_CreateEnumStmt,
		*pg_query.Node_AlterEnumStmt, *pg_query.Node_CompositeTypeStmt, *pg_query.Node_CreateStatsStmt,
		*pg_query.Node_CreateDomainStmt, *pg_query.Node_AlterOwnerStmt:
		return output{}, nil
	case *pg_query.Node_VariableShowStmt:
		return anyRows, nil
	case *pg_query.Node_FetchStmt, *pg_query.Node_DeclareCursorStmt:
		return output{}, untraceable("SQL cursors can't be traced to masked columns; use a query with LIMIT, or the protocol's own portals")
	case *pg_query.Node_PrepareStmt, *pg_query.Node_ExecuteStmt:
		return output{}, untraceable("SQL PREPARE and EXECUTE can't be traced to masked columns; use the protocol's own prepared statements")
	case *pg_query.Node_DoStmt, *pg_query.Node_CallStmt:
		return output{}, untraceable("DO and CALL run code that may read masked columns")
	}
	return output{}, untraceable("this kind of statement can't be let through while columns are masked")
}

// copy lets COPY … TO through where no column is masked: in its stream the
// columns aren't told apart.
func (a *analyzer) copy(c *pg_query.CopyStmt) (output, error) {
	if c.Query != nil {
		out, err := a.query(c.Query, nil, nil)
		if err != nil {
			return output{}, err
		}
		for _, col := range out.columns {
			if col.taint.any() {
				return output{}, untraceable("COPY of masked column %s can't be covered; use SELECT", col.taint.sources[0])
			}
		}
		return output{open: true}, nil
	}
	rel, columns, err := a.relation(c.Relation)
	if err != nil {
		return output{}, err
	}
	if c.IsFrom {
		sc := newScope(nil, nil)
		sc.columns = columns
		return output{open: true}, a.control(c.WhereClause, sc, "COPY … WHERE")
	}
	for _, col := range columns {
		listed := len(c.Attlist) == 0 || slices.ContainsFunc(c.Attlist, func(n *pg_query.Node) bool {
			return n.GetString_().GetSval() == col.name
		})
		if listed && col.taint.any() {
			return output{}, untraceable("COPY of masked column %s.%s can't be covered; use SELECT", rel, col.name)
		}
	}
	return output{open: true}, nil
}

// clear lets a query through none of whose columns is masked.
func (a *analyzer) clear(n *pg_query.Node) error {
	if n.GetExecuteStmt() != nil {
		_, err := a.statement(n)
		return err
	}
	out, err := a.query(n, nil, nil)
	if err != nil {
		return err
	}
	return a.into(out)
}

// unmasked lets a change of a relation through that has no masked columns: the
// others could lose their masks by it.
func (a *analyzer) unmasked(r *pg_query.RangeVar, what string) error {
	if r == nil {
		return nil
	}
	rel, columns, err := a.relation(r)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(columns, func(c column) bool { return c.taint.any() }) {
		return untraceable("%s of %s can't be let through: it has masked columns", what, rel)
	}
	return nil
}

// alter lets ALTER TABLE through where neither the table nor a partition or
// parent that it is given has masked columns.
func (a *analyzer) alter(s *pg_query.AlterTableStmt) error {
	if err := a.unmasked(s.Relation, "ALTER"); err != nil {
		return err
	}
	for _, n := range s.Cmds {
		def := n.GetAlterTableCmd().GetDef()
		for _, r := range []*pg_query.RangeVar{def.GetRangeVar(), def.GetPartitionCmd().GetName()} {
			if err := a.unmasked(r, "ALTER … ATTACH or INHERIT"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *analyzer) rename(s *pg_query.RenameStmt) error {
	if s.Relation == nil {
		return untraceable("ALTER … RENAME of what isn't a table can't be let through: masks go by names")
	}
	if err := a.unmasked(s.Relation, "ALTER … RENAME"); err != nil {
		return err
	}
	switch s.RenameType {
	case pg_query.ObjectType_OBJECT_COLUMN, pg_query.ObjectType_OBJECT_TABCONSTRAINT:
		return nil
	}
	return a.unused(s.Newname, "")
}

// fresh refuses to make a relation that would hide another of its name, or be
// hidden by it: which one a later statement means could not be told.
func (a *analyzer) fresh(r *pg_query.RangeVar) error {
	if r == nil {
		return nil
	}
	own := "" // of a temporary one: not known
	switch {
	case r.Relpersistence == "t":
	case r.Schemaname != "":
		own = r.Schemaname
	case len(a.path) > 0:
		own = a.path[0]
	}
	return a.unused(r.Relname, own)
}

// unused refuses a name that a relation in another schema than own has.
func (a *analyzer) unused(name, own string) error {
	for _, r := range a.coverage.cat.byName[name] {
		if r.schema != own {
			return untraceable("a relation named %s exists as %s: another of the name can't be made while columns are masked", name, r)
		}
	}
	return nil
}

// index lets indexes be made on anything, but with conditions and expressions
// over clear columns only.
func (a *analyzer) index(s *pg_query.IndexStmt) error {
	_, columns, err := a.relation(s.Relation)
	if err != nil {
		return err
	}
	sc := newScope(nil, nil)
	sc.add([]*item{{name: s.Relation.Relname, columns: columns}}, columns)
	if err := a.control(s.WhereClause, sc, "CREATE INDEX … WHERE"); err != nil {
		return err
	}
	for _, n := range s.IndexParams {
		if err := a.control(n.GetIndexElem().GetExpr(), sc, "CREATE INDEX"); err != nil {
			return err
		}
	}
	return nil
}

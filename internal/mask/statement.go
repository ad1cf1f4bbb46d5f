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
		out, err := a.rows(s.CreateTableAsStmt.Query)
		if err != nil {
			return output{}, err
		}
		return output{}, a.create(s.CreateTableAsStmt.Into, out, s.CreateTableAsStmt.IfNotExists)
	case *pg_query.Node_ViewStmt:
		// A view that replaces a clear one shows its columns at once, before
		// its transaction ends and any catalog tells of it.
		if err := a.fresh(s.ViewStmt.View); err != nil {
			return output{}, err
		}
		if err := a.odd(s.ViewStmt.View); err != nil {
			return output{}, err
		}
		return output{}, a.clear(s.ViewStmt.Query)
	case *pg_query.Node_CreateStmt:
		if err := a.fresh(s.CreateStmt.Relation); err != nil {
			return output{}, err
		}
		if err := a.definition(s.CreateStmt.ProtoReflect()); err != nil {
			return output{}, err
		}
		return output{}, a.created(s.CreateStmt)
	case *pg_query.Node_CreateSeqStmt:
		return output{}, a.fresh(s.CreateSeqStmt.Sequence)
	case *pg_query.Node_AlterTableStmt:
		if err := a.definition(s.AlterTableStmt.ProtoReflect()); err != nil {
			return output{}, err
		}
		return output{}, a.alter(s.AlterTableStmt)
	case *pg_query.Node_CreateDomainStmt:
		return output{}, a.definition(s.CreateDomainStmt.ProtoReflect())
	case *pg_query.Node_CreateStatsStmt:
		return output{}, a.definition(s.CreateStatsStmt.ProtoReflect())
	case *pg_query.Node_ClusterStmt:
		if s.ClusterStmt.Relation == nil {
			return output{}, untraceable("CLUSTER can be let through with a table only: it sorts rows, maybe by masked columns")
		}
		return output{}, a.unmasked(s.ClusterStmt.Relation, "CLUSTER")
	case *pg_query.Node_VariableSetStmt:
		if s.VariableSetStmt.Kind == pg_query.VariableSetKind_VAR_RESET || s.VariableSetStmt.Kind == pg_query.VariableSetKind_VAR_RESET_ALL {
			return output{}, nil
		}
		return output{}, setting(s.VariableSetStmt.Name)
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
	case *pg_query.Node_TransactionStmt, *pg_query.Node_DiscardStmt,
		*pg_query.Node_DeallocateStmt, *pg_query.Node_ClosePortalStmt, *pg_query.Node_ConstraintsSetStmt,
		*pg_query.Node_ListenStmt, *pg_query.Node_UnlistenStmt, *pg_query.Node_NotifyStmt, *pg_query.Node_LockStmt,
		*pg_query.Node_TruncateStmt, *pg_query.Node_VacuumStmt, *pg_query.Node_ReindexStmt,
		*pg_query.Node_CheckPointStmt, *pg_query.Node_RefreshMatViewStmt,
		*pg_query.Node_DropStmt, *pg_query.Node_AlterSeqStmt, *pg_query.Node_GrantStmt,
		*pg_query.Node_GrantRoleStmt, *pg_query.Node_CommentStmt, *pg_query.Node_CreateEnumStmt,
		*pg_query.Node_AlterEnumStmt, *pg_query.Node_CompositeTypeStmt,
		*pg_query.Node_AlterOwnerStmt:
		return output{}, nil
	case *pg_query.Node_VariableShowStmt:
		return anyRows, nil
	case *pg_query.Node_DeclareCursorStmt:
		return a.declare(s.DeclareCursorStmt)
	case *pg_query.Node_FetchStmt:
		return output{}, nil
	case *pg_query.Node_PrepareStmt:
		return a.prepare(s.PrepareStmt)
	case *pg_query.Node_ExecuteStmt:
		return a.execute(s.ExecuteStmt)
	case *pg_query.Node_DoStmt, *pg_query.Node_CallStmt:
		return output{}, untraceable("DO and CALL run code that may read masked columns")
	}
	return output{}, untraceable("this kind of statement can't be let through while columns are masked")
}

// rows traces the query of CREATE TABLE AS.
func (a *analyzer) rows(n *pg_query.Node) (output, error) {
	if e := n.GetExecuteStmt(); e != nil {
		query, err := a.prepared(e)
		if err != nil {
			return output{}, err
		}
		n = query
	}
	return a.query(n, nil, nil)
}

// clear lets a query through none of whose columns is masked.
func (a *analyzer) clear(n *pg_query.Node) error {
	out, err := a.query(n, nil, nil)
	if err != nil {
		return err
	}
	for _, c := range out.columns {
		if c.taint.any() {
			return untraceable("masked column %s can't be shown by another view", c.taint.sources[0])
		}
	}
	return nil
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
	return a.altered(r)
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
	if a.local != nil {
		if err := a.write(tableWrite{table: s.Newname, odd: true}); err != nil {
			return err
		}
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
	case isTemporary(r):
		if a.local != nil {
			if t := a.local.Tables.lookup(r.Relname); t != nil && t.any().any() {
				return untraceable("a temporary table %s had masked values in this session: choose another name", r.Relname)
			}
		}
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
		// Temporary ones are other sessions', or hold nothing masked that isn't
		// known of (see temporary.go).
		if r.schema != own && !r.temporary() {
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
		if name := n.GetIndexElem().GetName(); name != "" {
			// Rows come in its order then.
			t, _ := sc.lookupColumn(name)
			if err := a.predicate(t, false, "CREATE INDEX"); err != nil {
				return err
			}
		}
	}
	return nil
}

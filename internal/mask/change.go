package mask

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// target finds the relation that a statement changes.
func (a *analyzer) target(r *pg_query.RangeVar) (*item, *relation, error) {
	rel, columns, err := a.relation(r)
	if err != nil {
		return nil, nil, err
	}
	i := &item{schema: rel.schema, name: r.Relname, columns: columns, rel: true}
	return aliased(i, r.Alias), rel, nil
}

// store refuses to put a masked value anywhere but where it comes from, or into
// a temporary table.
func (a *analyzer) store(t taint, r *pg_query.RangeVar, rel *relation, name string) error {
	if !t.any() {
		return nil
	}
	if s := t.sources[0]; t.plain && len(t.sources) == 1 && s.relation == rel && s.String() == rel.String()+"."+name {
		return nil
	}
	return a.stored(t, r, rel, name)
}

func (a *analyzer) insert(s *pg_query.InsertStmt, parent *scope, e *env) (output, error) {
	e, err := a.with(s.WithClause, e)
	if err != nil {
		return output{}, err
	}
	into, rel, err := a.target(s.Relation)
	if err != nil {
		return output{}, err
	}
	if s.SelectStmt != nil {
		out, err := a.query(s.SelectStmt, parent, e)
		if err != nil {
			return output{}, err
		}
		for i, c := range out.columns {
			name := ""
			switch {
			case i < len(s.Cols):
				name = s.Cols[i].GetResTarget().GetName()
			case len(s.Cols) == 0 && !out.open && i < len(rel.columns) && rel.schema != "pg_temp" && !rel.temporary():
				name = rel.columns[i].name
			}
			if c.taint.any() && s.OnConflictClause != nil {
				// Which rows conflict tells about the values.
				if err := a.predicate(c.taint, false, "ON CONFLICT"); err != nil {
					return output{}, err
				}
			}
			if err := a.store(c.taint, s.Relation, rel, name); err != nil {
				return output{}, err
			}
		}
	}
	sc := newScope(parent, e)
	sc.add([]*item{into}, into.columns)
	if c := s.OnConflictClause; c != nil {
		if err := a.onConflict(c, sc, into, s.Relation, rel); err != nil {
			return output{}, err
		}
	}
	return a.targets(s.ReturningList, sc)
}

func (a *analyzer) onConflict(c *pg_query.OnConflictClause, sc *scope, into *item, r *pg_query.RangeVar, rel *relation) error {
	both := newScope(sc.parent, sc.env)
	both.add([]*item{into}, into.columns)
	both.items = append(both.items, &item{name: "excluded", columns: into.columns})
	if err := a.control(c.WhereClause, both, "ON CONFLICT … WHERE"); err != nil {
		return err
	}
	if err := a.control(c.Infer.GetWhereClause(), both, "ON CONFLICT … WHERE"); err != nil {
		return err
	}
	for _, n := range c.Infer.GetIndexElems() {
		if err := a.control(n.GetIndexElem().GetExpr(), both, "ON CONFLICT"); err != nil {
			return err
		}
		if name := n.GetIndexElem().GetName(); name != "" {
			t, _ := into.column(name)
			if err := a.predicate(t, t.plain, "ON CONFLICT"); err != nil {
				return err
			}
		}
	}
	return a.assign(c.TargetList, both, r, rel)
}

// assign traces SET a = …, (b, c) = ….
func (a *analyzer) assign(list []*pg_query.Node, sc *scope, into *pg_query.RangeVar, rel *relation) error {
	for _, n := range list {
		r := n.GetResTarget()
		t, err := a.expr(r.GetVal(), sc)
		if err != nil {
			return err
		}
		if len(r.GetIndirection()) > 0 {
			i, err := a.all(sc, r.Indirection...)
			if err != nil {
				return err
			}
			t = t.join(i)
		}
		if err := a.store(t, into, rel, r.GetName()); err != nil {
			return err
		}
	}
	return nil
}

func (a *analyzer) update(s *pg_query.UpdateStmt, parent *scope, e *env) (output, error) {
	e, err := a.with(s.WithClause, e)
	if err != nil {
		return output{}, err
	}
	sc := newScope(parent, e)
	into, rel, err := a.target(s.Relation)
	if err != nil {
		return output{}, err
	}
	sc.add([]*item{into}, into.columns)
	if err := a.from(s.FromClause, sc); err != nil {
		return output{}, err
	}
	if err := a.assign(s.TargetList, sc, s.Relation, rel); err != nil {
		return output{}, err
	}
	if err := a.control(s.WhereClause, sc, "WHERE"); err != nil {
		return output{}, err
	}
	return a.targets(s.ReturningList, sc)
}

func (a *analyzer) delete(s *pg_query.DeleteStmt, parent *scope, e *env) (output, error) {
	e, err := a.with(s.WithClause, e)
	if err != nil {
		return output{}, err
	}
	sc := newScope(parent, e)
	into, _, err := a.target(s.Relation)
	if err != nil {
		return output{}, err
	}
	sc.add([]*item{into}, into.columns)
	if err := a.from(s.UsingClause, sc); err != nil {
		return output{}, err
	}
	if err := a.control(s.WhereClause, sc, "WHERE"); err != nil {
		return output{}, err
	}
	return a.targets(s.ReturningList, sc)
}

func (a *analyzer) merge(s *pg_query.MergeStmt, parent *scope, e *env) (output, error) {
	e, err := a.with(s.WithClause, e)
	if err != nil {
		return output{}, err
	}
	sc := newScope(parent, e)
	into, rel, err := a.target(s.Relation)
	if err != nil {
		return output{}, err
	}
	// RETURNING * yields the source's columns first.
	if err := a.from([]*pg_query.Node{s.SourceRelation}, sc); err != nil {
		return output{}, err
	}
	sc.add([]*item{into}, into.columns)
	if err := a.control(s.JoinCondition, sc, "MERGE … ON"); err != nil {
		return output{}, err
	}
	for _, n := range s.MergeWhenClauses {
		w := n.GetMergeWhenClause()
		if err := a.control(w.GetCondition(), sc, "MERGE … WHEN"); err != nil {
			return output{}, err
		}
		if w.GetCommandType() != pg_query.CmdType_CMD_INSERT {
			if err := a.assign(w.GetTargetList(), sc, s.Relation, rel); err != nil {
				return output{}, err
			}
			continue
		}
		for i, v := range w.GetValues() {
			t, err := a.expr(v, sc)
			if err != nil {
				return output{}, err
			}
			name := ""
			switch {
			case i < len(w.TargetList):
				name = w.TargetList[i].GetResTarget().GetName()
			case len(w.TargetList) == 0 && i < len(rel.columns) && rel.schema != "pg_temp" && !rel.temporary():
				name = rel.columns[i].name
			}
			if err := a.store(t, s.Relation, rel, name); err != nil {
				return output{}, err
			}
		}
	}
	return a.targets(s.ReturningList, sc)
}

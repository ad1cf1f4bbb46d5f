package mask

import (
	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// Later tells that the statement yields the rows of a cursor that was declared
// before, so that they are covered by the plan of its DECLARE.
func (p *Plan) Later() bool { return p.later }

// declare traces a cursor. Its plan covers what FETCH yields.
func (a *analyzer) declare(s *pg_query.DeclareCursorStmt) (output, error) {
	if s.Query.GetSelectStmt().GetIntoClause() != nil {
		return output{}, untraceable("DECLARE … SELECT INTO can't be traced to masked columns")
	}
	return a.query(s.Query, nil, nil)
}

// prepare traces a statement that is to be executed. It is traced again when it
// is, for its names may mean something else by then.
func (a *analyzer) prepare(s *pg_query.PrepareStmt) (output, error) {
	writes := len(a.writes)
	out, err := a.statement(s.Query)
	a.writes = a.writes[:writes] // it doesn't run now
	return out, err
}

// execute traces EXECUTE as the statement that it stands for.
func (a *analyzer) execute(s *pg_query.ExecuteStmt) (output, error) {
	query, err := a.prepared(s)
	if err != nil {
		return output{}, err
	}
	return a.statement(query)
}

func (a *analyzer) prepared(s *pg_query.ExecuteStmt) (*pg_query.Node, error) {
	if _, err := a.all(newScope(nil, nil), s.Params...); err != nil {
		return nil, err
	}
	if a.local != nil && a.local.Prepared != nil {
		if stmt := a.local.Prepared(s.Name); stmt != nil && stmt.Tree.GetPrepareStmt() != nil {
			return stmt.Tree.GetPrepareStmt().Query, nil
		}
	}
	return nil, untraceable("prepared statement %q isn't known to be one that SQL's PREPARE has made in this session", s.Name)
}

package mask

import (
	"fmt"
	"slices"
	"weak"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

// Untraceable says that a statement's result can't be covered for certain, so
// that the statement must not run.
type Untraceable struct {
	Message string // for the client
	Err     error  // cause, may be nil
	// Unknown is the name of a relation that the catalog doesn't have, or
	// empty. A caller whose catalog may be old loads a new one and asks again.
	Unknown string
}

// Error implements error.
func (e *Untraceable) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Untraceable) Unwrap() error { return e.Err }

func untraceable(format string, args ...any) *Untraceable {
	return &Untraceable{Message: fmt.Sprintf(format, args...)}
}

// Plan is how the result of one statement is covered. It is immutable.
type Plan struct {
	rules    *Rules
	coverage *coverage // nil without column masks
	// columns of the result; meaningless if open.
	columns []planColumn
	// open: how many columns come isn't known, and none is fed by a masked one.
	open      bool
	sensitive bool
	copy      *copyPlan
	later     bool // see Later
	writes    []tableWrite
	made      bool // it reads a table that the catalog may not have yet
	asks      []Question
}

type planColumn struct {
	name  string // expected in the RowDescription; empty: not known
	cover *cover
	typ   uint32 // OID, of a masked column as it stands; 0: any
}

// cover is what is done to each value of a column.
type cover struct {
	with  policy.Transform
	label string
	// derived: the value is made from masked ones. Then also whether it is NULL,
	// or how many elements it has, would tell about them.
	derived bool
}

func coverOf(t taint) *cover {
	if !t.any() {
		return nil
	}
	return &cover{with: t.transform(), label: t.sources[0].label, derived: !t.plain}
}

// Masked tells whether any column of the result is covered by a column mask.
func (p *Plan) Masked() bool {
	return slices.ContainsFunc(p.columns, func(c planColumn) bool { return c.cover != nil })
}

// Sensitive tells whether the statement touches a relation that has masked
// columns. The text of its errors and notices may then quote a masked value,
// as in «invalid input syntax for type integer: "…"» or «Failing row contains
// (…)», and must not be shown; the SQLSTATE may.
func (p *Plan) Sensitive() bool { return p.sensitive }

// planned is what Rules remember of a statement.
type planned struct {
	cat  *Catalog
	path []string
	plan *Plan
	err  error
}

// Plan traces the statement's output columns to their sources. searchPath is
// the session's, without "$user" (see [SearchPath]); nil means that it isn't
// known, and then bare names must be unique in the database.
//
// Errors are [*Untraceable]. Without column masks the catalog may be nil, and
// nothing is refused but what detectors can't read.
//
// Results are remembered per statement for the catalog and path that it was
// asked for last.
func (r *Rules) Plan(stmt *pgsql.Statement, cat *Catalog, searchPath []string) (*Plan, error) {
	return r.PlanIn(stmt, cat, searchPath, nil)
}

// PlanIn is Plan in a session that has temporary tables and prepared statements
// of its own.
func (r *Rules) PlanIn(stmt *pgsql.Statement, cat *Catalog, searchPath []string, local *Local) (*Plan, error) {
	if !r.NeedsCatalog() {
		return r.planDetectors(stmt)
	}
	if cat == nil {
		return nil, untraceable("the target's catalog isn't known, so nothing can be traced to masked columns")
	}
	if local != nil && local.Tables != nil || named(stmt.Tree) {
		return r.trace(stmt, cat, searchPath, local) // it holds for this session alone
	}
	key := weak.Make(stmt)
	if p, ok := r.plans.Get(key); ok && p.cat == cat && slices.Equal(p.path, searchPath) && (p.path == nil) == (searchPath == nil) {
		return p.plan, p.err
	}
	plan, err := r.trace(stmt, cat, searchPath, local)
	r.plans.Add(key, &planned{cat: cat, path: slices.Clone(searchPath), plan: plan, err: err})
	return plan, err
}

// Uncovered plans a statement as if no column were masked: detectors alone look at what
// it returns. It is for what can't be traced, and people have approved nevertheless.
func (r *Rules) Uncovered(stmt *pgsql.Statement) (*Plan, error) { return r.planDetectors(stmt) }

func (r *Rules) planDetectors(stmt *pgsql.Statement) (*Plan, error) {
	if r.detectors != 0 {
		if err := readableCopy(stmt); err != nil {
			return nil, err
		}
	}
	return &Plan{rules: r, open: true}, nil
}

// readableCopy refuses COPY … TO STDOUT in binary format: its stream has
// lengths in it, so that nothing found in it could be replaced.
func readableCopy(stmt *pgsql.Statement) error {
	if stmt.Copy != pgsql.CopyOut {
		return nil
	}
	for _, o := range stmt.Tree.GetCopyStmt().Options {
		d := o.GetDefElem()
		if d.GetDefname() == "format" && d.GetArg().GetString_().GetSval() != "text" && d.GetArg().GetString_().GetSval() != "csv" {
			return readableCopyError()
		}
	}
	return nil
}

func readableCopyError() error {
	return untraceable("COPY TO STDOUT is let through in the formats text and csv only, since its content is looked at")
}

// named tells whether a statement runs what was prepared before.
func named(n *pg_query.Node) bool {
	switch s := n.GetNode().(type) {
	case *pg_query.Node_ExecuteStmt:
		return true
	case *pg_query.Node_ExplainStmt:
		return named(s.ExplainStmt.Query)
	case *pg_query.Node_CreateTableAsStmt:
		return named(s.CreateTableAsStmt.Query)
	case *pg_query.Node_PrepareStmt:
		return named(s.PrepareStmt.Query)
	}
	return false
}

func (r *Rules) trace(stmt *pgsql.Statement, cat *Catalog, searchPath []string, local *Local) (*Plan, error) {
	a := &analyzer{coverage: r.coverageOf(cat), path: searchPath, runtime: searchPath, local: local}
	out, err := a.statement(stmt.Tree)
	if err != nil {
		return nil, err
	}
	if a.sideEffect != "" && a.readMasked {
		return nil, untraceable("%s can't be called in a statement that reads masked columns", a.sideEffect)
	}
	p := &Plan{rules: r, coverage: a.coverage, open: out.open, sensitive: a.sensitive, asks: a.asks, writes: a.writes, made: a.made}
	p.later = stmt.Tree.GetFetchStmt() != nil
	if stmt.Copy == pgsql.CopyOut {
		p.copy, err = r.planCopy(stmt.Tree.GetCopyStmt(), out)
		p.open = true
		return p, err
	}
	for _, c := range out.columns {
		if c.taint.any() && out.open {
			return nil, untraceable("column %q of the result is masked, and can't be told from the others", c.name)
		}
		p.columns = append(p.columns, planColumn{name: c.expect, cover: coverOf(c.taint), typ: plainType(c.taint)})
	}
	if out.open {
		p.columns = nil
	}
	return p, nil
}

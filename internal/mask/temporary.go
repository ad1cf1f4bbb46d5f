package mask

import (
	"maps"
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"chaperone.dev/chaperone/internal/pgsql"
)

// Local is what only one session knows, beside the catalog that all share.
type Local struct {
	Tables *Temporaries
	// Prepared is what SQL's PREPARE has made of a name, nil if nothing is known
	// of it.
	Prepared func(name string) *pgsql.Statement
}

// Temporaries are the temporary tables of a session, and which of their columns
// hold values of masked columns. They are immutable; nil is none.
//
// They err toward too much: what a table once held it holds for the rest of the
// session, whether or not the statement that put it there succeeded.
type Temporaries struct{ tables map[string]*temporary }

type temporary struct {
	// columns, where made: the table was made in this session, and what the
	// catalog says of it may be older.
	columns []tableColumn
	made    bool
	// odd: the name may stand for something else than a table that was made once, by
	// its columns or a query: an heir, a view, a table that was altered.
	odd    bool
	masked map[string]taint // by column
	all    taint            // of every column
}

type tableColumn struct {
	column
	generated bool
}

// maxTemporaries bounds the temporary tables that are remembered in a session.
const maxTemporaries = 256

// tableWrite is what a statement does to a temporary table.
type tableWrite struct {
	table   string
	odd     bool          // it may be something else from now on
	columns []tableColumn // of one that is made
	made    bool
	masked  map[string]taint // what is put into it
	all     taint
}

func (t *Temporaries) lookup(name string) *temporary {
	if t == nil {
		return nil
	}
	return t.tables[name]
}

// With adds what a statement of the plan does, once it may run.
func (t *Temporaries) With(p *Plan) *Temporaries {
	if len(p.writes) == 0 {
		return t
	}
	next := &Temporaries{tables: map[string]*temporary{}}
	if t != nil {
		maps.Copy(next.tables, t.tables)
	}
	for _, w := range p.writes {
		was := next.tables[w.table]
		now := &temporary{masked: map[string]taint{}}
		if was != nil {
			now.columns, now.made, now.odd, now.all = was.columns, was.made, was.odd, was.all
			maps.Copy(now.masked, was.masked)
		}
		if w.odd {
			now.columns, now.made, now.odd = nil, false, true
		}
		if w.made {
			// Where it was made before, this may fail and leave that as it was.
			now.columns, now.made, now.odd = w.columns, true, now.odd || was != nil && (was.made || was.odd)
		}
		for name, m := range w.masked {
			now.masked[name] = now.masked[name].oneOf(m)
		}
		now.all = now.all.join(w.all)
		next.tables[w.table] = now
	}
	return next
}

// Redacted is for other rules than those that the values were traced by: what
// was masked is redacted.
func (t *Temporaries) Redacted() *Temporaries {
	if t == nil {
		return nil
	}
	next := &Temporaries{tables: map[string]*temporary{}}
	for name, was := range t.tables {
		now := *was
		now.masked = map[string]taint{}
		for column, m := range was.masked {
			now.masked[column] = m.derived()
		}
		next.tables[name] = &now
	}
	return next
}

// any is the taint of all that the table holds.
func (t *temporary) any() taint {
	sum := t.all
	for _, m := range t.masked {
		sum = sum.join(m)
	}
	return sum
}

// taintOf is the taint of one column beside that which it has by itself.
func (t *temporary) taintOf(name string, generated bool) taint {
	if generated { // from any of the others
		return t.any().derived()
	}
	return t.masked[name].oneOf(t.all)
}

// relation is a table that was made in the session.
func (t *temporary) relation(name string) (*relation, []column) {
	rel := &relation{schema: "pg_temp", name: name, kind: 'r'}
	columns := make([]column, len(t.columns))
	for i, c := range t.columns {
		rel.columns = append(rel.columns, catalogColumn{name: c.name, num: uint16(i + 1), generated: c.generated})
		columns[i] = c.column
		columns[i].taint = t.taintOf(c.name, c.generated)
		if c.inferred { // it may be another's
			columns[i].taint = t.any()
		}
	}
	return rel, columns
}

// mayBeTemporary tells whether a name may be that of one of the session's
// temporary tables.
func mayBeTemporary(schema string) bool {
	return schema == "" || schema == "pg_temp" || strings.HasPrefix(schema, "pg_temp_")
}

// isTemporary tells whether a statement makes a temporary table by its name.
func isTemporary(r *pg_query.RangeVar) bool {
	return r.GetRelpersistence() == "t" || r.GetSchemaname() == "pg_temp"
}

// temporary finds the temporary table that a name may stand for, nil where the
// catalog alone tells.
func (a *analyzer) temporary(r *pg_query.RangeVar, rel *relation) (*relation, []column, error) {
	if a.local == nil || !mayBeTemporary(r.Schemaname) {
		return nil, nil, nil
	}
	t := a.local.Tables.lookup(r.Relname)
	switch {
	case t == nil:
		return nil, nil, nil
	case rel != nil && !rel.temporary() && !t.made && !t.any().any():
		return nil, nil, nil
	case rel != nil && !rel.temporary():
		return nil, nil, untraceable("%s may be the session's temporary table or %s; qualify it", r.Relname, rel)
	case t.made:
		a.made = true
		rel, columns := t.relation(r.Relname)
		return rel, columns, nil
	case rel == nil:
		return nil, nil, nil
	}
	columns := columnsOf(rel, a.taintsOf(rel))
	for i := range columns {
		columns[i].taint = columns[i].taint.oneOf(t.taintOf(columns[i].name, rel.columns[i].generated))
	}
	return rel, columns, nil
}

func (a *analyzer) write(w tableWrite) error {
	if a.local == nil {
		return untraceable("temporary tables can't be followed here")
	}
	if known := a.local.Tables; known != nil && len(known.tables) >= maxTemporaries && known.lookup(w.table) == nil {
		return untraceable("the session has made more than %d temporary tables; masked values can't be followed any further", maxTemporaries)
	}
	a.writes = append(a.writes, w)
	return nil
}

// altered notes that a table which is known to be temporary becomes another one.
func (a *analyzer) altered(r *pg_query.RangeVar) error {
	if a.local == nil || r == nil || !mayBeTemporary(r.Schemaname) || a.local.Tables.lookup(r.Relname) == nil {
		return nil
	}
	return a.write(tableWrite{table: r.Relname, odd: true})
}

// odd notes that a name which may be a temporary one is given to something that isn't
// followed. Without TEMP it may be where the search path leads there.
func (a *analyzer) odd(r *pg_query.RangeVar) error {
	if a.local == nil || r == nil {
		return nil
	}
	leads := r.Schemaname == "" && (a.path == nil || slices.ContainsFunc(a.path, func(s string) bool { return s == "pg_temp" || strings.HasPrefix(s, "pg_temp_") }))
	if !isTemporary(r) && !strings.HasPrefix(r.Schemaname, "pg_temp_") && !leads {
		return nil
	}
	return a.write(tableWrite{table: r.Relname, odd: true})
}

// create judges a table that is made of a query's rows. Masked values may go
// into a temporary one, where they are followed.
func (a *analyzer) create(into *pg_query.IntoClause, out output, ifNotExists bool) error {
	out = renamed(out, into.GetColNames())
	var masked taint
	for _, c := range out.columns {
		masked = masked.join(c.taint)
	}
	if !isTemporary(into.GetRel()) {
		if masked.any() {
			return untraceable("masked column %s can't be copied into another table, but into a temporary one", masked.sources[0])
		}
		return a.odd(into.GetRel())
	}
	name := into.Rel.Relname
	if out.open || ifNotExists {
		if masked.any() {
			return untraceable("masked column %s can't be followed into table %s", masked.sources[0], name)
		}
		return a.odd(into.Rel)
	}
	w := tableWrite{table: name, made: true, masked: map[string]taint{}}
	for _, c := range out.columns {
		w.columns = append(w.columns, tableColumn{column: column{name: c.name, inferred: c.inferred}})
		switch {
		case !c.taint.any():
		case c.inferred || c.name == "":
			w.all = w.all.join(c.taint)
		default:
			w.masked[c.name] = w.masked[c.name].oneOf(c.taint)
		}
	}
	if masked.any() || a.local != nil {
		return a.write(w)
	}
	return nil
}

// created notes a temporary table that is made by its columns.
func (a *analyzer) created(s *pg_query.CreateStmt) error {
	if a.local == nil || !isTemporary(s.Relation) {
		return a.odd(s.Relation)
	}
	w := tableWrite{table: s.Relation.Relname, made: true}
	for _, n := range s.TableElts {
		d := n.GetColumnDef()
		if d == nil && n.GetConstraint() != nil {
			continue
		}
		generated := slices.ContainsFunc(d.GetConstraints(), func(c *pg_query.Node) bool {
			return c.GetConstraint().GetContype() == pg_query.ConstrType_CONSTR_GENERATED
		})
		w.columns = append(w.columns, tableColumn{column: column{name: d.GetColname()}, generated: generated})
		w.made = w.made && d != nil // LIKE brings columns that aren't named
	}
	if !w.made || s.IfNotExists || len(s.InhRelations) > 0 || s.OfTypename != nil || s.Partbound != nil || s.Partspec != nil {
		return a.odd(s.Relation)
	}
	return a.write(w)
}

// stored judges masked values that are put into a table. They can be followed
// into a temporary one that nothing else shows the rows of, which holds for those that
// the session has made once. An empty column is one that isn't known.
func (a *analyzer) stored(t taint, r *pg_query.RangeVar, rel *relation, column string) error {
	switch {
	case a.local == nil:
		return untraceable("masked column %s can't be copied into %s", t.sources[0], rel)
	case !rel.temporary() && rel.schema != "pg_temp":
		return untraceable("masked column %s can't be copied into %s", t.sources[0], rel)
	case r.Schemaname != "pg_temp":
		return untraceable("masked column %s can be copied into temporary table %s by the name pg_temp.%s only", t.sources[0], r.Relname, r.Relname)
	}
	if known := a.local.Tables.lookup(r.Relname); known == nil || !known.made || known.odd {
		return untraceable("masked column %s can't be copied into %s: it isn't a table that was made in this session, once, and not altered", t.sources[0], r.Relname)
	}
	w := tableWrite{table: r.Relname}
	if column == "" {
		w.all = t.derived()
	} else {
		w.masked = map[string]taint{column: t.derived()}
	}
	return a.write(w)
}

package session

import (
	"context"
	"fmt"
	"slices"
	"sync"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"chaperone.dev/chaperone/internal/mask"
	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

// namedKey is the name of what a session has made in SQL: a cursor, by DECLARE, or
// a statement, by PREPARE.
type namedKey struct {
	cursor bool
	name   string
}

// named is what was made.
type named struct {
	seq       uint64
	statement *pgsql.Statement // DECLARE or PREPARE
	plan      *mask.Plan       // of the statement, by these rules
	rules     *mask.Rules
}

// maxNamed bounds the cursors and statements that a session may have in SQL.
const maxNamed = 1000

// names follows what the names of cursors and prepared statements stand for. The
// goroutine that reads the client notes what is on its way to the server, the one
// that reads the upstream what has come true: only that is relied on. The protocol's own
// messages use the same names, and void what was noted before they came.
type names struct {
	mu    sync.Mutex
	seq   uint64
	sent  map[namedKey]*named // the last that was sent
	known map[namedKey]*named // what the server has, as far as its answers tell
	void  map[namedKey]uint64 // what was noted up to then isn't relied on
	voids uint64              // the same, for all names
}

func newNames() *names {
	return &names{sent: map[namedKey]*named{}, known: map[namedKey]*named{}, void: map[namedKey]uint64{}}
}

// usable is called with the lock held.
func (n *names) usable(key namedKey, e *named) bool {
	return e != nil && e.seq > n.void[key] && e.seq > n.voids
}

// send notes a DECLARE or PREPARE that goes to the server.
func (n *names) send(key namedKey, e *named) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.sent) >= maxNamed && n.sent[key] == nil {
		return &mask.Untraceable{Message: fmt.Sprintf("the session has made %d cursors and prepared statements in SQL; close some", maxNamed)}
	}
	n.seq++
	e.seq = n.seq
	n.sent[key] = e
	return nil
}

// last is what a name stands for once the server has done all that was sent, and
// whether it has done so. It is nil where that isn't known.
func (n *names) last(key namedKey) (e *named, settled bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e = n.sent[key]
	if e == nil {
		e = n.known[key]
	}
	if !n.usable(key, e) {
		return nil, false
	}
	return e, n.known[key] == e
}

// now is what a name stands for at the server, nil where that isn't known.
func (n *names) now(key namedKey) *named {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.known[key]; n.usable(key, e) {
		return e
	}
	return nil
}

// forget says that a name may stand for something else from now on.
func (n *names) forget(key namedKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sent[key] != nil || n.known[key] != nil {
		n.void[key] = n.seq
	}
}

// forgetAll says so of all names.
func (n *names) forgetAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.voids = n.seq
}

// effect is what a statement does to names when it succeeds.
type effect struct {
	kind effectKind
	key  namedKey
	made *named
}

type effectKind uint8

const (
	effectNone effectKind = iota
	effectMake
	effectClose
	effectCloseAll // of the key's kind
	effectDiscard
)

// came notes that a statement has succeeded, or that it never will.
func (n *names) came(e effect, succeeded bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case e.kind == effectMake && succeeded:
		n.known[e.key] = e.made
	case e.kind == effectMake:
		if n.sent[e.key] == e.made && n.known[e.key] != e.made {
			delete(n.sent, e.key)
		}
	case !succeeded:
	case e.kind == effectClose:
		n.gone(e.key)
	case e.kind == effectCloseAll || e.kind == effectDiscard:
		for key := range n.known {
			if e.kind == effectDiscard || key.cursor == e.key.cursor {
				n.gone(key)
			}
		}
	}
}

// gone is called with the lock held.
func (n *names) gone(key namedKey) {
	if n.sent[key] == n.known[key] {
		delete(n.sent, key)
		delete(n.void, key)
	}
	delete(n.known, key)
}

// effectOf is what a statement does to names. What it makes is filled in later.
func effectOf(statement *pgsql.Statement) effect {
	switch s := statement.Tree.GetNode().(type) {
	case *pg_query.Node_DeclareCursorStmt:
		return effect{kind: effectMake, key: namedKey{true, s.DeclareCursorStmt.Portalname}}
	case *pg_query.Node_PrepareStmt:
		return effect{kind: effectMake, key: namedKey{false, s.PrepareStmt.Name}}
	case *pg_query.Node_ClosePortalStmt:
		if s.ClosePortalStmt.Portalname == "" {
			return effect{kind: effectCloseAll, key: namedKey{cursor: true}}
		}
		return effect{kind: effectClose, key: namedKey{true, s.ClosePortalStmt.Portalname}}
	case *pg_query.Node_DeallocateStmt:
		if s.DeallocateStmt.Name == "" {
			return effect{kind: effectCloseAll}
		}
		return effect{kind: effectClose, key: namedKey{false, s.DeallocateStmt.Name}}
	case *pg_query.Node_DiscardStmt:
		if s.DiscardStmt.Target == pg_query.DiscardMode_DISCARD_ALL {
			return effect{kind: effectDiscard}
		}
	}
	return effect{}
}

// Named tells that a message of the protocol makes or closes a prepared statement
// ('S') or a portal ('P') of that name. It implements [postgres.NameWatcher].
func (g *gate) Named(kind byte, name string) { g.names.forget(namedKey{kind == 'P', name}) }

// use is what a statement runs that was prepared before.
type use struct {
	statement int
	key       namedKey
	prepared  *named
}

// trace plans a statement of a string.
func (g *gate) trace(ctx context.Context, made *plan, i int, statement *pgsql.Statement, tables *mask.Temporaries) (*mask.Plan, error) {
	local := &mask.Local{Tables: tables, Prepared: func(name string) *pgsql.Statement {
		key := namedKey{name: name}
		prepared, _ := g.names.last(key)
		if prepared == nil {
			return nil
		}
		if !slices.ContainsFunc(made.uses, func(u use) bool { return u.statement == i && u.key == key }) {
			made.uses = append(made.uses, use{i, key, prepared})
		}
		return prepared.statement
	}}
	return g.catalog.plan(ctx, g.rules(), statement, local)
}

// follow notes what a statement that was planned does to names, what it takes to run
// it, and refuses what can't be followed.
func (g *gate) follow(made *plan, i int, statement *pgsql.Statement) error {
	planned := made.masks[i]
	for _, q := range planned.Asks() {
		needed, err := g.mayDecide(q)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(made.asked, func(n policy.Needed) bool { return keyOf(n) == keyOf(needed) }) {
			made.asked = append(made.asked, needed)
		}
	}
	if planned.Later() {
		key := namedKey{true, statement.Tree.GetFetchStmt().GetPortalname()}
		if made.cursors == nil {
			made.cursors = map[int]string{}
		}
		made.cursors[i] = key.name
		within := slices.ContainsFunc(made.effects, func(e effect) bool { return e.kind == effectMake && e.key == key })
		if e, _ := g.names.last(key); e == nil && !within {
			return &mask.Untraceable{Message: fmt.Sprintf("cursor %q isn't known to be one that DECLARE has made in this session", key.name)}
		}
	}
	for _, u := range made.uses {
		if u.statement != i || showsRows(statement, u.prepared.statement) {
			continue
		}
		if _, settled := g.names.last(u.key); !settled {
			return &mask.Untraceable{Message: fmt.Sprintf("prepared statement %q may still become another one; wait for the answer to PREPARE", u.key.name)}
		}
	}
	e := effectOf(statement)
	if e.kind == effectMake {
		e.made = &named{statement: statement, plan: planned, rules: g.rules()}
	}
	if e.kind != effectNone && made.effects == nil {
		made.effects = make([]effect, i, len(made.masks))
	}
	if made.effects != nil {
		made.effects = append(made.effects, e)
	}
	return nil
}

// showsRows tells whether EXECUTE only shows rows: what the name stands for is then
// found out again before the first of them is shown.
func showsRows(statement, prepared *pgsql.Statement) bool {
	query := prepared.Tree.GetPrepareStmt().GetQuery().GetSelectStmt()
	return statement.Tree.GetExecuteStmt() != nil && query != nil && query.IntoClause == nil && prepared.Facts("").ReadOnly
}

// mayDecide is the approval that it takes for masked columns to decide over rows.
func (g *gate) mayDecide(q mask.Question) (policy.Needed, error) {
	for i := range g.connection.set.Masks {
		document := &g.connection.set.Masks[i]
		if document.Metadata.Name != q.Mask || document.Spec.Approval == nil {
			continue
		}
		key := predicatesKey(q.Mask)
		return policy.Needed{Policy: key.policy, Rule: key.rule, Spec: document.Spec.Approval, Message: q.Why}, nil
	}
	return policy.Needed{}, &mask.Untraceable{Message: q.Why + ", and nobody can be asked"}
}

// send notes what a string that goes to the server does there. What it makes is
// another thing each time.
func (g *gate) send(p *plan) ([]effect, error) {
	tables := g.tables
	for _, m := range p.masks {
		tables = tables.With(m)
	}
	if tables != g.tables {
		g.tables = tables
		clear(g.read)
	}
	if len(p.untraced) > 0 {
		g.names.forgetAll() // code that isn't known may do anything to them
	}
	if len(p.effects) == 0 {
		return nil, nil
	}
	effects := slices.Clone(p.effects)
	for i := range effects {
		if effects[i].kind != effectMake {
			continue
		}
		made := *effects[i].made
		effects[i].made = &made
		if err := g.names.send(effects[i].key, &made); err != nil {
			return nil, err
		}
	}
	return effects, nil
}

// settle notes that the first n statements of the string have succeeded.
func (c *command) settle(n int) {
	for ; c.done < min(n, len(c.effects)); c.done++ {
		c.gate.names.came(c.effects[c.done], true)
	}
}

// shown is the plan that covers what the i-th statement shows. What it runs that was
// made before must be what the server has by that name now.
func (c *command) shown(i int) (*mask.Plan, error) {
	planned, err := c.planOf(i)
	if err != nil {
		return nil, err
	}
	for _, u := range c.plan.uses {
		if u.statement == i && c.gate.names.now(u.key) != u.prepared {
			return nil, &mask.Untraceable{Message: fmt.Sprintf("prepared statement %q has become another one meanwhile; try again", u.key.name)}
		}
	}
	if !planned.Later() {
		return planned, nil
	}
	name := c.plan.cursors[i]
	cursor := c.gate.names.now(namedKey{true, name})
	switch {
	case cursor == nil:
		return nil, &mask.Untraceable{Message: fmt.Sprintf("cursor %q isn't known to be one that DECLARE has made in this session", name)}
	case cursor.rules != c.gate.rules():
		return nil, &mask.Untraceable{Message: fmt.Sprintf("cursor %q was declared under other masks than hold now; declare it again", name)}
	}
	return cursor.plan, nil
}

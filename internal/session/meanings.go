package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/policy"
)

// meanings keeps what names stand for in the databases of targets, as far as facts
// of statements depend on it, for all sessions of a node. What one account
// finds in PostgreSQL's own tables, all do.
type meanings struct {
	mu    sync.Mutex
	known map[meaningKey]*meaning
}

type meaningKey struct{ target, address, database string }

type meaning struct {
	// Which reading it is, when it was last made sure that it still holds, and when
	// that failed, in ns since 1970.
	version, readAt, failedAt atomic.Int64

	mu          sync.Mutex // held while it is read, so that one session reads for all
	fingerprint string
	names       *databaseNames
}

// meaningPatience bounds how long it takes to read the names of a large database.
const meaningPatience = time.Minute

func newMeanings() *meanings { return &meanings{known: map[meaningKey]*meaning{}} }

// session is what names stand for as one session uses it.
func (m *meanings) session(conn *connection) *sessionMeaning {
	key := meaningKey{conn.match.Target.Metadata.Name, conn.origin.Destination.String(), conn.client.Startup().Database}
	m.mu.Lock()
	defer m.mu.Unlock()
	entry, ok := m.known[key]
	if !ok {
		if len(m.known) >= maxCatalogs {
			clear(m.known)
		}
		entry = &meaning{}
		m.known[key] = entry
	}
	return &sessionMeaning{entry: entry, connection: conn}
}

// sessionMeaning is what names stand for in the database of a session.
type sessionMeaning struct {
	entry      *meaning
	connection *connection
	version    int64       // that the session's facts were made with; 0: with none
	asked      *policy.Set // that these tell about, see needs
	asks       bool
	relations  bool
}

// changed tells whether facts that the session has made may be others now.
func (s *sessionMeaning) changed() bool {
	return s.version != 0 && (s.entry.version.Load() != s.version || s.old())
}

// old tells whether the names are to be read again.
func (s *sessionMeaning) old() bool {
	since := func(at *atomic.Int64) time.Duration { return time.Since(time.Unix(0, at.Load())) }
	return since(&s.entry.readAt) > catalogAge && since(&s.entry.failedAt) > catalogPause
}

// invalidate makes the next statement read the names again.
func (s *sessionMeaning) invalidate() { s.entry.readAt.Store(0) }

// current are the names as they are now. Where they can't be read again, they are
// those of before: a target, or an account, that takes no further connection goes on
// serving those that it has.
func (s *sessionMeaning) current(ctx context.Context) (*databaseNames, error) {
	asks, relations := s.needs()
	if !asks {
		s.version = 0
		return &databaseNames{}, nil
	}
	e := s.entry
	e.mu.Lock()
	defer e.mu.Unlock()
	lacking := e.names == nil || relations && e.names.relations == nil
	if lacking || s.old() {
		if err := s.read(ctx, relations); err != nil {
			c := s.connection
			err = fmt.Errorf("reading what names mean in %s: %w", c.match.Target.Metadata.Name, err)
			if lacking {
				return nil, err
			}
			e.failedAt.Store(time.Now().UnixNano())
			c.server.opts.Log.Warn().Err(err).Msg("statements are read by the names of before")
		}
	}
	s.version = e.version.Load()
	return e.names, nil
}

// prepare reads the names if nobody has yet, before the session takes a connection
// of its account, which may have no other. What fails is said at the first statement.
func (s *sessionMeaning) prepare(ctx context.Context) {
	if s.entry.version.Load() != 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.connection.server.opts.Limits.ConnectTimeout)/4)
	defer cancel()
	_, _ = s.current(ctx)
}

// needs finds out what the policies in force ask for: anything that names decide
// (statement.readOnly, statement.relations), and the second of these.
func (s *sessionMeaning) needs() (asks, relations bool) {
	if set := s.connection.set; set != s.asked {
		s.asked, s.asks, s.relations = set, false, false
		for i := range set.Policies {
			for _, rule := range set.Policies[i].Spec.Rules {
				s.relations = s.relations || strings.Contains(rule.When, "relations")
				s.asks = s.asks || s.relations || strings.Contains(rule.When, "readOnly")
			}
		}
	}
	return s.asks, s.relations
}

// read reads the names over a connection of its own, unless they are the same as
// before.
func (s *sessionMeaning) read(ctx context.Context, relations bool) error {
	c, e := s.connection, s.entry
	ctx, cancel := context.WithTimeout(ctx, meaningPatience)
	defer cancel()
	connecting, cancel := context.WithTimeout(ctx, time.Duration(c.server.opts.Limits.ConnectTimeout))
	defer cancel()
	options, err := c.upstream(map[string]string{"application_name": "chaperone", "search_path": "pg_catalog"})
	if err != nil {
		return err
	}
	conn, err := postgres.ConnectOwn(connecting, options)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var fingerprint string
		if err := tx.QueryRow(ctx, fingerprintSQL, relations).Scan(&fingerprint); err != nil {
			return err
		}
		if e.names == nil || relations && e.names.relations == nil || fingerprint != e.fingerprint {
			names, err := readNames(ctx, tx, relations)
			if err != nil {
				return err
			}
			e.names, e.fingerprint = names, fingerprint
			e.version.Add(1)
		}
		e.readAt.Store(time.Now().UnixNano())
		return nil
	})
}

// databaseNames are the names of one database. It implements [pgsql.Names], and is
// immutable.
type databaseNames struct {
	functions [pgsql.CallValue + 1]map[string]bool
	operators map[string]bool
	types     map[string]bool
	views     map[pgsql.Relation]bool
	relations map[string][]string // schemas by name; nil: they weren't asked for
}

var _ pgsql.Names = (*databaseNames)(nil)

// ChangingFunction implements [pgsql.Names].
func (n *databaseNames) ChangingFunction(name string, call pgsql.Call) bool {
	return n.functions[call][name]
}

// ChangingOperator implements [pgsql.Names].
func (n *databaseNames) ChangingOperator(name string) bool { return n.operators[name] }

// ChangingType implements [pgsql.Names].
func (n *databaseNames) ChangingType(name string) bool { return n.types[name] }

// ChangingView implements [pgsql.Names].
func (n *databaseNames) ChangingView(r pgsql.Relation) bool { return n.views[r] }

// Relations implements [pgsql.Names].
func (n *databaseNames) Relations(name string) []string { return n.relations[name] }

// maxNames bounds the names that are kept of a database.
const maxNames = 200_000

// errTooManyNames says that a database has more.
var errTooManyNames = errors.New("the database has more relations than statement.relations can be told of")

const (
	// fingerprintSQL tells one state of the names from another: each change of a
	// row of these tables makes a new version of it.
	fingerprintSQL = `
SELECT concat_ws(' ',
  (SELECT count(*) || ':' || coalesce(sum(hashtextextended(oid || ' ' || xmin, 0)), 0) FROM pg_proc WHERE oid >= 16384),
  (SELECT count(*) || ':' || coalesce(sum(hashtextextended(oid || ' ' || xmin, 0)), 0) FROM pg_operator WHERE oid >= 16384),
  (SELECT count(*) || ':' || coalesce(sum(hashtextextended(oid || ' ' || xmin, 0)), 0) FROM pg_rewrite WHERE oid >= 16384),
  (SELECT count(*) || ':' || coalesce(sum(hashtextextended(oid || ' ' || xmin, 0)), 0) FROM pg_cast WHERE oid >= 16384),
  (SELECT count(*) || ':' || coalesce(sum(hashtextextended(oid || ' ' || xmin, 0)), 0) FROM pg_constraint WHERE contypid <> 0),
  (SELECT count(*) || ':' || coalesce(sum(hashtextextended(oid || ' ' || xmin, 0)), 0) FROM pg_class WHERE oid >= 16384
   AND ($1 AND relkind IN ('r', 'm', 'f', 'p', 'S') OR relkind = 'v')),
  (SELECT count(*) || ':' || coalesce(sum(hashtextextended(oid || ' ' || xmin, 0)), 0) FROM pg_namespace WHERE nspname NOT LIKE 'pg\_t%'))`

	// functionsSQL finds users' functions that are volatile, or aggregates of such,
	// if they are named like one of PostgreSQL's own or can be called as a.f or
	// (a).f.
	functionsSQL = `
SELECT p.proname::text,
       bool_or(EXISTS (SELECT FROM pg_proc b WHERE b.proname = p.proname AND b.oid < 16384)),
       bool_or(one AND t.typtype IN ('c', 'd', 'p')),
       bool_or(one)
FROM pg_proc p
CROSS JOIN LATERAL (SELECT p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1) AS o (one)
LEFT JOIN pg_type t ON t.oid = p.proargtypes[0]
LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
WHERE p.oid >= 16384 AND p.prokind <> 'p' AND p.prorettype <> ALL ('{internal,trigger,event_trigger}'::regtype[])
  AND (p.provolatile = 'v' OR EXISTS (SELECT FROM pg_proc s WHERE s.provolatile = 'v'
       AND s.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)))
GROUP BY p.proname`

	operatorsSQL = `
SELECT DISTINCT o.oprname::text FROM pg_operator o JOIN pg_proc f ON f.oid = o.oprcode
WHERE o.oid >= 16384 AND f.provolatile = 'v'`

	// typesSQL finds the types that have casts by such functions, and the domains
	// whose checks call some, of PostgreSQL's own too.
	typesSQL = `
SELECT t.typname::text FROM pg_cast c JOIN pg_proc f ON f.oid = c.castfunc JOIN pg_type t ON t.oid IN (c.castsource, c.casttarget)
WHERE c.oid >= 16384 AND f.provolatile = 'v'
UNION
SELECT t.typname::text FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid,
  regexp_matches(k.conbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') m
WHERE k.contype = 'c' AND EXISTS (SELECT FROM pg_proc f WHERE f.oid = m[1]::oid AND f.provolatile = 'v')`

	// viewsSQL finds users' views, and the names of the volatile functions in their
	// definitions and whether those are PostgreSQL's own. Views that read views
	// have those as well.
	viewsSQL = `
WITH RECURSIVE reads (view, rule) AS (
  SELECT r.ev_class, r.oid FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
  WHERE c.relkind = 'v' AND r.ev_type = '1' AND r.oid >= 16384
UNION
  SELECT g.view, r.oid FROM reads g
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = g.rule AND d.refclassid = 'pg_class'::regclass
  JOIN pg_rewrite r ON r.ev_class = d.refobjid AND r.ev_type = '1'
), calls (rule, function) AS MATERIALIZED (
  SELECT DISTINCT r.oid, m[1] FROM pg_rewrite r,
    regexp_matches(r.ev_action::text, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') m
  WHERE r.oid >= 16384 AND r.ev_type = '1'
)
SELECT DISTINCT n.nspname::text, c.relname::text, p.proname::text, p.oid < 16384
FROM reads g JOIN calls l ON l.rule = g.rule JOIN pg_proc p ON p.oid = l.function::oid
JOIN pg_class c ON c.oid = g.view JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.provolatile = 'v'`

	// relationsSQL leaves out temporary tables: they are their own session's.
	relationsSQL = `
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND n.nspname NOT LIKE 'pg\_t%'
ORDER BY n.nspname = 'information_schema', n.nspname LIMIT $1`
)

func readNames(ctx context.Context, tx pgx.Tx, relations bool) (*databaseNames, error) {
	n := &databaseNames{operators: map[string]bool{}, types: map[string]bool{}, views: map[pgsql.Relation]bool{}}
	for i := range n.functions {
		n.functions[i] = map[string]bool{}
	}
	var name, schema, function string
	var ways [pgsql.CallValue + 1]*bool
	for i := range ways {
		ways[i] = new(bool)
	}
	rows, _ := tx.Query(ctx, functionsSQL)
	if _, err := pgx.ForEachRow(rows, []any{&name, ways[pgsql.CallPlain], ways[pgsql.CallRow], ways[pgsql.CallValue]}, func() error {
		for i, way := range ways {
			if *way {
				n.functions[i][name] = true
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for sql, names := range map[string]map[string]bool{operatorsSQL: n.operators, typesSQL: n.types} {
		rows, _ = tx.Query(ctx, sql)
		if _, err := pgx.ForEachRow(rows, []any{&name}, func() error {
			names[name] = true
			return nil
		}); err != nil {
			return nil, err
		}
	}
	var own bool
	rows, _ = tx.Query(ctx, viewsSQL)
	if _, err := pgx.ForEachRow(rows, []any{&schema, &name, &function, &own}, func() error {
		if !own || !pgsql.Builtin(function) {
			n.views[pgsql.Relation{Schema: schema, Name: name}] = true
			n.views[pgsql.Relation{Name: name}] = true
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if !relations {
		return n, nil
	}
	return n, n.readRelations(ctx, tx)
}

func (n *databaseNames) readRelations(ctx context.Context, tx pgx.Tx) error {
	n.relations = map[string][]string{}
	schemas := map[string]string{} // each once
	var schema, name string
	rows, _ := tx.Query(ctx, relationsSQL, maxNames+1)
	tag, err := pgx.ForEachRow(rows, []any{&schema, &name}, func() error {
		if schema == "information_schema" && n.relations[name] != nil {
			return nil // it is on nobody's search path, and has tables, columns, …
		}
		if _, ok := schemas[schema]; !ok {
			schemas[schema] = schema
		}
		n.relations[name] = append(n.relations[name], schemas[schema])
		return nil
	})
	if err == nil && tag.RowsAffected() > maxNames {
		err = errTooManyNames
	}
	return err
}

package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"chaperone.dev/chaperone/internal/mask"
	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/protocol/postgres"
)

// catalogAge bounds how old a snapshot of a target's catalog gets. One that
// does not know a name is read again at once.
const catalogAge = 30 * time.Second

// catalogPause bounds how often unknown names make a snapshot be read again.
const catalogPause = time.Second

// maxCatalogs bounds the snapshots that a node remembers.
const maxCatalogs = 256

// catalogs keeps snapshots of targets' catalogs, for all sessions of a node.
type catalogs struct {
	mu     sync.Mutex
	known  map[catalogKey]*catalogEntry
	latest map[databaseKey]snapshot
}

// snapshot is a catalog that was read by some session of a database. It is the same
// whoever reads it; what bare names stand for in it is not.
type snapshot struct {
	catalog *mask.Catalog
	readAt  time.Time
}

type databaseKey struct{ target, address, database string }

// catalogKey is what a name's meaning depends on: where it is looked up, and
// what the client set when it connected.
type catalogKey struct {
	target, address, database, account string
	options, searchPath                string
}

type catalogEntry struct {
	// Which reading it is, and when it was made, in ns since 1970. They are
	// asked on every statement, also while another session reads.
	version, readAt atomic.Int64

	mu      sync.Mutex // held while it is read, so that one session reads for all
	catalog *mask.Catalog
	path    []string
}

// olderThan tells whether the snapshot is older, or is none.
func (e *catalogEntry) olderThan(age time.Duration) bool {
	return time.Since(time.Unix(0, e.readAt.Load())) > age
}

func newCatalogs() *catalogs {
	return &catalogs{known: map[catalogKey]*catalogEntry{}, latest: map[databaseKey]snapshot{}}
}

// recent is the latest snapshot of a database unless it is older than age: a job that
// is new there has an account of its own, and need not wait for what is known.
func (c *catalogs) recent(key databaseKey, age time.Duration) (snapshot, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.latest[key]
	return s, ok && s.catalog != nil && time.Since(s.readAt) < age
}

// put keeps a snapshot unless a later one, or a change, is known.
func (c *catalogs) put(key databaseKey, s snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.latest) >= maxCatalogs {
		clear(c.latest)
	}
	if s.readAt.After(c.latest[key].readAt) {
		c.latest[key] = s
	}
}

// forget notes that the database was changed: what was read before is of no use.
func (c *catalogs) forget(key databaseKey) { c.put(key, snapshot{readAt: time.Now()}) }

// session is the catalog as one session uses it.
func (c *catalogs) session(conn *connection) *sessionCatalog {
	startup := conn.client.Startup()
	key := catalogKey{
		target: conn.match.Target.Metadata.Name, address: conn.origin.Destination.String(), database: startup.Database,
		account: conn.grant.Name, options: startup.Params["options"], searchPath: startup.Params["search_path"],
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, ok := c.known[key]
	if !ok {
		if len(c.known) >= maxCatalogs {
			clear(c.known)
		}
		entry = &catalogEntry{}
		c.known[key] = entry
	}
	return &sessionCatalog{entry: entry, connection: conn}
}

// sessionCatalog is a catalog as one session sees it.
type sessionCatalog struct {
	entry      *catalogEntry
	connection *connection
	version    int64 // that the session's plans were made with
	lost       bool  // the session's search path isn't known any more
}

// plan traces a statement. A name that the snapshot does not know may be newer
// than it, so it is read again before the statement is refused.
func (s *sessionCatalog) plan(ctx context.Context, rules *mask.Rules, statement *pgsql.Statement, local *mask.Local) (*mask.Plan, error) {
	e := s.entry
	e.mu.Lock()
	defer e.mu.Unlock()
	age := catalogAge
	if statement.Copy == pgsql.CopyOut {
		age = catalogPause // its data don't say what their columns are
	}
	if rules.NeedsCatalog() && e.olderThan(age) {
		if e.version.Load() > 0 {
			age = 0 // it may be for what is new in it that it is read again
		}
		if err := s.read(ctx, age); err != nil {
			return nil, err
		}
	}
	plan, err := rules.PlanIn(statement, e.catalog, s.path(), local)
	var untraceable *mask.Untraceable
	if errors.As(err, &untraceable) && untraceable.Unknown != "" && e.olderThan(catalogPause) {
		if err := s.read(ctx, 0); err != nil {
			return nil, err
		}
		plan, err = rules.PlanIn(statement, e.catalog, s.path(), local)
	}
	s.version = e.version.Load()
	return plan, err
}

// path is what the session's bare names are looked up in; nil: it isn't known.
func (s *sessionCatalog) path() []string {
	if s.lost {
		return nil
	}
	return s.entry.path
}

// forgetPath says that the session may have another search path from now on,
// for good. Bare names must then be unique in the database, and plans that were
// made with the path are void.
func (s *sessionCatalog) forgetPath() { s.lost = true }

// changed tells whether the session's plans are older than what is known.
func (s *sessionCatalog) changed() bool {
	return s.version != 0 && (s.entry.version.Load() != s.version || s.entry.olderThan(catalogAge))
}

// invalidate makes the next statement read the catalog again.
func (s *sessionCatalog) invalidate() {
	s.connection.server.catalogs.forget(s.database())
	s.entry.readAt.Store(0)
}

func (s *sessionCatalog) database() databaseKey {
	c := s.connection
	return databaseKey{c.match.Target.Metadata.Name, c.origin.Destination.String(), c.client.Startup().Database}
}

// read reads the catalog, over a connection of its own with the session's
// account and settings: it sees what the session sees. A snapshot that another
// account's session has read and that isn't older than age does as well.
func (s *sessionCatalog) read(ctx context.Context, age time.Duration) error {
	c := s.connection
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.server.opts.Limits.ConnectTimeout))
	defer cancel()
	params := map[string]string{"application_name": "chaperone"}
	for _, name := range []string{"options", "search_path"} {
		if value, ok := c.client.Startup().Params[name]; ok {
			params[name] = value
		}
	}
	options, err := c.upstream(params)
	if err != nil {
		return fmt.Errorf("reading the catalog of %s: %w", c.match.Target.Metadata.Name, err)
	}
	conn, err := postgres.ConnectOwn(ctx, options)
	if err != nil {
		return fmt.Errorf("reading the catalog of %s: %w", c.match.Target.Metadata.Name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	latest, known := c.server.catalogs.recent(s.database(), age)
	if !known {
		latest.readAt = time.Now()
		if latest.catalog, err = mask.LoadCatalog(ctx, conn); err != nil {
			return fmt.Errorf("reading the catalog of %s: %w", c.match.Target.Metadata.Name, err)
		}
		c.server.catalogs.put(s.database(), latest)
	}
	var path string
	if err := conn.QueryRow(ctx, "SHOW search_path").Scan(&path); err != nil {
		return fmt.Errorf("reading the search path of %s: %w", c.match.Target.Metadata.Name, err)
	}
	e := s.entry
	e.catalog, e.path = latest.catalog, mask.SearchPath(path, c.grant.Name)
	e.version.Add(1)
	e.readAt.Store(latest.readAt.UnixNano())
	return nil
}

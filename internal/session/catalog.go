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
	mu    sync.Mutex
	known map[catalogKey]*catalogEntry
}

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

func newCatalogs() *catalogs { return &catalogs{known: map[catalogKey]*catalogEntry{}} }

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
func (s *sessionCatalog) plan(ctx context.Context, rules *mask.Rules, statement *pgsql.Statement) (*mask.Plan, error) {
	e := s.entry
	e.mu.Lock()
	defer e.mu.Unlock()
	if rules.NeedsCatalog() && e.olderThan(catalogAge) {
		if err := s.read(ctx); err != nil {
			return nil, err
		}
	}
	plan, err := rules.Plan(statement, e.catalog, s.path())
	var untraceable *mask.Untraceable
	if errors.As(err, &untraceable) && untraceable.Unknown != "" && e.olderThan(catalogPause) {
		if err := s.read(ctx); err != nil {
			return nil, err
		}
		plan, err = rules.Plan(statement, e.catalog, s.path())
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
func (s *sessionCatalog) invalidate() { s.entry.readAt.Store(0) }

// read reads the catalog, over a connection of its own with the session's
// account and settings: it sees what the session sees.
func (s *sessionCatalog) read(ctx context.Context) error {
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
	catalog, err := mask.LoadCatalog(ctx, conn)
	if err != nil {
		return fmt.Errorf("reading the catalog of %s: %w", c.match.Target.Metadata.Name, err)
	}
	var path string
	if err := conn.QueryRow(ctx, "SHOW search_path").Scan(&path); err != nil {
		return fmt.Errorf("reading the search path of %s: %w", c.match.Target.Metadata.Name, err)
	}
	e := s.entry
	e.catalog, e.path = catalog, mask.SearchPath(path, c.grant.Name)
	e.version.Add(1)
	e.readAt.Store(time.Now().UnixNano())
	return nil
}

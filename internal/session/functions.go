package session

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
)

// function is what is known of one that is called by its OID.
type function struct {
	name      string // as SQL would call it
	arguments []uint32
	result    uint32
}

// functions keeps what OIDs of PostgreSQL's own functions stand for, for all
// sessions of a node. Those of users are looked up at each call, for they change.
type functions struct {
	mu    sync.Mutex
	known map[functionKey]knownFunction
}

type functionKey struct {
	target, address string
	oid             uint32
}

type knownFunction struct {
	function
	readAt time.Time
}

// maxFunctions bounds the functions that a node remembers.
const maxFunctions = 4096

func newFunctions() *functions { return &functions{known: map[functionKey]knownFunction{}} }

func (f *functions) get(key functionKey) (function, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.known[key]
	return known.function, ok && time.Since(known.readAt) < catalogAge
}

// put remembers those that are PostgreSQL's own.
func (f *functions) put(key functionKey, byOID map[uint32]function) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.known) >= maxFunctions {
		clear(f.known)
	}
	now := time.Now()
	for key.oid = range byOID {
		if key.oid < firstUserOID {
			f.known[key] = knownFunction{byOID[key.oid], now}
		}
	}
}

// firstUserOID is the first OID that users' objects have (FirstNormalObjectId).
const firstUserOID = 16384

// Function finds out what a function is called that a client calls by its OID, and
// reads that as if it were called in a SELECT. What can't be found out is refused
// here, and is on record.
func (g *gate) Function(ctx context.Context, oid uint32, arguments int) (postgres.Function, error) {
	called := fmt.Sprintf("/* function call */ SELECT %d", oid)
	f, ok, err := g.function(ctx, oid)
	switch {
	case err != nil:
		return postgres.Function{}, g.refuse(called, nil, &postgres.Refusal{
			Reason: event.ReasonInternal, SQLState: "57P03", Err: err,
			Message: "the function call is refused: the target's catalog can't be read, so its name isn't known",
		})
	case !ok:
		return postgres.Function{}, g.refuse(called, nil, &postgres.Refusal{
			Reason: event.ReasonDenied, SQLState: "42883", Message: fmt.Sprintf("function with OID %d does not exist", oid),
		})
	case arguments != len(f.arguments):
		return postgres.Function{}, g.refuse(called, nil, &postgres.Refusal{
			Reason: event.ReasonProtocol, SQLState: "08P01",
			Message: fmt.Sprintf("function call message contains %d arguments but function requires %d", arguments, len(f.arguments)),
		})
	}
	prepared, err := g.Prepare(ctx, f.call())
	if err != nil {
		return postgres.Function{}, err
	}
	return postgres.Function{
		Prepared: prepared, Types: f.arguments, Result: postgres.Field{Name: f.name, Type: f.result},
	}, nil
}

// call is the function in SQL, with its arguments as parameters.
func (f function) call() string {
	parameters := make([]string, len(f.arguments))
	for i := range parameters {
		parameters[i] = fmt.Sprintf("$%d", i+1)
	}
	return fmt.Sprintf("SELECT %s(%s) /* function call */", f.name, strings.Join(parameters, ", "))
}

func (g *gate) function(ctx context.Context, oid uint32) (f function, ok bool, err error) {
	c := g.connection
	key := functionKey{c.match.Target.Metadata.Name, c.origin.Destination.String(), oid}
	if f, ok = c.server.functions.get(key); ok {
		return f, true, nil
	}
	byOID, err := c.readFunctions(ctx, oid)
	if err != nil {
		return function{}, false, fmt.Errorf("reading a function of %s: %w", key.target, err)
	}
	c.server.functions.put(key, byOID)
	f, ok = byOID[oid]
	return f, ok, nil
}

// readFunctions reads one function, and those that are called by OID as a rule,
// which are PostgreSQL's own for large objects.
func (c *connection) readFunctions(ctx context.Context, oid uint32) (map[uint32]function, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.server.opts.Limits.ConnectTimeout))
	defer cancel()
	options, err := c.upstream(map[string]string{"application_name": "chaperone", "search_path": "pg_catalog"})
	if err != nil {
		return nil, err
	}
	conn, err := postgres.ConnectOwn(ctx, options)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const query = `SELECT p.oid,
			CASE WHEN n.nspname = 'pg_catalog' THEN '' ELSE quote_ident(n.nspname) || '.' END || quote_ident(p.proname),
			p.proargtypes::oid[], p.prorettype
		FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
		WHERE p.oid = $1 OR p.oid < $2 AND n.nspname = 'pg_catalog'
			AND (p.proname LIKE 'lo\_%' OR p.proname IN ('loread', 'lowrite'))`
	rows, err := conn.Query(ctx, query, oid, uint32(firstUserOID))
	if err != nil {
		return nil, err
	}
	byOID := map[uint32]function{}
	var found uint32
	var f function
	_, err = pgx.ForEachRow(rows, []any{&found, &f.name, &f.arguments, &f.result}, func() error {
		byOID[found] = f
		f.arguments = nil
		return nil
	})
	return byOID, err
}

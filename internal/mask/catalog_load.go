package mask

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Bounds of a catalog. A database with more is refused, see [ErrTooLarge].
const (
	maxRelations = 100_000
	maxColumns   = 2_000_000
	maxFunctions = 100_000
)

// ErrTooLarge says that a database has more relations, columns or functions
// than a catalog holds.
var ErrTooLarge = errors.New("the database's catalog is too large to trace columns in")

// firstUserOID is FirstNormalObjectId of access/transam.h: what initdb made
// has a lower OID.
const firstUserOID = 16384

const (
	relationsSQL = `
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
       CASE WHEN c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
            THEN coalesce(pg_get_viewdef(c.oid), '-') ELSE '' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND n.nspname NOT LIKE 'pg\_toast%'
LIMIT $1`
	columnsSQL = `
SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.attgenerated <> ''
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
LIMIT $1`
	domainsSQL  = `SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd' LIMIT $1`
	inheritsSQL = `SELECT inhrelid, inhparent FROM pg_inherits`
	// sqlFunctionsSQL reads the functions in SQL whose names no other has. The body
	// is in the place of %s, as far as there is a standard one (PostgreSQL 14).
	sqlFunctionsSQL = `
SELECT n.nspname::text, p.proname::text, p.pronargs, p.proretset, p.prosecdef, p.prosrc, coalesce(%s, ''),
       coalesce(p.proargnames, '{}'), coalesce(p.proargmodes::text[], '{}'), t.typrelid, coalesce(p.proconfig, '{}')
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_type t ON t.oid = p.prorettype
WHERE p.oid >= $1 AND l.lanname = 'sql' AND p.prokind = 'f' AND p.provariadic = 0 AND length(p.prosrc) < 16384
  AND NOT EXISTS (SELECT FROM pg_proc q WHERE q.proname = p.proname AND q.oid <> p.oid)
LIMIT $2`
	// codeSQL reads the operators and types that call functions of users in other
	// languages than C, in which extensions are written that read no tables.
	codeSQL = `
WITH code AS (
  SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.oid >= $1 AND l.lanname NOT IN ('c', 'internal'))
SELECT 'operator', o.oprname::text FROM pg_operator o WHERE o.oprcode IN (SELECT oid FROM code)
UNION SELECT 'type', t.typname::text FROM pg_cast c JOIN pg_type t ON t.oid IN (c.castsource, c.casttarget)
  WHERE c.castfunc IN (SELECT oid FROM code) AND t.oid >= $1
UNION SELECT 'type', t.typname::text FROM pg_constraint c JOIN pg_type t ON t.oid = c.contypid JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
  WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (SELECT oid FROM code)
UNION SELECT 'type', t.typname::text FROM pg_type t JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid
  WHERE t.typtype = 'd' AND d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (SELECT oid FROM code)
LIMIT $2`
	functionsSQL = `SELECT DISTINCT proname::text FROM pg_proc WHERE oid >= $1 LIMIT $2`
)

// LoadCatalog reads the catalog of the database that conn is connected to, in
// one read-only transaction. conn must not be in a transaction already.
// Relations that other sessions haven't committed yet aren't seen.
func LoadCatalog(ctx context.Context, conn *pgx.Conn) (*Catalog, error) {
	c := &Catalog{byOID: map[uint32]*relation{}, byName: map[string][]*relation{}, functions: map[string]bool{}}
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// With nothing on the path pg_get_viewdef qualifies every name.
		if _, err := tx.Exec(ctx, "SET LOCAL search_path = ''"); err != nil {
			return err
		}
		return c.load(ctx, tx)
	})
	if err != nil {
		return nil, fmt.Errorf("load the catalog: %w", err)
	}
	return c, nil
}

func (c *Catalog) load(ctx context.Context, tx pgx.Tx) error {
	rows, _ := tx.Query(ctx, relationsSQL, maxRelations+1)
	var oid, parent uint32
	var schema, name, kind, definition string
	if _, err := pgx.ForEachRow(rows, []any{&oid, &schema, &name, &kind, &definition}, func() error {
		c.add(&relation{oid: oid, schema: schema, name: name, kind: kind[0], definition: definition})
		return nil
	}); err != nil {
		return err
	}
	rows, _ = tx.Query(ctx, domainsSQL, maxRelations+1)
	domains := map[uint32]uint32{}
	var typ uint32
	if _, err := pgx.ForEachRow(rows, []any{&oid, &typ}, func() error {
		domains[oid] = typ
		return nil
	}); err != nil {
		return err
	}
	rows, _ = tx.Query(ctx, columnsSQL, maxColumns+1)
	var num int16
	var generated bool
	tag, err := pgx.ForEachRow(rows, []any{&oid, &num, &name, &typ, &generated}, func() error {
		for range len(domains) {
			base, ok := domains[typ]
			if !ok {
				break
			}
			typ = base
		}
		if r := c.byOID[oid]; r != nil {
			r.columns = append(r.columns, catalogColumn{name: name, num: uint16(num), typ: typ, generated: generated})
		}
		return nil
	})
	if err != nil {
		return err
	}
	columns := tag.RowsAffected()
	rows, _ = tx.Query(ctx, inheritsSQL)
	if _, err := pgx.ForEachRow(rows, []any{&oid, &parent}, func() error {
		if r, p := c.byOID[oid], c.byOID[parent]; r != nil && p != nil {
			r.parents = append(r.parents, parent)
			p.children = append(p.children, oid)
		}
		return nil
	}); err != nil {
		return err
	}
	rows, _ = tx.Query(ctx, functionsSQL, firstUserOID, maxFunctions+1)
	if _, err := pgx.ForEachRow(rows, []any{&name}, func() error {
		c.functions[name] = true
		return nil
	}); err != nil {
		return err
	}
	if err := c.loadFunctions(ctx, tx); err != nil {
		return err
	}
	rows, _ = tx.Query(ctx, codeSQL, firstUserOID, maxFunctions+1)
	c.operators, c.types = map[string]bool{}, map[string]bool{}
	if _, err := pgx.ForEachRow(rows, []any{&kind, &name}, func() error {
		if kind == "operator" {
			c.operators[name] = true
		} else {
			c.types[name] = true
		}
		return nil
	}); err != nil {
		return err
	}
	if len(c.byOID) > maxRelations || columns > maxColumns || len(c.functions)+len(c.operators)+len(c.types) > maxFunctions {
		return ErrTooLarge
	}
	return nil
}

// loadFunctions reads the functions that can be traced. Those beyond the bound
// can't be.
func (c *Catalog) loadFunctions(ctx context.Context, tx pgx.Tx) error {
	var version int
	if err := tx.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	standard := "pg_get_function_sqlbody(p.oid)"
	if version < 140000 {
		standard = "NULL::text"
	}
	c.sqlFunctions = map[string]*sqlFunction{}
	var schema, name, source, sqlBody string
	var arguments int
	var set, owners bool
	var names, modes, config []string
	var of uint32
	rows, _ := tx.Query(ctx, fmt.Sprintf(sqlFunctionsSQL, standard), firstUserOID, maxTraced)
	_, err := pgx.ForEachRow(rows, []any{&schema, &name, &arguments, &set, &owners, &source, &sqlBody, &names, &modes, &of, &config}, func() error {
		fn := &sqlFunction{schema: schema, name: name, arguments: arguments, set: set, owners: owners}
		fn.body, fn.qualified = functionBody(source, sqlBody)
		for _, setting := range config {
			path, ok := strings.CutPrefix(setting, "search_path=")
			if !ok || strings.Contains(path, "$user") {
				return nil
			}
			fn.path = SearchPath(path, "")
		}
		fn.names, names = names, nil
		for i, mode := range modes {
			switch {
			case mode == "i":
				if i >= arguments {
					return nil
				}
			case i < arguments: // the others are told by their place
				return nil
			case i < len(fn.names):
				fn.columns = append(fn.columns, fn.names[i])
			}
		}
		if rel := c.byOID[of]; rel != nil && fn.columns == nil {
			for _, col := range rel.columns {
				fn.columns = append(fn.columns, col.name)
			}
		}
		c.sqlFunctions[name] = fn
		return nil
	})
	return err
}

// maxTraced bounds the functions that can be traced.
const maxTraced = 10_000

func (c *Catalog) add(r *relation) {
	c.byOID[r.oid] = r
	c.byName[r.name] = append(c.byName[r.name], r)
}

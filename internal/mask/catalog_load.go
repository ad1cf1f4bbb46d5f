package mask

import (
	"context"
	"errors"
	"fmt"

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
SELECT a.attrelid, a.attnum, a.attname::text
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
LIMIT $1`
	inheritsSQL  = `SELECT inhrelid, inhparent FROM pg_inherits`
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
	rows, _ = tx.Query(ctx, columnsSQL, maxColumns+1)
	var num int16
	tag, err := pgx.ForEachRow(rows, []any{&oid, &num, &name}, func() error {
		if r := c.byOID[oid]; r != nil {
			r.columns = append(r.columns, catalogColumn{name: name, num: uint16(num)})
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
	if len(c.byOID) > maxRelations || columns > maxColumns || len(c.functions) > maxFunctions {
		return ErrTooLarge
	}
	return nil
}

func (c *Catalog) add(r *relation) {
	c.byOID[r.oid] = r
	c.byName[r.name] = append(c.byName[r.name], r)
}

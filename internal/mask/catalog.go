package mask

import (
	"errors"
	"slices"
	"strings"
)

// Catalog is a snapshot of the relations of one database. It is immutable once
// it was made, and shared.
//
// It holds what was committed when it was loaded. So load a new one when a
// session's DDL was committed, and now and then for that of others. While a
// session has DDL of its own in an open transaction, no catalog tells what its
// statements mean: refuse those whose plan is [Plan.Sensitive] until then.
type Catalog struct {
	byOID     map[uint32]*relation
	byName    map[string][]*relation // unqualified name → in each schema
	functions map[string]bool        // names of functions that aren't PostgreSQL's own
	// sqlFunctions are those of users that can be traced, by name.
	sqlFunctions map[string]*sqlFunction
	// operators and types, by name, that call functions of users which may read
	// tables: by their casts, or a domain's checks and default.
	operators, types map[string]bool
}

// relation is a table, view, sequence, …
type relation struct {
	oid          uint32
	schema, name string
	kind         byte // pg_class.relkind
	columns      []catalogColumn
	definition   string   // of a view outside of the system schemas
	parents      []uint32 // inheritance and partitioning
	children     []uint32
}

type catalogColumn struct {
	name      string
	num       uint16
	typ       uint32 // OID of its type, of a domain that of the type under it
	generated bool
}

func (r *relation) isView() bool { return r.definition != "" }

func (r *relation) temporary() bool { return strings.HasPrefix(r.schema, "pg_temp_") }

// String is the qualified name.
func (r *relation) String() string { return r.schema + "." + r.name }

var errAmbiguous = errors.New("exists in several schemas and the search path isn't known; qualify it")

// lookup finds the relation that a statement names, nil if there is none.
//
// A nil path means that the session's search path isn't known. Then a bare
// name must be the only one of its kind.
func (c *Catalog) lookup(schema, name string, path []string) (*relation, error) {
	candidates := c.byName[name]
	in := func(schema string) *relation {
		for _, r := range candidates {
			if r.schema == schema {
				return r
			}
		}
		return nil
	}
	temporary := func() *relation {
		i := slices.IndexFunc(candidates, (*relation).temporary)
		if i < 0 {
			return nil
		}
		return candidates[i]
	}
	switch {
	case schema == "pg_temp":
		return temporary(), nil
	case schema != "":
		return in(schema), nil
	case path == nil:
		if len(candidates) > 1 {
			return nil, errAmbiguous
		}
		if len(candidates) == 1 {
			return candidates[0], nil
		}
		return nil, nil
	}
	// PostgreSQL looks into the session's temporary schema first. Here it
	// comes last, because the catalog doesn't know whose temporary tables it
	// saw: a table that is hidden by one is taken to be itself, which covers
	// too much, and the names of the result's columns are compared anyway.
	if !slices.Contains(path, "pg_catalog") {
		if r := in("pg_catalog"); r != nil {
			return r, nil
		}
	}
	for _, schema := range path {
		if r := in(schema); r != nil {
			return r, nil
		}
	}
	return temporary(), nil
}

// SearchPath splits the value of the setting search_path, as SHOW tells it,
// for a session of the given user.
func SearchPath(setting, user string) []string {
	path := []string{}
	for setting != "" {
		var name string
		setting = strings.TrimLeft(setting, " \t\n\r,")
		if rest, quoted := strings.CutPrefix(setting, `"`); quoted {
			for {
				part, after, found := strings.Cut(rest, `"`)
				name += part
				rest = after
				if !found || !strings.HasPrefix(rest, `"`) {
					break
				}
				name, rest = name+`"`, rest[1:]
			}
			setting = rest
		} else {
			name, setting, _ = strings.Cut(setting, ",")
			name = strings.ToLower(strings.TrimSpace(name))
		}
		if name == "$user" {
			name = user
		}
		if name != "" {
			path = append(path, name)
		}
	}
	return path
}

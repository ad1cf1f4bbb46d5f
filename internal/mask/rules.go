package mask

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"weak"

	lru "github.com/hashicorp/golang-lru/v2"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

// Rules are the masks that hold for one principal at one target. They are
// immutable apart from their caches and safe for concurrent use. Share them
// between the sessions of a job that use the same database: the caches, which
// are for one [Catalog] at a time, pay off.
type Rules struct {
	columns   []columnRule
	keys      Keys // of the transforms in columns
	detectors detectorSet
	labels    [detectorCount]string // of each detector in force

	views *pgsql.Parser // reads the definitions of views
	// plans by statement. The weak keys don't hold parse trees in memory that
	// the parser has forgotten.
	plans *lru.Cache[weak.Pointer[pgsql.Statement], *planned]

	mu       sync.Mutex
	coverage *coverage // of the catalog that was used last
}

// columnRule covers the columns that a pattern names.
type columnRule struct {
	schema, table, column string // patterns, "*" stands for any characters
	with                  policy.Transform
	label                 string
	mask                  string // the document's name
	predicates            predicates
}

// planCacheSize bounds the plans that Rules remember.
const planCacheSize = 1024

// Keys are the secrets of hmac transforms, by the name that documents call
// them.
type Keys map[string][]byte

// minKey is the least length of a key, in bytes.
const minKey = 16

// KeyNames lists the keys that [Keys.Compile] needs for the principal at the
// target, sorted.
func KeyNames(docs []policy.Mask, target string, principal policy.Principal) []string {
	var names []string
	for _, d := range docs {
		if !applies(&d.Spec, target, principal) {
			continue
		}
		for _, c := range d.Spec.Columns {
			if name := keyOf(c.With); name != "" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// keyOf is the name of the key that a transform needs, or empty.
func keyOf(with policy.Transform) string { return with.HMAC + with.FormatPreserving }

// Compile is [Keys.Compile] without keys.
func Compile(docs []policy.Mask, target string, principal policy.Principal) (*Rules, error) {
	return Keys(nil).Compile(docs, target, principal)
}

func applies(m *policy.MaskSpec, target string, principal policy.Principal) bool {
	return m.Covers(target) && !m.Exempt.Matches(principal)
}

// Compile takes the masks that hold for the principal at the target out of
// docs. It fails on a pattern, transform, detector or key that it doesn't know,
// so that nothing is ever left uncovered by a mistake.
func (k Keys) Compile(docs []policy.Mask, target string, principal policy.Principal) (*Rules, error) {
	r := &Rules{keys: k}
	var errs []error
	for _, d := range docs {
		if !applies(&d.Spec, target, principal) {
			continue
		}
		for _, c := range d.Spec.Columns {
			rule, err := k.compileColumn(d.Metadata.Name, c)
			rule.mask, rule.predicates = d.Metadata.Name, predicatesOf(d.Spec.Predicates)
			errs = append(errs, err)
			r.columns = append(r.columns, rule)
		}
		for _, name := range d.Spec.Detect {
			i := slices.Index(detectorNames[:], name)
			if i < 0 {
				errs = append(errs, fmt.Errorf("mask %s: no detector is called %q", d.Metadata.Name, name))
				continue
			}
			if !r.detectors.has(detector(i)) {
				r.labels[i] = d.Metadata.Name + ": detect " + name
			}
			r.detectors |= 1 << i
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(r.columns) > 0 {
		r.views = pgsql.NewParser(pgsql.Options{CacheEntries: 64, CacheBytes: 4 << 20})
		plans, err := lru.New[weak.Pointer[pgsql.Statement], *planned](planCacheSize)
		if err != nil {
			return nil, fmt.Errorf("mask: plan cache: %w", err)
		}
		r.plans = plans
	}
	return r, nil
}

// Empty tells whether nothing is covered at all.
func (r *Rules) Empty() bool { return len(r.columns) == 0 && r.detectors == 0 }

// NeedsCatalog tells whether plans are made with a catalog: without column
// masks nothing is traced.
func (r *Rules) NeedsCatalog() bool { return len(r.columns) > 0 }

func (k Keys) compileColumn(doc string, c policy.ColumnMask) (columnRule, error) {
	parts := strings.Split(c.Match, ".")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return columnRule{}, fmt.Errorf("mask %s: %q isn't schema.table.column", doc, c.Match)
	}
	set := 0
	for _, is := range []bool{
		c.With.Redact, c.With.Null, c.With.KeepFirst > 0, c.With.KeepLast > 0, c.With.HMAC != "", c.With.FormatPreserving != "", c.With.Truncate != "", c.With.Fixed != "",
	} {
		if is {
			set++
		}
	}
	if set != 1 || c.With.KeepFirst < 0 || c.With.KeepLast < 0 {
		return columnRule{}, fmt.Errorf("mask %s: %s: exactly one transform is needed", doc, c.Match)
	}
	if unit := c.With.Truncate; unit != "" && unit != policy.TruncateYear && unit != policy.TruncateMonth {
		return columnRule{}, fmt.Errorf("mask %s: %s: can't truncate to %q; use year or month", doc, c.Match, unit)
	}
	if name := keyOf(c.With); name != "" {
		key, known := k[name]
		switch {
		case !known:
			return columnRule{}, fmt.Errorf("mask %s: %s: there is no key %q; add it to the Node document's keys", doc, c.Match, name)
		case len(key) < minKey:
			return columnRule{}, fmt.Errorf("mask %s: %s: key %q has %d bytes; it needs at least %d", doc, c.Match, name, len(key), minKey)
		}
	}
	return columnRule{schema: parts[0], table: parts[1], column: parts[2], with: c.With, label: doc + ": " + c.Match}, nil
}

func (c *columnRule) matches(schema, table, column string) bool {
	return glob(c.column, column) && glob(c.table, table) && glob(c.schema, schema)
}

// glob matches a pattern in which "*" stands for any characters.
func glob(pattern, s string) bool {
	first, rest, any := strings.Cut(pattern, "*")
	if !any {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, first)
	if !ok {
		return false
	}
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], after
	}
}

// stronger is the transform that shows no more than either of two. null shows
// least. Of two that keep characters at the same end the one that keeps fewer is
// the stronger, of two that truncate the one that cuts to the year. Any others,
// also those with different keys or texts, come to redact.
func stronger(a, b policy.Transform) policy.Transform {
	switch {
	case a == b:
		return a
	case a.Null || b.Null:
		return policy.Transform{Null: true}
	case a.KeepLast > 0 && b.KeepLast > 0:
		return policy.Transform{KeepLast: min(a.KeepLast, b.KeepLast)}
	case a.KeepFirst > 0 && b.KeepFirst > 0:
		return policy.Transform{KeepFirst: min(a.KeepFirst, b.KeepFirst)}
	case a.Truncate != "" && b.Truncate != "":
		return policy.Transform{Truncate: policy.TruncateYear}
	}
	return policy.Transform{Redact: true}
}

package masking

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// grammar makes ordinary queries over all_types: the same ones for a seed.
type grammar struct{ random *rand.Rand }

func (g grammar) pick(of ...string) string { return of[g.random.IntN(len(of))] }

// columns of all_types, by what can be done with them.
var (
	numbers = []string{"id", "small", "big", "exact", "real4", "real8"}
	words   = []string{"words", "short", "fixed"}
	moments = []string{"day", "stamp"}
	others  = []string{"flag", "raw", "data", "plain", "tag", "nums", "tags", "span", "addr", "feel"}
)

func (g grammar) query() string {
	switch g.random.IntN(10) {
	case 0:
		return fmt.Sprintf("SELECT %s, count(*), %s(%s) FROM all_types GROUP BY 1 ORDER BY 1 NULLS FIRST",
			g.pick("flag", "feel", "small % 3"), g.pick("sum", "min", "max", "avg", "count"), g.pick(numbers...))
	case 1:
		return fmt.Sprintf("SELECT id, %s OVER (ORDER BY id) FROM all_types ORDER BY id", g.pick(
			"row_number()", "rank()", "lag(words)", "lead(day, 1)", "sum(small)", "first_value(tag)", "ntile(3)", "count(*)"))
	case 2:
		return fmt.Sprintf("WITH x AS (%s) SELECT * FROM x", g.plain())
	case 3:
		return fmt.Sprintf("SELECT a.id, b.%s FROM all_types a %s JOIN all_types b ON b.id = a.id %s ORDER BY a.id, b.id",
			g.column(), g.pick("", "LEFT", "RIGHT", "FULL"), g.pick("", "+ 1", "- 2"))
	case 4:
		return fmt.Sprintf("SELECT id, %s FROM all_types %s SELECT id, NULL FROM all_types ORDER BY 1, 2", g.text(), g.pick("UNION", "UNION ALL", "EXCEPT", "INTERSECT"))
	case 5:
		return fmt.Sprintf("SELECT (SELECT %s FROM all_types b WHERE b.id = a.id), a.%s FROM all_types a ORDER BY a.id", g.expression(), g.column())
	}
	return g.plain()
}

func (g grammar) plain() string {
	list := make([]string, 1+g.random.IntN(5))
	for i := range list {
		list[i] = fmt.Sprintf("%s AS c%d", g.expression(), i)
	}
	query := "SELECT " + strings.Join(list, ", ") + " FROM all_types"
	if g.random.IntN(2) == 0 {
		query += " WHERE " + g.condition()
	}
	return query + " ORDER BY id" + g.pick("", " DESC", " LIMIT 2", " OFFSET 1")
}

func (g grammar) column() string {
	switch g.random.IntN(4) {
	case 0:
		return g.pick(numbers...)
	case 1:
		return g.pick(words...)
	case 2:
		return g.pick(moments...)
	}
	return g.pick(others...)
}

func (g grammar) expression() string {
	switch g.random.IntN(8) {
	case 0:
		return g.number()
	case 1:
		return g.text()
	case 2:
		return fmt.Sprintf("%s %s %s", g.pick(moments...), g.pick("+", "-"), g.pick("interval '1 day'", "interval '3 hours'", "interval '-2 months'"))
	case 3:
		return fmt.Sprintf("CASE WHEN %s THEN %s ELSE NULL END", g.condition(), g.text())
	case 4:
		return fmt.Sprintf(g.pick("to_jsonb(%s)", "ARRAY[%s]", "ROW(%s, 1)", "(%s)::text", "pg_typeof(%s)", "quote_nullable((%s)::text)", "jsonb_build_array(%s)"), g.column())
	case 5:
		return g.pick("data -> 'k'", "data ->> 'k'", "nums[1]", "nums[1:2]", "tags || tags", "lower(span)", "upper(span)", "encode(raw, 'hex')", "host(addr)", "jsonb_typeof(data)")
	}
	return g.column()
}

func (g grammar) number() string {
	return fmt.Sprintf("%s %s %d", g.pick(numbers...), g.pick("+", "-", "*"), g.random.IntN(100))
}

func (g grammar) text() string {
	return fmt.Sprintf(g.pick("upper(%s)", "left(%s, 3)", "%s || '-'", "length(%s)::text", "md5(%s)", "coalesce(%s, 'none')", "replace(%s, 'a', 'b')", "reverse(%s)"), g.pick(words...))
}

func (g grammar) condition() string {
	switch g.random.IntN(5) {
	case 0:
		return fmt.Sprintf("%s %s %d", g.pick(numbers...), g.pick("<", ">", "=", "<>", ">="), g.random.IntN(200))
	case 1:
		return fmt.Sprintf("%s %s '%c%%'", g.pick(words...), g.pick("LIKE", "NOT LIKE", "ILIKE"), 'a'+rune(g.random.IntN(26)))
	case 2:
		return g.column() + g.pick(" IS NULL", " IS NOT NULL")
	case 3:
		return fmt.Sprintf("(%s %s %s)", g.condition(), g.pick("AND", "OR"), g.condition())
	}
	return g.pick("flag", "NOT flag", "tags @> '{a}'", "data ? 'k'", "span @> 5", "3 = ANY (nums)", "day > '2000-01-01'", "small IN (1, 2, 3)")
}

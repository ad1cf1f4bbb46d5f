package pgsql

import (
	"fmt"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// libpg_query turns the parse tree into protobuf with C recursion that checks
// no stack: a chain of some ten thousand operators overflows it, which no Go
// code can recover from. So long texts are measured first. maxDepth leaves a
// factor of four to the shallowest overflow that was seen with the 8 MiB stack
// that Linux gives threads by default; shallowText can't hold as much.
const (
	maxDepth    = 5000
	shallowText = 4 << 10
)

// flatter says what to do about it.
const flatter = "Write long lists with commas, as in x IN (…) or VALUES (…), (…), and data as parameters."

// checkDepth refuses texts whose tree might be deeper than maxDepth.
//
// The depth is estimated from above with PostgreSQL's own scanner, which does
// not recurse: no token adds more than one level, levels within an item of a
// list end at the comma, and what is in brackets adds to what is open around
// them. Only set operations and joins go on growing behind a comma.
func checkDepth(text string) error {
	if len(text) <= shallowText {
		return nil
	}
	scan, err := pg_query.Scan(text)
	if err != nil {
		return parseError(err)
	}
	type level struct{ item, chain int }
	stack := make([]level, 1, 16)
	depth := 0 // sum of all levels on the stack
	for _, t := range scan.Tokens {
		top := &stack[len(stack)-1]
		switch t.Token {
		case pg_query.Token_SQL_COMMENT, pg_query.Token_C_COMMENT:
			continue
		case pg_query.Token_ASCII_44, pg_query.Token_ASCII_59: // , ;
			depth -= top.item
			top.item = 0
			if t.Token == pg_query.Token_ASCII_59 {
				depth -= top.chain
				top.chain = 0
			}
			continue
		case pg_query.Token_ASCII_40, pg_query.Token_ASCII_91: // ( [
			depth++
			stack = append(stack, level{chain: 1})
		case pg_query.Token_ASCII_41, pg_query.Token_ASCII_93: // ) ]
			if len(stack) > 1 {
				depth -= top.item + top.chain
				stack = stack[:len(stack)-1]
				// The bracketed thing is one more token of the item around it.
				stack[len(stack)-1].item++
				depth++
			}
		case pg_query.Token_UNION, pg_query.Token_INTERSECT, pg_query.Token_EXCEPT, pg_query.Token_JOIN:
			top.chain++
			depth++
		default:
			top.item++
			depth++
		}
		if depth > maxDepth {
			return &RefusedError{
				Message: fmt.Sprintf("the query string is nested too deeply to be read: more than %d levels", maxDepth),
				Hint:    flatter,
			}
		}
	}
	return nil
}

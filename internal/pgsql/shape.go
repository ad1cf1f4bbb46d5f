package pgsql

import "unicode/utf8"

// maxShape bounds the texts that get a shape, in bytes, and maxShapeDepth the
// brackets that are open in them at a time.
const (
	maxShape      = 2048
	maxShapeDepth = 32
)

// Classes of bytes, for shape.
const (
	classNone     = iota // not allowed in a shaped text, but in quotes
	classSpace           // between tokens
	classOperator        // what operators are made of
	classWord            // letters and "_"
	classDigit
	classDot
	classComma
	classOpen
	classClose
	classColon
	classDollar
	classSemi
	classString
	classQuoted
)

// classes tells the class of each byte.
var classes = func() (c [256]uint8) {
	for _, b := range " \t\n" {
		c[b] = classSpace
	}
	for _, b := range "=<>*+-/%|!~@#&^?" {
		c[b] = classOperator
	}
	for b := 'a'; b <= 'z'; b++ {
		c[b], c[b-'a'+'A'] = classWord, classWord
	}
	for b := '0'; b <= '9'; b++ {
		c[b] = classDigit
	}
	c['_'], c['.'], c[','], c['('], c[')'] = classWord, classDot, classComma, classOpen, classClose
	c[':'], c['$'], c[';'], c['\''], c['"'] = classColon, classDollar, classSemi, classString, classQuoted
	return c
}()

// What the token before, blanks apart, says of a string that follows.
const (
	afterOther    = iota
	afterCompares // =, <> and their kin: it is compared, and so are those in brackets
	afterWord     // LIKE, BETWEEN … AND: it is compared
	afterIn       // brackets with strings that are compared
	afterValues   // brackets with strings that are inserted
	afterRow      // a row of VALUES: after a comma, there is another
	afterString   // one that goes on after a line break
)

// shape writes text into dst with constants replaced: integers by 0, decimals by
// 0.0, and strings that are but compared or inserted by an empty one. It returns
// how many bytes that took. Texts of one shape share one parse, which is what makes
// "SELECT … WHERE id = 4711 AND city = 'Ulm'" cheap over the simple protocol.
// It reports false for a text that is to be read as it is.
//
// That sharing is sound because nothing that is told of a shaped text depends
// on the value of a constant that is replaced:
//
//   - The scanner splits all texts of one shape into the same tokens. Strings
//     and quoted identifiers are the plain ones, in which nothing but a quote
//     has a meaning: those with letters in front (E'…', U&'…', U&"…") and
//     dollar quotes aren't read, nor comments.
//   - A run of digits is replaced only when it is a token of its own: neither
//     neighbour is a letter, digit, "_", "." or "$" (1e5, 0x1F, 1_000, .5, 5.,
//     t1, a.1, $1 all stay). An integer token is ICONST, or FCONST when it doesn't
//     fit 32 bits; the grammar takes FCONST in every place of an expression
//     where it takes ICONST. Where it doesn't (a type modifier, a precision),
//     the server refuses the large one itself.
//   - The one statement begins with SELECT, INSERT, UPDATE, DELETE or WITH (";"
//     may only end it), so no setting is given a value, and no FETCH or MOVE a count.
//   - Integers stand for something else than a value only as positions in
//     ORDER BY, GROUP BY and DISTINCT ON: behind the words order, group and
//     distinct numbers stay as they are.
//   - Strings are replaced right behind a comparison (=, <>, <, LIKE, BETWEEN,
//     AND …), and in the brackets of IN and VALUES. There they are values.
//     Elsewhere, a string may be a name: in set_config('role', …), in doc ->
//     'key', in a cast of its own. Texts that hold the words set_config or
//     pg_settings have no shape: what they do depends on comparisons, too.
//   - Type modifiers (numeric(10,2), float(24)), frame offsets, LIMIT and
//     sample sizes keep their values to themselves: facts and lineage know no
//     type modifier and no row count. Where the grammar rejects the 0 itself,
//     as in float(0), the caller reads the whole text instead; a value that
//     only the grammar rejects, as in float(99), is an error at the server
//     and touches nothing.
//   - The name of an output column is never made from a constant.
func shape(dst []byte, text string) (int, bool) {
	if len(text) > len(dst) || len(text) < len("SELECT 1") || !startsShaped(text) {
		return 0, false
	}
	var s shaper
	n, from := 0, 0 // what of the text from there on is not in dst yet
	for i := 0; i < len(text); {
		end, constant, ok := s.token(text, i)
		if !ok {
			return 0, false
		}
		if text[i] == ';' {
			// Texts with and without it, and with what white space behind
			// it, are the same statement.
			text = text[:i]
			break
		}
		if constant != "" {
			n += copy(dst[n:], text[from:i])
			n += copy(dst[n:], constant)
			from = end
		}
		i = end
	}
	return n + copy(dst[n:], text[from:]), true
}

// shaper goes through a text.
type shaper struct {
	after      uint8 // what the token before says
	positional bool  // integers may be positions from here on
	depth      int
	open       [maxShapeDepth]uint8 // afterOther, afterIn or afterValues, of each bracket
}

// token reads the one that begins at text[i]: where it ends, and, if it is a
// constant to be replaced, by what.
func (s *shaper) token(text string, i int) (end int, constant string, ok bool) {
	after := s.after
	s.after = afterOther
	end = i + 1
	switch classes[text[i]] {
	case classSpace:
		s.after = after
	case classWord:
		end = wordEnd(text, i)
		return end, "", s.word(text[i:end]) && (end == len(text) || text[end] != '\'')
	case classDigit:
		end, constant = s.number(text, i)
	case classString:
		end = quotedEnd(text, i)
		s.after = afterString
		if end > 0 && (after == afterCompares || after == afterWord) {
			return end, "''", utf8.ValidString(text[i:end]) && !holdsNUL(text[i:end])
		}
		return end, "", end > 0 && after != afterString
	case classQuoted:
		end = quotedEnd(text, i)
		return end, "", end > 0 && !special(text[i+1:end-1])
	case classOperator:
		for end < len(text) && classes[text[end]] == classOperator {
			end++
		}
		if !readableOperator(text[i:end]) || text[end-1] == '&' && end < len(text) && (text[end] == '\'' || text[end] == '"') {
			return 0, "", false
		}
		if compares(text[i:end]) {
			s.after = afterCompares
		}
	case classOpen:
		return end, "", s.push(after)
	case classClose:
		return end, "", s.pop()
	case classComma:
		switch {
		case after == afterRow:
			s.after = afterValues
		case s.depth > 0 && s.open[s.depth-1] != afterOther:
			s.after = afterWord
		}
	case classDot:
	case classColon:
		end = i + 2
		return end, "", end <= len(text) && text[i:end] == "::"
	case classDollar:
		for end < len(text) && classes[text[end]] == classDigit {
			end++
		}
		return end, "", end > i+1
	case classSemi:
		return end, "", blank(text[end:])
	default:
		return 0, "", false
	}
	return end, constant, true
}

// word takes note of an unquoted word. It reports false for those whose texts
// have no shape.
func (s *shaper) word(word string) bool {
	switch len(word) {
	case 2:
		if equalFold(word, "in") {
			s.after = afterIn
		}
	case 3:
		if equalFold(word, "and") {
			s.after = afterWord
		}
	case 4:
		if equalFold(word, "like") {
			s.after = afterWord
		}
	case 5:
		switch {
		case equalFold(word, "order") || equalFold(word, "group"):
			s.positional = true
		case equalFold(word, "ilike"):
			s.after = afterWord
		}
	case 6:
		if equalFold(word, "values") {
			s.after = afterValues
		}
	case 7:
		if equalFold(word, "between") {
			s.after = afterWord
		}
	case 8:
		s.positional = s.positional || equalFold(word, "distinct")
	case 10, 11:
		return !special(word)
	}
	return true
}

// special tells whether a text that has the name has no shape.
func special(name string) bool {
	return len(name) == 10 && equalFold(name, "set_config") || len(name) == 11 && equalFold(name, "pg_settings")
}

func (s *shaper) push(after uint8) bool {
	if s.depth == maxShapeDepth {
		return false
	}
	kind := uint8(afterOther)
	switch after {
	case afterCompares, afterIn:
		kind = afterIn
	case afterValues:
		kind = afterValues
	}
	s.open[s.depth] = kind
	s.depth++
	if kind != afterOther {
		s.after = afterWord
	}
	return true
}

func (s *shaper) pop() bool {
	if s.depth == 0 {
		return false
	}
	s.depth--
	if s.open[s.depth] == afterValues {
		s.after = afterRow
	}
	return true
}

// number reads digits, with all that belongs to the same token or to none.
func (s *shaper) number(text string, i int) (end int, constant string) {
	end, constant = digitsEnd(text, i), "0"
	if end+1 < len(text) && text[end] == '.' && classes[text[end+1]] == classDigit {
		end, constant = digitsEnd(text, end+1), "0.0"
	}
	joins := func(i int) bool {
		switch classes[text[i]] {
		case classWord, classDigit, classDot, classDollar:
			return true
		}
		return false
	}
	if s.positional || i > 0 && joins(i-1) || end < len(text) && joins(end) {
		return wordEnd(text, end), ""
	}
	return end, constant
}

func digitsEnd(text string, i int) int {
	for i < len(text) && classes[text[i]] == classDigit {
		i++
	}
	return i
}

func wordEnd(text string, i int) int {
	for i < len(text) && (classes[text[i]] == classWord || classes[text[i]] == classDigit) {
		i++
	}
	return i
}

// quotedEnd is where the string or identifier that begins at text[i] ends, or 0.
func quotedEnd(text string, i int) int {
	quote := text[i]
	for i++; i < len(text); i++ {
		if text[i] != quote {
			continue
		}
		if i+1 == len(text) || text[i+1] != quote {
			return i + 1
		}
		i++
	}
	return 0
}

func holdsNUL(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] == 0 {
			return true
		}
	}
	return false
}

// readableOperator reports false where a comment begins.
func readableOperator(run string) bool {
	for i := 1; i < len(run); i++ {
		if run[i-1] == '-' && run[i] == '-' || run[i-1] == '/' && run[i] == '*' {
			return false
		}
	}
	return true
}

func compares(operator string) bool {
	switch operator {
	case "=", "<>", "!=", "<", ">", "<=", ">=":
		return true
	}
	return false
}

// startsShaped tells whether the text begins with one of the keywords and
// something that isn't part of it.
func startsShaped(text string) bool {
	var keyword string
	switch text[0] | 0x20 {
	case 's':
		keyword = "select"
	case 'i':
		keyword = "insert"
	case 'u':
		keyword = "update"
	case 'd':
		keyword = "delete"
	case 'w':
		keyword = "with"
	default:
		return false
	}
	class := classes[text[len(keyword)]]
	return equalFold(text[:len(keyword)], keyword) && class != classWord && class != classDigit && class != classDollar
}

// equalFold compares word with a lower-case word of the same length.
func equalFold(word, lower string) bool {
	for i := 0; i < len(lower); i++ {
		if word[i]|0x20 != lower[i]|0x20 {
			return false
		}
	}
	return true
}

func blank(s string) bool {
	for i := 0; i < len(s); i++ {
		if classes[s[i]] != classSpace {
			return false
		}
	}
	return true
}

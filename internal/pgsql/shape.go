package pgsql

// maxShape bounds the texts that get a shape, in bytes.
const maxShape = 1024

// Classes of bytes, for shape.
const (
	classNone  = iota // not allowed in a shaped text
	classSpace        // between tokens
	classPunct        // ( ) , = < > * +
	classWord         // letters and "_"
	classDigit
	classDot
	classMinus
	classSemi
)

// classes tells the class of each byte.
var classes = func() (c [256]uint8) {
	for _, b := range " \t\n" {
		c[b] = classSpace
	}
	for _, b := range "(),=<>*+" {
		c[b] = classPunct
	}
	for b := 'a'; b <= 'z'; b++ {
		c[b], c[b-'a'+'A'] = classWord, classWord
	}
	for b := '0'; b <= '9'; b++ {
		c[b] = classDigit
	}
	c['_'], c['.'], c['-'], c[';'] = classWord, classDot, classMinus, classSemi
	return c
}()

// shape writes text into dst with its integer constants replaced by 0, and
// returns how many bytes that took. Texts of one shape share one parse, which
// is what makes "SELECT … WHERE id = 4711" cheap over the simple protocol.
// It reports false for a text that is to be read as it is.
//
// That sharing is sound because nothing that is told of a shaped text depends
// on an integer's value:
//
//   - Only letters, digits, blanks and , . ( ) = < > * + - ; _ occur. So there
//     are no strings, quoted identifiers, comments ("--" is excluded, "/" isn't
//     in the set), parameters, casts with "::", or escapes: the scanner splits
//     all texts of one shape into the same tokens.
//   - A run of digits is replaced only when it is a token of its own: neither
//     neighbour is a letter, digit, "_" or "." (1e5, 0x1F, 1_000, .5, 5., t1,
//     a.1 all stay). An integer token is ICONST, or FCONST when it doesn't fit
//     32 bits; the grammar takes FCONST in every place of an expression where
//     it takes ICONST. Where it doesn't (a type modifier, a precision), the
//     server refuses the large one itself.
//   - The one statement begins with SELECT, INSERT, UPDATE or DELETE (";" may
//     only end it), so no setting is given an integer, and no FETCH or MOVE a count.
//   - Integers stand for something else than a value only as positions in
//     ORDER BY, GROUP BY and DISTINCT ON: texts with the words order, group
//     or distinct have no shape.
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
	n, word := 0, 0 // word: length of the identifier that ends here
	for i := 0; i < len(text); i++ {
		b := text[i]
		class := classes[b]
		if class == classWord || class == classDigit && word > 0 {
			dst[n] = b
			n++
			word++
			continue
		}
		if word >= 5 && positional(text[i-word:i]) {
			return 0, false
		}
		word = 0
		switch class {
		case classNone:
			return 0, false
		case classMinus:
			if i+1 < len(text) && text[i+1] == '-' {
				return 0, false
			}
		case classSemi:
			if !blank(text[i+1:]) {
				return 0, false
			}
			// Texts with and without it, and with what white space behind
			// it, are the same statement.
			return n, true
		case classDigit:
			end := i + 1
			for end < len(text) && classes[text[end]] == classDigit {
				end++
			}
			if standsAlone(text, i, end) {
				dst[n] = '0'
				n++
			} else {
				n += copy(dst[n:], text[i:end])
				// What follows belongs to the same token, or to none.
				for end < len(text) && (classes[text[end]] == classWord || classes[text[end]] == classDigit) {
					dst[n] = text[end]
					n++
					end++
				}
			}
			i = end - 1
			continue
		}
		dst[n] = b
		n++
	}
	if word >= 5 && positional(text[len(text)-word:]) {
		return 0, false
	}
	return n, true
}

// startsShaped tells whether the text begins with one of the four keywords and
// a blank or an opening token.
func startsShaped(text string) bool {
	if w := classes[text[6]]; w == classWord || w == classDigit {
		return false
	}
	switch text[0] | 0x20 {
	case 's':
		return equalFold(text[:6], "select")
	case 'i':
		return equalFold(text[:6], "insert")
	case 'u':
		return equalFold(text[:6], "update")
	case 'd':
		return equalFold(text[:6], "delete")
	}
	return false
}

// positional tells whether word makes integers mean positions.
func positional(word string) bool {
	switch len(word) {
	case 5:
		return equalFold(word, "order") || equalFold(word, "group")
	case 8:
		return equalFold(word, "distinct")
	}
	return false
}

// equalFold compares word, which holds bytes of classWord and digits only,
// with a lower-case word of the same length.
func equalFold(word, lower string) bool {
	for i := 0; i < len(lower); i++ {
		if word[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// standsAlone tells whether the digits text[from:to] are a token of their own.
func standsAlone(text string, from, to int) bool {
	joins := func(i int) bool {
		c := classes[text[i]]
		return c == classWord || c == classDot || c == classDigit
	}
	return (from == 0 || !joins(from-1)) && (to == len(text) || !joins(to))
}

func blank(s string) bool {
	for i := 0; i < len(s); i++ {
		if classes[s[i]] != classSpace {
			return false
		}
	}
	return true
}

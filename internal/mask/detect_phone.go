package mask

// Bounds of the digits of a phone number (E.164), and of one within a country
// with the 0 that stands before the area.
const (
	minPhone, maxPhone       = 8, 15
	minNational, maxNational = 9, 12
)

// phoneAt returns the phone number to which the group of digits b[i:end] is the
// first; to is 0 if there is none. Phone numbers have no check digits, so only
// how they are written tells them from others: with "+" and the country, with
// 00 and the country, in North America's form, or in groups of which the first
// begins with one 0. Digits in one piece without "+" are none.
func phoneAt(b []byte, i, end int) (start, to int) {
	size := end - i
	if i > 0 && b[i-1] == '+' {
		return i - 1, internationalAt(b, i-1, i)
	}
	if b[i] == '0' {
		if size < 2 || size > 6 {
			return 0, 0
		}
		if b[i+1] == '0' {
			if size > 2 && countryCode(b[i+2:end]) == size-2 && end < len(b) && (b[end] == ' ' || b[end] == '-' || b[end] == '/') {
				return i, internationalAt(b, i, i+2)
			}
			return 0, 0
		}
		return nationalAt(b, i, end)
	}
	if size == 3 {
		return americanAt(b, i, end)
	}
	return 0, 0
}

// internationalAt reads the digits that follow + or 00.
func internationalAt(b []byte, start, i int) int {
	if within(b, start) || start > 0 && (b[start-1] == '+' || b[start-1] == '.' || b[start-1] == '-' || b[start-1] == '_') {
		return 0
	}
	if start > 1 && b[start] == '0' && b[start-1] == ' ' && digit(b[start-2]) {
		return 0 // one of a list of numbers
	}
	var digits [maxPhone]byte
	n, to, points, groups := 0, 0, 0, 0
	for i < len(b) {
		end := span(b, i, digit)
		if n+end-i > maxPhone {
			if to > 0 && b[to] == ' ' {
				break // what follows is another number
			}
			return 0
		}
		n += copy(digits[n:], b[i:end])
		to = end
		groups++
		if i = afterSeparator(b, end); i == 0 {
			break
		}
		if b[end] == '.' {
			points++
		}
	}
	code := countryCode(digits[:n])
	switch {
	case code == 0, n < minPhone, b[start] == '0' && n < minPhone+2, code == 1 && digits[0] == '1' && n != 11:
		return 0
	case points == 1 && groups == 2 && n < 10: // a decimal
		return 0
	case to < len(b) && (alnum(b[to]) || b[to] == '_' || b[to] == '+'):
		return 0
	case to+1 < len(b) && (b[to] == ',' || b[to] == ':') && digit(b[to+1]):
		return 0
	}
	return to
}

// afterSeparator returns where the next group of digits of a number begins, 0
// if none does: behind a blank, dash, point or stroke, or in parentheses.
func afterSeparator(b []byte, i int) int {
	next := i
	if next < len(b) && b[next] == ')' {
		next++
	}
	if next < len(b) && (b[next] == ' ' || b[next] == '-' || b[next] == '.' || b[next] == '/') {
		next++
	}
	if next < len(b) && b[next] == '(' {
		next++
	}
	if next == i || next == len(b) || !digit(b[next]) {
		return 0
	}
	return next
}

// countryCode is how many digits of a number are the country's, 0 if no country
// has them (ITU-T E.164, list of assigned codes).
func countryCode(d []byte) int {
	if len(d) < 1 {
		return 0
	}
	if d[0] == '1' || d[0] == '7' {
		return 1
	}
	if len(d) < 2 {
		return 0
	}
	switch two := int(d[0]-'0')*10 + int(d[1]-'0'); two {
	case 20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58,
		60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98:
		return 2
	case 21, 22, 23, 24, 25, 26, 29, 35, 37, 38, 42, 50, 59, 67, 68, 69, 80, 85, 87, 88, 96, 97, 99:
		if len(d) < 3 {
			return 0
		}
		switch two*10 + int(d[2]-'0') {
		case 210, 214, 215, 217, 219, 259, 292, 293, 294, 295, 296, 384, 422, 424, 425, 426, 427, 428, 429, 671, 684, 693, 694, 695, 696, 697, 698, 699,
			801, 802, 803, 804, 805, 806, 807, 809, 851, 854, 857, 858, 859, 871, 872, 873, 874, 875, 876, 877, 879, 884, 885, 887, 889, 969, 978, 990, 991, 997, 999:
			return 0
		}
		return 3
	}
	return 0
}

// americanAt reads (212) 555-0123, 212-555-0123, 212.555.0123 or 212 555 0123, and
// a 1 before it: areas and exchanges begin with 2 to 9 and aren't N11 (NANP).
func americanAt(b []byte, i, end int) (start, to int) {
	start = i
	if i > 0 && b[i-1] == '(' {
		start--
	}
	open := start < i
	if end == len(b) || !americanCode(b[i:end]) || b[i+1] == '9' {
		return 0, 0
	}
	separator := b[end]
	i = end + 1
	switch {
	case separator == ')':
		if !open {
			return 0, 0
		}
		if i < len(b) && (b[i] == ' ' || b[i] == '-') {
			i++
		}
	case separator != '-' && separator != '.' && separator != ' ':
		return 0, 0
	}
	const rest = len("555-0123")
	if len(b)-i < rest {
		return 0, 0
	}
	v := b[i : i+rest]
	if span(v, 0, digit) != 3 || span(v, 4, digit) != rest || !americanCode(v[:3]) || v[3] != separator && (separator != ')' || v[3] != '-' && v[3] != ' ' && v[3] != '.') {
		return 0, 0
	}
	if start >= 2 && b[start-2] == '1' && (b[start-1] == '-' || b[start-1] == '.' || b[start-1] == ' ') && (start == 2 || !alnum(b[start-3])) {
		start -= 2
	}
	if !apart(b, start, i+rest, separator) {
		return 0, 0
	}
	return start, i + rest
}

func americanCode(d []byte) bool { return d[0] >= '2' && (d[1] != '1' || d[2] != '1') }

// nationalAt reads numbers of countries that put a 0 before the area: 0731
// 1234567, (0731) 12 34 56, 030/1234567, 01 23 45 67 89, 020-7946-0958.
func nationalAt(b []byte, i, end int) (start, to int) {
	start = i
	n, groups, widest := end-i, 1, end-i
	first := byte(')')
	switch {
	case end == len(b):
		return 0, 0
	case i > 0 && b[i-1] == '(':
		if start = i - 1; b[end] != ')' {
			return 0, 0
		}
		if end++; end < len(b) && (b[end] == ' ' || b[end] == '-' || b[end] == '/') {
			end++
		}
	case b[end] == ' ' || b[end] == '-' || b[end] == '/' || b[end] == '.':
		first = b[end]
		end++
	default:
		return 0, 0
	}
	area := n
	var separator byte // between the groups behind the area
	pairs, last := 0, 0
	for at := end; ; {
		to = span(b, at, digit)
		last = to - at
		if n += last; last < 2 || last > 8 || n > maxNational || pairs > 0 && last != 2 {
			return 0, 0
		}
		if last == 2 {
			pairs++
		}
		groups, widest = groups+1, max(widest, last)
		if to+1 >= len(b) || b[to] != ' ' && b[to] != '-' && b[to] != '.' || !digit(b[to+1]) || separator != 0 && b[to] != separator {
			break
		}
		separator, at = b[to], to+1
	}
	switch {
	case n < minNational, area == 2 && groups < 3, groups == 2 && last < 4, pairs == 1:
		return 0, 0
	case first == '.' && (groups < 3 || groups == 4 && widest <= 3): // a decimal, an IPv4 address
		return 0, 0
	case first == '-' && (area == 5 && groups == 2 && last == 4 || area == 4 && groups == 3 && last == 4 && n == 12): // a US postal code, an id
		return 0, 0
	}
	if separator != ' ' {
		separator = first
	}
	if !apart(b, start, to, separator) {
		return 0, 0
	}
	return start, to
}

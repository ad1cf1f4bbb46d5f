package mask

// Lengths of card numbers (ISO/IEC 7812-1; 13 is the shortest still issued).
const minCard, maxCard = 13, 19

// firstGroup is how many digits a card number begins with at least before the
// first separator.
const firstGroup = 4

// findCard looks for card numbers. No run of fewer digits than firstGroup begins
// one, so it looks at every fourth character only.
func findCard(b []byte, from int) (int, int, bool) {
	for i := from + firstGroup - 1; i < len(b); {
		if !digit(b[i]) {
			i += firstGroup
			continue
		}
		start, end := i, i+1
		for start > from && digit(b[start-1]) {
			start--
		}
		for end < len(b) && digit(b[end]) {
			end++
		}
		if end-start >= firstGroup && (start == 0 || !digit(b[start-1])) {
			if to := cardAt(b, start, end); to > 0 {
				return start, to, true
			}
		}
		i = end + firstGroup
	}
	return 0, 0, false
}

// cardAt returns the end of the card number that begins with the group of
// digits b[start:end], or 0: 13 to 19 digits, in one piece or in groups of three
// to six, the last one maybe less, with the same blank or dash between them, that begin with the digits
// of a known scheme, have a length that it uses, and pass the Luhn check.
func cardAt(b []byte, start, end int) int {
	switch b[start] {
	case '2', '3', '4', '5', '6', '8':
	default:
		return 0 // no scheme's
	}
	var digits [maxCard]byte
	n, longest := 0, 0
	var separator byte
	for {
		if n+end-start > maxCard {
			return longest
		}
		for ; start < end; start++ {
			digits[n] = b[start] - '0'
			n++
		}
		if n >= minCard && isCard(digits[:n]) {
			longest = end
		}
		if end+1 >= len(b) || b[end] != ' ' && b[end] != '-' || separator != 0 && b[end] != separator {
			return longest
		}
		separator = b[end]
		start = end + 1
		for end = start; end < len(b) && digit(b[end]); {
			if end++; end-start > 6 {
				return longest
			}
		}
		if end == start || end-start < 3 && n < 16 {
			return longest
		}
	}
}

// isCard checks scheme, length and check digit.
func isCard(d []byte) bool {
	return len(d) >= minCard && len(d) <= maxCard && scheme(d) && luhn(d)
}

// scheme checks the issuer's digits and the lengths that go with them.
func scheme(d []byte) bool {
	n := len(d)
	two := int(d[0])*10 + int(d[1])
	four := two*100 + int(d[2])*10 + int(d[3])
	switch {
	case d[0] == 4: // Visa
		return n == 13 || n == 16 || n == 19
	case two >= 51 && two <= 55, four >= 2221 && four <= 2720: // Mastercard
		return n == 16
	case two == 34, two == 37: // American Express
		return n == 15
	case two == 36, two == 38, two == 39, four >= 3000 && four <= 3059: // Diners Club
		return n >= 14
	case four >= 3528 && four <= 3589: // JCB
		return n >= 16
	case two == 62, two == 65, two == 60, two == 64: // UnionPay, Discover, RuPay
		return n >= 16
	case two == 50, two >= 56 && two <= 58, two == 63, two == 67, two == 81: // Maestro, RuPay
		return n >= 16
	case four >= 2200 && four <= 2204: // Mir
		return n >= 16
	}
	return false
}

// luhn is the check of ISO/IEC 7812-1 annex B.
func luhn(d []byte) bool {
	sum := 0
	for i := range d {
		v := int(d[len(d)-1-i])
		if i%2 == 1 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}

package mask

// Lengths of card numbers (ISO/IEC 7812-1; 13 is the shortest still issued).
const minCard, maxCard = 13, 19

// findCard looks for card numbers: 13 to 19 digits, in groups with single
// blanks or dashes between them or without, that begin with the digits of a
// known scheme, have a length that it uses, and pass the Luhn check.
func findCard(b []byte, from int) (int, int, bool) {
	for s := from; s+minCard <= len(b); s++ {
		if !digit(b[s]) || s > 0 && digit(b[s-1]) {
			continue
		}
		if end := cardAt(b, s); end > 0 {
			return s, end, true
		}
	}
	return 0, 0, false
}

// cardAt returns the end of the card number that begins at s, or 0. It looks
// at forty characters at most.
func cardAt(b []byte, s int) int {
	var digits [maxCard]byte
	n := 0
	for i := s; i < len(b) && n < maxCard; i++ {
		c := b[i]
		if !digit(c) {
			if c != ' ' && c != '-' || i+1 == len(b) || !digit(b[i+1]) {
				return 0
			}
			continue
		}
		digits[n] = c - '0'
		n++
		if n >= minCard && (i+1 == len(b) || !digit(b[i+1])) && isCard(digits[:n]) {
			return i + 1
		}
	}
	return 0
}

func digit(c byte) bool { return c-'0' <= 9 }

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

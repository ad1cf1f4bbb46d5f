package mask

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

func digit(c byte) bool { return c-'0' <= 9 }

func letter(c byte) bool { return c|0x20-'a' < 26 }

// shortestNumber is the length of the shortest find of numberSet: +12345678.
const shortestNumber = 9

// digitsOf tells which of the 64 characters from at on are digits, eight at a
// time. b has 8 at least.
func digitsOf(b []byte, at int) (digits uint64) {
	for n := 0; n < 64 && at < len(b); n, at = n+8, at+8 {
		var x uint64
		if at+8 <= len(b) {
			x = binary.LittleEndian.Uint64(b[at:])
		} else {
			x = binary.LittleEndian.Uint64(b[len(b)-8:]) >> (8 * (at + 8 - len(b)))
		}
		const low, top = 0x7f7f7f7f7f7f7f7f, 0x8080808080808080
		t := x ^ 0x3030303030303030 // 0 to 9 for digits
		m := ^(t&low + 0x7676767676767676 | t) & top
		digits |= m >> 7 * 0x0102040810204080 >> 56 << n // the top bits side by side
	}
	return digits
}

// numbers tells which of the detectors of numberSet find something. One pass
// over the digits serves them all: of all groups it looks only at those of four,
// at those that begin with 0, and at those behind a letter.
func (s detectorSet) numbers(b []byte) (found detectorSet) {
	if len(b) < shortestNumber {
		return 0
	}
	next := digitsOf(b, 0)
	var before uint64
	for at := 0; at < len(b); at += 64 {
		here := next
		next = digitsOf(b, at+64)
		// Groups of two digits and more, and of them those of four and more.
		two := here &^ (here<<1 | before) & (here>>1 | next<<63)
		four := two & (here>>2 | next<<62) & (here>>3 | next<<61)
		for ; two != 0; two &= two - 1 {
			i := at + bits.TrailingZeros64(two)
			if two&-two&four != 0 || b[i] == '0' || i > 0 && b[i-1] >= 'A' {
				found |= (s &^ found).number(b, i, span(b, i+2, digit))
			}
		}
		before = here >> 63
	}
	return found
}

// number tells which of the detectors have a find in which the group of digits
// b[i:end] has the place that numbers looks for.
func (s detectorSet) number(b []byte, i, end int) (found detectorSet) {
	size := end - i
	may := mayBegin(b, i, end) & s
	if may.has(iban) {
		if _, to := iban.numberAt(b, i, end); to > 0 {
			found |= 1 << iban
		}
	}
	if may.has(paymentCard) && cardAt(b, i, end) > 0 {
		found |= 1 << paymentCard
	}
	if b[i] == '0' && may.has(phone) {
		if _, to := phoneAt(b, i, end); to > 0 {
			found |= 1 << phone
		}
	}
	if size != 4 || i < 7 || !digit(b[i-2]) || !digit(b[i-3]) {
		return found
	}
	// The last four of 123-45-6789, (212) 555-0123 or 212-555-0123.
	if b[i-4] == b[i-1] && s.has(usSSN) && digit(b[i-7]) && ssnAt(b, i-7) > 0 {
		found |= 1 << usSSN
	}
	if digit(b[i-4]) && s.has(phone) {
		for _, area := range [...]int{i - 8, i - 9} {
			if area >= 0 && span(b[:area+3], area, digit) == area+3 {
				if _, to := americanAt(b, area, area+3); to > 0 {
					found |= 1 << phone
				}
			}
		}
	}
	return found
}

// plus tells whether a phone number begins with a +.
func (s detectorSet) plus(b []byte) detectorSet {
	for i := 0; ; i++ {
		next := bytes.IndexByte(b[i:], '+')
		if i += next; next < 0 || i+1 == len(b) {
			return 0
		}
		if digit(b[i+1]) && internationalAt(b, i, i+1) > 0 {
			return s & (1 << phone)
		}
	}
}

// mayBegin is a quick look at which finds the group of digits b[i:end] may be the
// first one of.
func mayBegin(b []byte, i, end int) (may detectorSet) {
	var before, after byte
	if i > 0 {
		before = b[i-1]
	}
	if end < len(b) {
		after = b[end]
	}
	size := end - i
	if size >= firstGroup && (after == ' ' || after == '-' || size >= minCard) {
		may = 1 << paymentCard
	}
	if letter(before) {
		if i >= 2 && size >= 2 && letter(b[i-2]) {
			may |= 1 << iban
		}
		if !escaped(b, i) {
			return may
		}
	}
	switch {
	case before == '+', b[i] == '0' && size >= 2 && size <= 6:
		may |= 1 << phone
	case size == 3 && (after == '-' || after == ' ' || after == ')' || after == '.'):
		may |= 1 << phone
	}
	if size == 3 && (after == '-' || after == ' ') && end+3 < len(b) && b[end+3] == after {
		may |= 1 << usSSN
	}
	return may
}

// numberAt returns the find to which the group of digits b[i:end] is the first, or
// behind the first sign or letters; to is 0 if there is none.
func (d detector) numberAt(b []byte, i, end int) (start, to int) {
	switch d {
	case iban:
		if end-i >= 2 && i >= 2 && (b[i-1]-'A' < 26 && b[i-2]-'A' < 26 || b[i-1]-'a' < 26 && b[i-2]-'a' < 26) {
			return i - 2, ibanAt(b, i-2)
		}
	case usSSN:
		if end-i == 3 {
			return i, ssnAt(b, i)
		}
	case phone:
		return phoneAt(b, i, end)
	}
	return 0, 0
}

// findNumber looks for the first find of a detector of numberSet that begins at
// or behind from.
func (d detector) findNumber(b []byte, from int) (int, int, bool) {
	for i := from; i < len(b); {
		if !digit(b[i]) {
			i++
			continue
		}
		end := span(b, i+1, digit)
		if (i > from || i == 0 || !digit(b[i-1])) && mayBegin(b, i, end).has(d) {
			if start, to := d.numberAt(b, i, end); to > 0 && start >= from {
				return start, to, true
			}
		}
		i = end
	}
	return 0, 0, false
}

// ssnAt returns the end of the US social security number whose first three
// digits are at b[i], or 0: 123-45-6789 or 123 45 6789, no area, group or
// serial of zeros, and no area that is never given out (20 CFR 422.103).
func ssnAt(b []byte, i int) int {
	const length = len("123-45-6789")
	if len(b)-i < length {
		return 0
	}
	v := b[i : i+length]
	separator := v[3]
	if separator != '-' && separator != ' ' || v[6] != separator || !digit(v[4]) || !digit(v[5]) ||
		!digit(v[7]) || !digit(v[8]) || !digit(v[9]) || !digit(v[10]) {
		return 0
	}
	area, group, serial := string(v[:3]), string(v[4:6]), string(v[7:])
	if area == "000" || area == "666" || area[0] == '9' || group == "00" || serial == "0000" {
		return 0
	}
	if !apart(b, i, i+length, separator) {
		return 0
	}
	return i + length
}

// apart tells whether a number stands by itself and isn't a part of a longer
// one, an identifier, a date or a decimal. Numbers with blanks in them can't
// stand beside others.
func apart(b []byte, start, end int, separator byte) bool {
	if within(b, start) {
		return false
	}
	if start > 0 {
		switch b[start-1] {
		case '_', '#', '$':
			return false
		case '-', '.', ',', '/', ':', '+':
			if start > 1 && (digit(b[start-2]) || alnum(b[start-2]) && (b[start-1] == '-' || b[start-1] == '.')) {
				return false
			}
		case ' ':
			if separator == ' ' && start > 1 && digit(b[start-2]) {
				return false
			}
		}
	}
	if end < len(b) {
		switch c := b[end]; {
		case alnum(c), c == '_':
			return false
		case end+1 < len(b) && (digit(b[end+1]) && (c == '.' || c == ',' || c == '/' || c == ':' || c == ' ' && separator == ' ') || alnum(b[end+1]) && c == '-'):
			return false
		}
	}
	return true
}

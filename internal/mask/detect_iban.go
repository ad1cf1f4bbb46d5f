package mask

import "strings"

// ibanAt returns the end of the IBAN (ISO 13616) that begins at b[start] with two
// letters and two digits, or 0: in one piece, in groups of four with dashes, or
// in groups of any size with blanks; as long as its country's are, with the
// right check digits, in capitals or in small letters without dashes: UUIDs may
// look like those.
func ibanAt(b []byte, start int) int {
	small := b[start] >= 'a'
	length := ibanLength(b[start]&^0x20, b[start+1]&^0x20)
	if length == 0 || len(b)-start < length || within(b, start) {
		return 0
	}
	var separator byte
	remainder := 0
	var front [4]byte // counts at the end
	i := start
	for n := range length {
		if i+1 < len(b) && n > 0 {
			switch c := b[i]; {
			case c == ' ' && n >= len(front) && separator != '-', c == '-' && n%len(front) == 0 && separator != ' ' && !small:
				separator = c
				i++
			case separator == '-' && n%len(front) == 0:
				return 0
			}
		}
		if i >= len(b) {
			return 0
		}
		c := b[i]
		if small && c-'a' < 26 {
			c -= 0x20
		} else if !upperDigit(c) || small && !digit(c) {
			return 0
		}
		if n < len(front) {
			front[n] = c
		} else {
			remainder = mod97(remainder, c)
		}
		i++
	}
	if i < len(b) && alnum(b[i]) {
		return 0
	}
	for _, c := range front {
		remainder = mod97(remainder, c)
	}
	if remainder != 1 {
		return 0
	}
	return i
}

// mod97 goes on with a character: ISO 7064 MOD 97-10, letters count from 10.
func mod97(remainder int, c byte) int {
	if digit(c) {
		return (remainder*10 + int(c-'0')) % 97
	}
	return (remainder*100 + int(c-'A') + 10) % 97
}

// ibanLengths are the countries of SWIFT's IBAN registry, by the length of their
// IBANs.
var ibanLengths = [...]struct {
	length    uint8
	countries string
}{
	{15, "NO"},
	{16, "BE"},
	{18, "DK FI FK FO GL NL"},
	{19, "MK SI"},
	{20, "AT BA EE KZ LT LU MN XK"},
	{21, "CH HR LI LV"},
	{22, "BG BH CR DE GB GE IE ME RS VA"},
	{23, "AE GI IL IQ OM SO TL"},
	{24, "AD CZ ES MD PK RO SA SE SK TN VG"},
	{25, "LY PT ST"},
	{26, "IS TR"},
	{27, "BI DJ FR GR IT MC MR SM"},
	{28, "AL AZ BY CY DO GT HN HU LB NI PL SV"},
	{29, "BR EG PS QA UA"},
	{30, "JO KW MU YE"},
	{31, "MT SC"},
	{32, "LC"},
	{33, "RU"},
}

var ibanLengthOf = func() (m [26 * 26]uint8) {
	for _, l := range ibanLengths {
		for name := range strings.FieldsSeq(l.countries) {
			m[int(name[0]-'A')*26+int(name[1]-'A')] = l.length
		}
	}
	return m
}()

func ibanLength(a, b byte) int {
	if a, b = a-'A', b-'A'; a >= 26 || b >= 26 {
		return 0
	}
	return int(ibanLengthOf[int(a)*26+int(b)])
}

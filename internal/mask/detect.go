package mask

import (
	"bytes"
	"slices"
)

// detector finds one kind of secret in text.
type detector uint8

// The detectors, in the order in which they look at a value: a key that holds
// something like an e-mail address is gone before the next one looks.
const (
	privateKey detector = iota
	jwt
	cloudKey
	urlPassword
	email
	iban
	paymentCard
	usSSN
	phone
	detectorCount
)

var detectorNames = [detectorCount]string{"private-key", "jwt", "cloud-key", "url-password", "email", "iban", "payment-card", "us-ssn", "phone"}

// Detectors are the names of all detectors, as in a Mask document's "detect".
func Detectors() []string {
	names := slices.Clone(detectorNames[:])
	slices.Sort(names)
	return names
}

type detectorSet uint16

// numberSet are the detectors whose finds hold groups of digits.
const numberSet detectorSet = 1<<iban | 1<<paymentCard | 1<<usSSN | 1<<phone

func (s detectorSet) has(d detector) bool { return s&(1<<d) != 0 }

// shortest is the length of the shortest text that any detector finds: a@b.co.
const shortest = 6

// Marks of characters that a detector's finds can't be without.
const (
	markAt    uint16 = 1 << iota // email, url-password
	markDash                     // private-key, xoxb-, glpat-
	markJ                        // jwt
	markI                        // AKIA, ASIA, AIza, BEGIN
	markUnder                    // ghp_, sk_live_
	markDigit                    // iban, payment-card, us-ssn, phone
	markDot                      // jwt, email
	markLead                     // xoxb-, glpat-, sk-ant-, GOCSPX-
	markRare                     // AccountKey, SG., Q~
	markColon                    // url-password
	markPlus                     // phone
)

var marks = func() (m [256]uint16) {
	m['@'], m['-'], m['J'], m['I'], m['_'], m['.'], m[':'], m['+'] = markAt, markDash, markJ, markI, markUnder, markDot, markColon, markPlus
	m['g'], m['x'], m['k'], m['X'] = markLead, markLead, markLead, markLead
	m['K'], m['G'], m['~'] = markRare, markRare, markRare
	for b := '0'; b <= '9'; b++ {
		m[b] = markDigit
	}
	return m
}()

// possible tells which detectors can find something at all. It runs on every
// value of every row, so it is one pass over a table, and one over the digits
// if there are any.
func (s detectorSet) possible(b []byte) detectorSet {
	if len(b) < shortest {
		return 0
	}
	var seen uint16
	i := 0
	for ; i+8 <= len(b); i += 8 {
		c := b[i : i+8 : i+8]
		seen |= marks[c[0]] | marks[c[1]] | marks[c[2]] | marks[c[3]] |
			marks[c[4]] | marks[c[5]] | marks[c[6]] | marks[c[7]]
	}
	for ; i < len(b); i++ {
		seen |= marks[b[i]]
	}
	var can detectorSet
	if seen&(markAt|markDot) == markAt|markDot {
		can |= 1 << email
	}
	if seen&(markAt|markColon) == markAt|markColon {
		can |= 1 << urlPassword
	}
	if seen&(markDash|markI) == markDash|markI {
		can |= 1 << privateKey
	}
	if s.has(cloudKey) && (seen&(markI|markUnder|markRare) != 0 || seen&(markDash|markLead) == markDash|markLead && dashed(b)) {
		can |= 1 << cloudKey
	}
	if seen&(markJ|markDot) == markJ|markDot {
		can |= 1 << jwt
	}
	switch {
	case seen&markDigit == 0:
	case s&numberSet == 1<<paymentCard:
		if len(b) >= minCard {
			can |= 1 << paymentCard
		}
	case s&numberSet != 0:
		if can |= (s & numberSet).numbers(b); seen&markPlus != 0 {
			can |= s.plus(b)
		}
	}
	return can & s
}

// find looks for the first find of a detector at or behind from.
func (d detector) find(b []byte, from int) (start, end int, ok bool) {
	switch d {
	case privateKey:
		return findPrivateKey(b, from)
	case jwt:
		return findJWT(b, from)
	case cloudKey:
		return findCloudKey(b, from)
	case urlPassword:
		return findURLPassword(b, from)
	case email:
		return findEmail(b, from)
	case paymentCard:
		return findCard(b, from)
	}
	return d.findNumber(b, from)
}

// replacement is what stands for a find.
func (d detector) replacement() string { return "[" + detectorNames[d] + "]" }

// replaceRounds bounds how often a text is looked at again after something was
// found in it: what a find leaves behind may be one of another detector.
const replaceRounds = 4

// replace returns b with all finds replaced, or b itself if there is none, and
// counts them by detector. json keeps a JSON text valid.
func (s detectorSet) replace(b []byte, json bool, counts *[detectorCount]uint64) []byte {
	for range replaceRounds {
		can := s.possible(b)
		if can == 0 {
			return b
		}
		before := *counts
		for d := range detectorCount {
			if can.has(d) {
				b = d.replaceAll(b, json, counts)
			}
		}
		if *counts == before {
			break
		}
	}
	return b
}

func (d detector) replaceAll(b []byte, json bool, counts *[detectorCount]uint64) []byte {
	start, end, ok := d.find(b, 0)
	if !ok {
		return b
	}
	out := make([]byte, 0, len(b)+16)
	done := 0
	quoted := false // the text up to done ends within a JSON string
	for ok {
		out = append(out, b[done:start]...)
		quoted = json && inString(b[done:start], quoted)
		switch {
		case !json:
			out = append(out, d.replacement()...)
		case !quoted:
			out = append(append(append(out, '"'), d.replacement()...), '"')
		default:
			out = append(out, d.replacement()...)
			out, end, quoted = d.restOfStrings(out, b, start, end)
		}
		counts[d]++
		done = end
		start, end, ok = d.find(b, done)
	}
	return append(out, b[done:]...)
}

// restOfStrings ends a find with the JSON string that it begins in. A private key
// may go on in further strings, a line in each: those are replaced as well, up to
// the one in which it ends. It returns where the text goes on, and whether that
// is within a string.
func (d detector) restOfStrings(out, b []byte, start, end int) (_ []byte, done int, quoted bool) {
	done = stringEnd(b[:end], start)
	if done == end {
		return out, end, true
	}
	if !bytes.Contains(b[done:end], []byte("-----END ")) {
		return out, done, true // to the end of the string
	}
	for {
		open := bytes.IndexByte(b[done+1:end], '"') // of the next string
		if open < 0 {
			return out, done, true
		}
		open += done + 2
		out = append(append(out, b[done:open]...), d.replacement()...)
		if done = stringEnd(b, open); done >= end {
			return out, done, true
		}
	}
}

// stringEnd is the place of the quote that ends the JSON string that b[i] is in.
func stringEnd(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(b)
}

// inString tells whether the end of a piece of JSON is within a string, given
// whether its begin is.
func inString(b []byte, quoted bool) bool {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		}
	}
	return quoted
}

// any tells which detector finds something, for values that can't hold a
// replacement.
func (s detectorSet) any(b []byte) (detector, bool) {
	can := s.possible(b)
	for d := range detectorCount {
		if can.has(d) {
			if _, _, ok := d.find(b, 0); ok {
				return d, true
			}
		}
	}
	return 0, false
}

// Text covers what the detectors find in free text, such as an error message.
// It returns s itself when there is nothing.
func (r *Rules) Text(s string) string {
	if r.detectors == 0 || len(s) < shortest {
		return s
	}
	var counts [detectorCount]uint64
	b := []byte(s)
	if r.detectors.possible(b) == 0 {
		return s
	}
	if out := r.detectors.replace(b, false, &counts); counts != [detectorCount]uint64{} {
		return string(out)
	}
	return s
}

// Bytes is [Rules.Text] for a piece of a stream in text, such as a line of
// COPY. It returns b itself when there is nothing.
func (r *Rules) Bytes(b []byte) []byte {
	var counts [detectorCount]uint64
	return r.detectors.replace(b, false, &counts)
}

// Characters of keys and tokens.
func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func base64url(c byte) bool { return alnum(c) || c == '-' || c == '_' }

// escaped tells whether what is before b[i] is the end of an escape such as \n
// or \u0020, as JSON and COPY write them, and so no letter.
func escaped(b []byte, i int) bool {
	if i >= 2 && b[i-2] == '\\' {
		switch b[i-1] {
		case 'n', 'r', 't', 'b', 'f', 'v':
			return true
		}
	}
	return i >= 6 && b[i-6] == '\\' && b[i-5] == 'u' && span(b[:i], i-4, hexDigit) == i
}

func hexDigit(c byte) bool { return digit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

// within tells whether b[i] goes on with a word that began before it.
func within(b []byte, i int) bool { return i > 0 && alnum(b[i-1]) && !escaped(b, i) }

// span returns the end of the run of characters of a class from i on.
func span(b []byte, i int, class func(byte) bool) int {
	for i < len(b) && class(b[i]) {
		i++
	}
	return i
}

func findJWT(b []byte, from int) (int, int, bool) {
	for {
		i := bytes.Index(b[from:], []byte("ey")) // {" or, seldom, { and a blank
		if i < 0 {
			return 0, 0, false
		}
		start := from + i
		from = start + 2
		if from == len(b) || b[from] != 'J' && b[from] != 'A' {
			continue
		}
		if start > 0 && base64url(b[start-1]) && !escaped(b, start) {
			continue
		}
		header := span(b, start, base64url)
		if header-start < 10 || header == len(b) || b[header] != '.' {
			continue
		}
		payload := span(b, header+1, base64url)
		if payload-header < 5 || payload == len(b) || b[payload] != '.' {
			continue
		}
		end := span(b, payload+1, base64url)                        // empty for "alg": "none"
		if end+1 < len(b) && b[end] == '.' && base64url(b[end+1]) { // an encrypted one has five parts
			end = span(b, end+1, func(c byte) bool { return base64url(c) || c == '.' })
		}
		return start, end, true
	}
}

func findPrivateKey(b []byte, from int) (int, int, bool) {
	for {
		i := bytes.Index(b[from:], []byte("-----BEGIN "))
		if i < 0 {
			return 0, 0, false
		}
		start := from + i
		from = start + 11
		label := span(b, from, func(c byte) bool { return c >= 'A' && c <= 'Z' || c == ' ' || c >= '0' && c <= '9' })
		if !bytes.Contains(b[from:label], []byte("PRIVATE KEY")) {
			continue
		}
		// To the end of the END line; without one, to the end of the text.
		e := bytes.Index(b[label:], []byte("-----END "))
		if e < 0 {
			return start, len(b), true
		}
		line := label + e + len("-----END ")
		if close := bytes.Index(b[line:], []byte("-----")); close >= 0 {
			return start, line + close + len("-----"), true
		}
		return start, len(b), true
	}
}

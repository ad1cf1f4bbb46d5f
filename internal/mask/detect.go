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
	email
	paymentCard
	detectorCount
)

var detectorNames = [detectorCount]string{"private-key", "jwt", "cloud-key", "email", "payment-card"}

// Detectors are the names of all detectors, as in a Mask document's "detect".
func Detectors() []string {
	names := slices.Clone(detectorNames[:])
	slices.Sort(names)
	return names
}

type detectorSet uint8

func (s detectorSet) has(d detector) bool { return s&(1<<d) != 0 }

// shortest is the length of the shortest text that any detector finds: a@b.co.
const shortest = 6

// Marks of characters that a detector's finds can't be without.
const (
	markAt    uint8 = 1 << iota // email
	markDash                    // private-key, xoxb-, glpat-
	markJ                       // jwt
	markI                       // AKIA, ASIA, AIza, BEGIN
	markUnder                   // ghp_, sk_live_
	markDigit                   // payment-card
	markDot                     // jwt, email
	markGX                      // xoxb-, glpat-
)

var marks = func() (m [256]uint8) {
	m['@'], m['-'], m['J'], m['I'], m['_'], m['.'] = markAt, markDash, markJ, markI, markUnder, markDot
	m['g'], m['x'] = markGX, markGX
	for b := '0'; b <= '9'; b++ {
		m[b] = markDigit
	}
	return m
}()

// possible tells which detectors can find something at all. It runs on every
// value of every row, so it is one pass over a table.
func (s detectorSet) possible(b []byte) detectorSet {
	if len(b) < shortest {
		return 0
	}
	var seen uint8
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
	if seen&(markDash|markI) == markDash|markI {
		can |= 1 << privateKey
	}
	if seen&(markI|markUnder) != 0 || seen&(markDash|markGX) == markDash|markGX {
		can |= 1 << cloudKey
	}
	if seen&(markJ|markDot) == markJ|markDot {
		can |= 1 << jwt
	}
	if seen&markDigit != 0 && len(b) >= minCard {
		can |= 1 << paymentCard
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
	case email:
		return findEmail(b, from)
	}
	return findCard(b, from)
}

// replacement is what stands for a find.
func (d detector) replacement() string { return "[" + detectorNames[d] + "]" }

// replace returns b with all finds replaced, or b itself if there is none, and
// counts them by detector. json keeps a JSON text valid.
func (s detectorSet) replace(b []byte, json bool, counts *[detectorCount]uint64) []byte {
	can := s.possible(b)
	for d := range detectorCount {
		if can.has(d) {
			b = d.replaceAll(b, json, counts)
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
		if json && !quoted {
			out = append(append(append(out, '"'), d.replacement()...), '"')
		} else {
			out = append(out, d.replacement()...)
		}
		counts[d]++
		done = end
		start, end, ok = d.find(b, done)
	}
	return append(out, b[done:]...)
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

// span returns the end of the run of characters of a class from i on.
func span(b []byte, i int, class func(byte) bool) int {
	for i < len(b) && class(b[i]) {
		i++
	}
	return i
}

func findJWT(b []byte, from int) (int, int, bool) {
	for {
		i := bytes.Index(b[from:], []byte("eyJ"))
		if i < 0 {
			return 0, 0, false
		}
		start := from + i
		from = start + 3
		if start > 0 && base64url(b[start-1]) {
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
		end := span(b, payload+1, base64url) // empty for "alg": "none"
		if end < len(b) && b[end] == '.' {   // an encrypted one has five parts
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

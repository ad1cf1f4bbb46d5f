package mask

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"unicode"
	"unicode/utf8"

	"chaperone.dev/chaperone/pkg/policy"
)

const redacted = "[redacted]"

func appendNull(out []byte) []byte { return append(out, 0xff, 0xff, 0xff, 0xff) }

// coverFunc appends what stands for v to out; false: NULL does, and out comes
// back as it was. out and v don't overlap.
type coverFunc func(out, v []byte) ([]byte, bool)

// covering is a transform made ready for the values of one type in one format.
// It isn't safe for concurrent use.
type covering struct{ cover coverFunc }

// newCovering makes a transform ready. A type that can't hold what the
// transform makes gets what redact makes of it, and one that can't hold that
// either becomes NULL.
func newCovering(with policy.Transform, keys Keys, oid uint32, format int16) *covering {
	t, binary := typeOf(oid), format == 1
	elem := t.family
	if t.family == array {
		elem = familyOf(t.elem)
	}
	cover := coverOfFamily(with, keys, elem, binary)
	if t.family == array && cover != nil {
		cover = coverArray(t.elem, binary, cover)
	}
	return &covering{cover}
}

// appendValue appends what stands for v, or returns false for NULL. It never
// fails: what can't be read as the type that it is said to be becomes NULL.
func (c *covering) appendValue(out, v []byte) (_ []byte, ok bool) {
	if c.cover == nil {
		return out, false
	}
	return c.cover(out, v)
}

// coverOfFamily is nil where only NULL can stand for a value.
func coverOfFamily(with policy.Transform, keys Keys, f family, binary bool) coverFunc {
	var cover coverFunc
	switch {
	case with.Null:
		return nil
	case with.Fixed != "":
		return constantCover(fixedValue(with.Fixed, f, binary))
	case with.HMAC != "":
		cover = hmacCover(keys[with.HMAC], f, binary)
	case with.FormatPreserving != "":
		cover = formatCover(keys[with.FormatPreserving], f, binary)
	case with.Truncate != "":
		cover = truncateCover(with.Truncate == policy.TruncateMonth, f, binary)
	case (with.KeepFirst > 0 || with.KeepLast > 0) && f == text:
		cover = func(out, v []byte) ([]byte, bool) {
			if with.KeepFirst > 0 {
				return keep(out, v, with.KeepFirst, true), true
			}
			return keep(out, v, with.KeepLast, false), true
		}
	}
	if cover == nil {
		cover = constantCover(redactedValue(f, binary))
	}
	return cover
}

// constantCover covers every value with the same; nil is NULL.
func constantCover(value []byte) coverFunc {
	if value == nil {
		return nil
	}
	return func(out, _ []byte) ([]byte, bool) { return append(out, value...), true }
}

func redactedValue(f family, binary bool) []byte {
	switch f {
	case text, xml:
		return []byte(redacted)
	case jsonText, jsonb:
		return jsonValue(f, binary, `"`+redacted+`"`)
	case bytea:
		return byteaValue([]byte(redacted), binary)
	}
	return nil
}

// derivedValue stands for all values that are made from masked ones, and for
// NULL; nil: NULL stands for all of them.
func derivedValue(with policy.Transform, oid uint32, format int16) []byte {
	if with.Null {
		return nil
	}
	return redactedValue(typeOf(oid).family, format == 1)
}

func jsonValue(f family, binary bool, json string) []byte {
	if f == jsonb && binary {
		json = "\x01" + json // the version of the format
	}
	return []byte(json)
}

func byteaValue(raw []byte, binary bool) []byte {
	if binary {
		return raw
	}
	return hex.AppendEncode([]byte(`\x`), raw)
}

// codeSize is how much of an HMAC stands for a value: two of a thousand million
// values share these 128 bits with a chance below 10^-20.
const codeSize = 16

// coder makes codes. It isn't safe for concurrent use.
type coder struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newCoder(secret []byte) *coder { return &coder{mac: hmac.New(sha256.New, secret)} }

// code is valid until the next call. Kinds of values have a domain each, text
// none.
func (c *coder) code(domain string, v []byte) []byte {
	c.mac.Reset()
	c.mac.Write([]byte(domain))
	c.mac.Write(v)
	return c.mac.Sum(c.sum[:0])[:codeSize]
}

// hmacCover gives equal values equal codes: over all types of text, over all
// whole numbers, over uuids and over bytea.
func hmacCover(secret []byte, f family, binary bool) coverFunc {
	switch f {
	case text, xml:
		codes := newCoder(secret)
		return func(out, v []byte) ([]byte, bool) {
			// Blanks at the end don't count: they pad character(n), which then joins
			// with text.
			return hex.AppendEncode(out, codes.code("", bytes.TrimRight(v, " "))), true
		}
	case bytea:
		codes := newCoder(secret)
		return func(out, v []byte) ([]byte, bool) {
			raw, ok := readBytea(v, binary)
			if !ok {
				return out, false
			}
			code := codes.code("bytea\x00", raw)
			if binary {
				return append(out, code...), true
			}
			return hex.AppendEncode(append(out, `\x`...), code), true
		}
	case uuid:
		return uuidCover(secret, binary)
	case int2, int4, int8:
		return integerCover(f, binary, newPermutation(secret).integer)
	case numeric:
		return numericCode(secret, binary)
	}
	return nil
}

func readBytea(v []byte, binary bool) ([]byte, bool) {
	if binary {
		return v, true
	}
	if digits, ok := bytes.CutPrefix(v, []byte(`\x`)); ok {
		raw := make([]byte, hex.DecodedLen(len(digits)))
		_, err := hex.Decode(raw, digits)
		return raw, err == nil
	}
	// bytea_output = escape: a backslash is \\, other bytes may be \ooo.
	raw := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		switch {
		case v[i] != '\\':
			raw = append(raw, v[i])
		case i+1 < len(v) && v[i+1] == '\\':
			raw = append(raw, '\\')
			i++
		case i+3 < len(v) && octal(v[i+1]) && octal(v[i+2]) && octal(v[i+3]):
			raw = append(raw, (v[i+1]-'0')<<6|(v[i+2]-'0')<<3|(v[i+3]-'0'))
			i += 3
		default:
			return nil, false
		}
	}
	return raw, true
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// uuidCover makes uuids of version 8 (RFC 9562): 122 bits of the code.
func uuidCover(secret []byte, binary bool) coverFunc {
	codes := newCoder(secret)
	return func(out, v []byte) ([]byte, bool) {
		var raw [16]byte
		if binary && len(v) == len(raw) {
			copy(raw[:], v)
		} else if binary || !readUUID(&raw, v) {
			return out, false
		}
		code := codes.code("uuid\x00", raw[:])
		code[6] = code[6]&0x0f | 0x80
		code[8] = code[8]&0x3f | 0x80
		if binary {
			return append(out, code...), true
		}
		return appendUUID(out, code), true
	}
}

func readUUID(raw *[16]byte, v []byte) bool {
	digits := bytes.ReplaceAll(v, []byte("-"), nil)
	if len(digits) != 32 {
		return false
	}
	_, err := hex.Decode(raw[:], digits)
	return err == nil
}

func appendUUID(out, raw []byte) []byte {
	begin := 0
	for _, end := range [...]int{4, 6, 8, 10, 16} {
		if begin > 0 {
			out = append(out, '-')
		}
		out = hex.AppendEncode(out, raw[begin:end])
		begin = end
	}
	return out
}

// formatCover keeps the format of text, numbers and dates.
func formatCover(secret []byte, f family, binary bool) coverFunc {
	p := newPermutation(secret)
	switch f {
	case text:
		return func(out, v []byte) ([]byte, bool) { return appendLookalike(out, v, p), true }
	case int2, int4, int8:
		return integerCover(f, binary, p.sameDigits)
	case numeric:
		return numericCover(binary, p)
	case float4, float8:
		return floatCover(f, binary, p)
	case money:
		return moneyCover(binary, p)
	case date, timestamp, timestampTZ, timeOfDay:
		return timeCover(f, binary, p.moveTime)
	case uuid:
		return uuidCover(secret, binary)
	}
	return nil
}

// appendLookalike swaps digits for digits and letters for letters, of a to z and A to
// Z. Other letters become "x" or "X"; the rest of ASCII stays. Text with too
// many of them to be swapped is redacted.
func appendLookalike(out, v []byte, p *permutation) []byte {
	var room [maxSymbols]symbol
	s := room[:0]
	for _, c := range v {
		base, radix := class(c)
		if radix == 0 {
			continue
		}
		if len(s) == maxSymbols {
			return append(out, redacted...)
		}
		s = append(s, symbol{c - base, radix})
	}
	if len(s) > 0 {
		p.symbols(s)
	}
	for len(v) > 0 {
		c := v[0]
		if c < utf8.RuneSelf {
			if base, radix := class(c); radix > 0 {
				c, s = base+s[0].value, s[1:]
			}
			out, v = append(out, c), v[1:]
			continue
		}
		r, size := utf8.DecodeRune(v)
		if unicode.IsUpper(r) {
			out = append(out, 'X')
		} else {
			out = append(out, 'x')
		}
		v = v[size:]
	}
	return out
}

// class is the first character of those that one may be swapped for, and how
// many there are.
func class(c byte) (base, radix byte) {
	switch {
	case c >= '0' && c <= '9':
		return '0', 10
	case c >= 'a' && c <= 'z':
		return 'a', 26
	case c >= 'A' && c <= 'Z':
		return 'A', 26
	}
	return 0, 0
}

// keep appends v with all but n characters as "*". A value that has no more
// than n is covered whole. Blanks at the end don't count: they pad character(n).
func keep(out, v []byte, n int, first bool) []byte {
	v = bytes.TrimRight(v, " ")
	total := utf8.RuneCount(v)
	from, to := 0, n // characters to keep
	if !first {
		from, to = total-n, total
	}
	if total <= n {
		from, to = 0, 0
	}
	for i := 0; len(v) > 0; i++ {
		_, size := utf8.DecodeRune(v)
		if i >= from && i < to {
			out = append(out, v[:size]...)
		} else {
			out = append(out, '*')
		}
		v = v[size:]
	}
	return out
}

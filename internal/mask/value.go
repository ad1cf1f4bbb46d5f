package mask

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strconv"
	"unicode/utf8"
)

// valueKind is how a column's values are written on the wire, as far as that
// matters for covering them.
type valueKind uint8

const (
	kindPlain   valueKind = iota // can hold nothing that a detector finds
	kindText                     // characters; any text fits
	kindJSON                     // JSON text
	kindJSONB                    // the same behind a version byte
	kindOpaque                   // something else that may hold text: only NULL fits
	kindHex                      // bytea in text format
	kindInt8                     // binary int8
	kindNumeric                  // binary numeric
)

// kindOf goes by the type's OID (catalog pg_type, pg_type.dat) and the format.
func kindOf(oid uint32, format int16) valueKind {
	switch oid {
	case 25, 1043, 1042, 19, 705, 142: // text, varchar, bpchar, name, unknown, xml
		return kindText // the same in both formats
	case 114: // json
		return kindJSON
	case 3802: // jsonb
		if format == 1 {
			return kindJSONB
		}
		return kindJSON
	case 16, 18, 21, 23, 26, 28, 29, 27, 700, 701, 790, 829, 774, 869, 650, // bool … cidr
		1082, 1083, 1114, 1184, 1186, 1266, // date and time
		600, 601, 602, 603, 604, 628, 718, // geometry
		1560, 1562, 2950, 3220, 2278, 24, 2202, 2205, 2206, 4089, 4096: // bits, uuid, pg_lsn, void, reg…
		return kindPlain
	case 17: // bytea
		if format == 0 {
			return kindHex
		}
	case 20: // int8
		if format == 1 {
			return kindInt8
		}
	case 1700: // numeric
		if format == 1 {
			return kindNumeric
		}
	}
	return kindOpaque
}

const redacted = "[redacted]"

func appendNull(out []byte) []byte { return append(out, 0xff, 0xff, 0xff, 0xff) }

// apply appends the covered value, with its length, to out. A type that can't
// hold what the transform makes becomes NULL. The code is keyed, for a
// transform that needs one, and used up.
func (c *cover) apply(kind valueKind, v, out []byte, code hash.Hash) []byte {
	size := len(out)
	out = append(out, 0, 0, 0, 0)
	redact := c.with.Redact || c.with.HMAC != "" // JSON isn't written in one way only
	switch {
	case c.with.Null:
		return appendNull(out[:size])
	case c.with.HMAC != "" && kind == kindText:
		out = appendCode(out, v, code)
	case redact && kind == kindText:
		out = append(out, redacted...)
	case redact && kind == kindJSON:
		out = append(out, `"`+redacted+`"`...)
	case redact && kind == kindJSONB:
		out = append(out, "\x01\""+redacted+`"`...)
	case c.with.KeepFirst > 0 && kind == kindText:
		out = keep(out, v, c.with.KeepFirst, true)
	case c.with.KeepLast > 0 && kind == kindText:
		out = keep(out, v, c.with.KeepLast, false)
	default:
		return appendNull(out[:size])
	}
	binary.BigEndian.PutUint32(out[size:], uint32(len(out)-size-4))
	return out
}

// codeSize is how much of an HMAC stands for a value: two of a thousand million
// values share these 128 bits with a chance below 10^-20.
const codeSize = 16

// appendCode appends v's code in hex. Blanks at the end don't count: they pad
// character(n), which then joins with text.
func appendCode(out, v []byte, code hash.Hash) []byte {
	code.Reset()
	code.Write(bytes.TrimRight(v, " "))
	var sum [sha256.Size]byte
	return hex.AppendEncode(out, code.Sum(sum[:0])[:codeSize])
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

// anywhere looks for finds in values that can't hold a replacement.
func (w *Rewriter) anywhere(kind valueKind, v []byte) (detector, bool) {
	var scratch [64]byte
	switch kind {
	case kindHex:
		digits, ok := bytes.CutPrefix(v, []byte(`\x`))
		if !ok {
			return w.detectors.any(v) // bytea_output = escape
		}
		raw := make([]byte, hex.DecodedLen(len(digits)))
		n, _ := hex.Decode(raw, digits)
		return w.detectors.any(raw[:n])
	case kindInt8:
		if len(v) != 8 {
			return 0, false
		}
		return w.detectors.any(strconv.AppendInt(scratch[:0], int64(binary.BigEndian.Uint64(v)), 10))
	case kindNumeric:
		return w.detectors.any(appendNumeric(scratch[:0], v))
	}
	return w.detectors.any(v)
}

// appendNumeric writes the integer part of a binary numeric, as long as it may
// be a card number's: int16 number of digits, weight of the first, sign and
// scale, then digits to the base 10000 (numeric_send in utils/adt/numeric.c).
func appendNumeric(out, v []byte) []byte {
	if len(v) < 8 {
		return out
	}
	count := int(int16(binary.BigEndian.Uint16(v)))
	weight := int(int16(binary.BigEndian.Uint16(v[2:])))
	if weight < 3 || weight > 4 || count < 0 || len(v) != 8+2*count {
		return out
	}
	for i := 0; i <= weight; i++ {
		var d uint16
		if i < count {
			d = binary.BigEndian.Uint16(v[8+2*i:])
		}
		if i == 0 {
			out = strconv.AppendUint(out, uint64(d), 10)
			continue
		}
		out = append(out, '0'+byte(d/1000%10), '0'+byte(d/100%10), '0'+byte(d/10%10), '0'+byte(d%10))
	}
	return out
}

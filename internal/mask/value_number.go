package mask

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/big"
	"strconv"
)

func sizeOf(f family) int {
	switch f {
	case int2:
		return 2
	case int4, float4:
		return 4
	}
	return 8
}

func readInteger(f family, v []byte, bin bool) (int64, bool) {
	if !bin {
		n, err := strconv.ParseInt(string(v), 10, 8*sizeOf(f))
		return n, err == nil
	}
	if len(v) != sizeOf(f) {
		return 0, false
	}
	switch f {
	case int2:
		return int64(int16(binary.BigEndian.Uint16(v))), true
	case int4:
		return int64(int32(binary.BigEndian.Uint32(v))), true
	}
	return int64(binary.BigEndian.Uint64(v)), true
}

func appendInteger(out []byte, f family, n int64, bin bool) []byte {
	if !bin {
		return strconv.AppendInt(out, n, 10)
	}
	switch f {
	case int2:
		return binary.BigEndian.AppendUint16(out, uint16(n))
	case int4:
		return binary.BigEndian.AppendUint32(out, uint32(n))
	}
	return binary.BigEndian.AppendUint64(out, uint64(n))
}

// integerCover covers whole numbers by a function whose results take no more
// room than what it is given.
func integerCover(f family, bin bool, swap func(int64) int64) coverFunc {
	return func(out, v []byte) ([]byte, bool) {
		n, ok := readInteger(f, v, bin)
		if !ok {
			return out, false
		}
		return appendInteger(out, f, swap(n), bin), true
	}
}

// sameDigits swaps a whole number for another of as many digits and the same
// sign, that takes as much room. So the same number becomes the same in a
// column of int2, int4 or int8.
func (p *permutation) sameDigits(v int64) int64 {
	size, sign := uint64(v), uint64(0)
	if v < 0 {
		size, sign = -size, 1
	}
	low, high := sign, uint64(math.MaxInt16)+sign
	switch {
	case size > math.MaxInt32+sign:
		low, high = math.MaxInt32+sign+1, math.MaxInt64+sign
	case size > math.MaxInt16+sign:
		low, high = math.MaxInt16+sign+1, math.MaxInt32+sign
	}
	var room [20]byte
	d := strconv.AppendUint(room[:0], size, 10)
	p.digits(d, func(d []byte) bool {
		n, err := strconv.ParseUint(string(d), 10, 64)
		size = n
		return err == nil && n >= low && n <= high
	})
	if v < 0 {
		return -int64(size)
	}
	return int64(size)
}

// decimal is a number as its digits: before the point, and behind it.
type decimal struct {
	negative    bool
	whole, part []byte
}

// maxScale bounds the digits behind the point of a number that is covered.
const maxScale = maxSymbols

// readDecimal reads a numeric. false: it isn't one, or NaN or infinite, or has
// too many digits.
func readDecimal(v []byte, bin bool) (d decimal, ok bool) {
	if bin {
		return readNumeric(v)
	}
	v, d.negative = bytes.CutPrefix(v, []byte("-"))
	whole, part, point := bytes.Cut(v, []byte("."))
	d.whole, d.part = bytes.Clone(whole), bytes.Clone(part)
	allDigits := span(v, 0, digit) == len(whole) && span(part, 0, digit) == len(part)
	return d, allDigits && len(whole) > 0 && (len(part) > 0) == point && len(whole) <= maxSymbols && len(part) <= maxScale
}

// Signs of a binary numeric.
const (
	numericPositive = 0
	numericNegative = 0x4000
)

// readNumeric reads the binary format: int16 number of digits, weight of the
// first, sign and scale, then digits to the base 10000 (numeric_send in
// utils/adt/numeric.c).
func readNumeric(v []byte) (d decimal, ok bool) {
	if len(v) < 8 {
		return d, false
	}
	count := int(int16(binary.BigEndian.Uint16(v)))
	weight := int(int16(binary.BigEndian.Uint16(v[2:])))
	sign := binary.BigEndian.Uint16(v[4:])
	scale := int(binary.BigEndian.Uint16(v[6:]))
	if count < 0 || len(v) != 8+2*count || 4*weight >= maxSymbols || scale > maxScale || sign != numericPositive && sign != numericNegative {
		return d, false
	}
	d.negative = sign == numericNegative
	for i := range count {
		if binary.BigEndian.Uint16(v[8+2*i:]) > 9999 {
			return d, false
		}
	}
	group := func(i int) int { // the one of weight -i
		if i += weight; i < 0 || i >= count {
			return 0
		}
		return int(binary.BigEndian.Uint16(v[8+2*i:]))
	}
	for i := -weight; i <= 0; i++ {
		d.whole = appendGroup(d.whole, group(i))
	}
	for i := 1; len(d.part) < scale; i++ {
		d.part = appendGroup(d.part, group(i))
	}
	d.part = d.part[:scale]
	for len(d.whole) > 1 && d.whole[0] == '0' {
		d.whole = d.whole[1:]
	}
	if len(d.whole) == 0 {
		d.whole = []byte("0")
	}
	return d, true
}

func appendGroup(out []byte, d int) []byte {
	return append(out, '0'+byte(d/1000%10), '0'+byte(d/100%10), '0'+byte(d/10%10), '0'+byte(d%10))
}

// append writes a numeric.
func (d decimal) append(out []byte, bin bool) []byte {
	if !bin {
		if d.negative {
			out = append(out, '-')
		}
		out = append(out, d.whole...)
		if len(d.part) > 0 {
			out = append(append(out, '.'), d.part...)
		}
		return out
	}
	digits := append(bytes.Repeat([]byte("0"), (4-len(d.whole)%4)%4), d.whole...)
	weight := len(digits)/4 - 1
	digits = append(digits, d.part...)
	digits = append(digits, bytes.Repeat([]byte("0"), (4-len(digits)%4)%4)...)
	var groups []uint16
	for i := 0; i < len(digits); i += 4 {
		groups = append(groups, uint16(digits[i]-'0')*1000+uint16(digits[i+1]-'0')*100+uint16(digits[i+2]-'0')*10+uint16(digits[i+3]-'0'))
	}
	for len(groups) > 0 && groups[0] == 0 {
		groups, weight = groups[1:], weight-1
	}
	for len(groups) > 0 && groups[len(groups)-1] == 0 {
		groups = groups[:len(groups)-1]
	}
	sign := uint16(numericPositive)
	if d.negative {
		sign = numericNegative
	}
	if len(groups) == 0 {
		weight, sign = 0, numericPositive
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(groups)))
	out = binary.BigEndian.AppendUint16(out, uint16(int16(weight)))
	out = binary.BigEndian.AppendUint16(out, sign)
	out = binary.BigEndian.AppendUint16(out, uint16(len(d.part)))
	for _, g := range groups {
		out = binary.BigEndian.AppendUint16(out, g)
	}
	return out
}

// integer tells whether a number is whole, without zeros behind the point, and
// fits into int8.
func (d decimal) integer() (int64, bool) {
	if len(d.part) > 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(d.whole), 10, 64)
	if err != nil {
		return 0, false
	}
	if d.negative {
		n = -n
	}
	return n, true
}

func decimalOf(n int64) decimal {
	text := strconv.AppendInt(nil, n, 10)
	whole, negative := bytes.CutPrefix(text, []byte("-"))
	return decimal{negative: negative, whole: whole}
}

// numericCover keeps the number of digits, the scale and the sign.
func numericCover(bin bool, p *permutation) coverFunc {
	return func(out, v []byte) ([]byte, bool) {
		d, ok := readDecimal(v, bin)
		if !ok {
			return out, false
		}
		if n, whole := d.integer(); whole {
			return decimalOf(p.sameDigits(n)).append(out, bin), true
		}
		all := append(bytes.Clone(d.whole), d.part...)
		if !p.digits(all, nil) {
			return out, false
		}
		d.whole, d.part = all[:len(d.whole)], all[len(d.whole):]
		return d.append(out, bin), true
	}
}

// numericCode gives a number the code of int8 if it fits, else one of 128 bits.
// Zeros at the end of a fraction don't count.
func numericCode(secret []byte, bin bool) coverFunc {
	p, codes := newPermutation(secret), newCoder(secret)
	return func(out, v []byte) ([]byte, bool) {
		d, ok := readDecimal(v, bin)
		if !ok {
			return out, false
		}
		d.part = bytes.TrimRight(d.part, "0")
		if n, whole := d.integer(); whole {
			return decimalOf(p.integer(n)).append(out, bin), true
		}
		code := new(big.Int).SetBytes(codes.code("numeric\x00", d.append(nil, false)))
		return decimal{whole: code.Append(nil, 10)}.append(out, bin), true
	}
}

// floatCover swaps the digits of the shortest text that means the number.
func floatCover(f family, bin bool, p *permutation) coverFunc {
	size := 8 * sizeOf(f)
	return func(out, v []byte) ([]byte, bool) {
		n, ok := readFloat(v, bin, size)
		if !ok {
			return out, false
		}
		e := strconv.AppendFloat(nil, n, 'e', -1, size) // -1.234e+05
		mantissa, exponent, _ := bytes.Cut(e, []byte("e"))
		mantissa, negative := bytes.CutPrefix(mantissa, []byte("-"))
		d := bytes.ReplaceAll(mantissa, []byte("."), nil)
		scale := len(d) - 1
		finite := func(d []byte) bool {
			shift, _ := strconv.Atoi(string(exponent))
			parsed, err := strconv.ParseFloat(string(d)+"e"+strconv.Itoa(shift-scale), size)
			n = parsed
			return err == nil
		}
		if !p.digits(d, finite) {
			return out, false
		}
		if negative {
			n = -n
		}
		if !bin {
			return strconv.AppendFloat(out, n, 'g', -1, size), true
		}
		if size == 32 {
			return binary.BigEndian.AppendUint32(out, math.Float32bits(float32(n))), true
		}
		return binary.BigEndian.AppendUint64(out, math.Float64bits(n)), true
	}
}

func readFloat(v []byte, bin bool, size int) (n float64, ok bool) {
	switch {
	case !bin:
		parsed, err := strconv.ParseFloat(string(v), size)
		n, ok = parsed, err == nil
	case len(v) != size/8:
	case size == 32:
		n, ok = float64(math.Float32frombits(binary.BigEndian.Uint32(v))), true
	default:
		n, ok = math.Float64frombits(binary.BigEndian.Uint64(v)), true
	}
	return n, ok && !math.IsNaN(n) && !math.IsInf(n, 0)
}

// moneyCover swaps digits. The text depends on the server's locale, so there
// only they are touched.
func moneyCover(bin bool, p *permutation) coverFunc {
	fits := func(d []byte) bool {
		_, err := strconv.ParseInt(string(d), 10, 64)
		return err == nil
	}
	return func(out, v []byte) ([]byte, bool) {
		var room [24]byte
		d := room[:0]
		if !bin {
			for _, c := range v {
				if digit(c) && len(d) < cap(d) {
					d = append(d, c)
				}
			}
			if !fits(d) || !p.digits(d, fits) {
				return out, false
			}
			for _, c := range v {
				if digit(c) {
					c, d = d[0], d[1:]
				}
				out = append(out, c)
			}
			return out, true
		}
		n, ok := readInteger(money, v, true)
		if !ok || n == math.MinInt64 {
			return out, false
		}
		sign := int64(1)
		if n < 0 {
			sign, n = -1, -n
		}
		if d = strconv.AppendInt(d, n, 10); !p.digits(d, fits) {
			return out, false
		}
		n, _ = strconv.ParseInt(string(d), 10, 64)
		return appendInteger(out, money, sign*n, true), true
	}
}

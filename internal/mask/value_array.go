package mask

import (
	"bytes"
	"encoding/binary"
)

// Bounds of arrays. Dimensions are PostgreSQL's MAXDIM. What covers the
// elements may be longer than they are, but not without end.
const (
	maxDimensions = 6
	arrayGrowth   = 8
	arraySlack    = 64 << 10
)

// coverArray covers each element of an array and keeps its shape. What can't be
// read as an array of the type becomes NULL.
func coverArray(elem uint32, binary bool, cover coverFunc) coverFunc {
	if binary {
		return func(out, v []byte) ([]byte, bool) { return coverBinaryArray(out, v, elem, cover) }
	}
	var scratch [2][]byte // an element, and what stands for it
	return func(out, v []byte) ([]byte, bool) { return coverTextArray(out, v, &scratch, cover) }
}

func tooLong(out []byte, begin int, v []byte) bool {
	return len(out)-begin > arrayGrowth*len(v)+arraySlack
}

// coverBinaryArray reads what array_send of utils/adt/arrayfuncs.c writes: the
// number of dimensions, whether there are NULLs, the elements' type, for each
// dimension its length and lower bound, then the elements.
func coverBinaryArray(out, v []byte, elem uint32, cover coverFunc) ([]byte, bool) {
	begin := len(out)
	if len(v) < 12 {
		return out, false
	}
	dimensions := binary.BigEndian.Uint32(v)
	if dimensions > maxDimensions || binary.BigEndian.Uint32(v[8:]) != elem {
		return out, false
	}
	at := 12 + 8*int(dimensions)
	if len(v) < at {
		return out, false
	}
	out = append(out, v[:at]...)
	for at < len(v) {
		if len(v)-at < 4 || tooLong(out, begin, v) {
			return out[:begin], false
		}
		size := int(int32(binary.BigEndian.Uint32(v[at:])))
		at += 4
		if size == -1 {
			out = appendNull(out)
			continue
		}
		if size < 0 || size > len(v)-at {
			return out[:begin], false
		}
		place := len(out)
		covered, ok := cover(append(out, 0, 0, 0, 0), v[at:at+size])
		if ok {
			out = covered
			binary.BigEndian.PutUint32(out[place:], uint32(len(out)-place-4))
		} else {
			out = appendNull(covered[:place])
			binary.BigEndian.PutUint32(out[begin+4:], 1) // there is a NULL now
		}
		at += size
	}
	return out, true
}

// coverTextArray reads what array_out writes: {a,"b \"c\"",NULL,{…}}, behind
// [1:2]= where a lower bound isn't 1.
func coverTextArray(out, v []byte, scratch *[2][]byte, cover coverFunc) ([]byte, bool) {
	begin := len(out)
	i := 0
	if len(v) > 0 && v[0] == '[' {
		if i = bytes.IndexByte(v, '=') + 1; i == 0 {
			return out, false
		}
		out = append(out, v[:i]...)
	}
	depth := 0
	value := false // an element may come next
	for i < len(v) {
		switch c := v[i]; {
		case c == '{' && (value || depth == 0 && len(out)-begin == i):
			if depth++; depth > maxDimensions {
				return out[:begin], false
			}
			out, value = append(out, c), true
			i++
		case c == '}' && depth > 0:
			depth--
			out, value = append(out, c), false
			i++
			if depth == 0 && i != len(v) {
				return out[:begin], false
			}
		case c == ',' && depth > 0 && !value:
			out, value = append(out, c), true
			i++
		case value && !tooLong(out, begin, v):
			element, end, null := readElement(scratch[0][:0], v, i)
			if end == 0 {
				return out[:begin], false
			}
			scratch[0] = element
			if !null {
				var ok bool
				if scratch[1], ok = cover(scratch[1][:0], element); ok {
					out = appendElement(out, scratch[1])
				} else {
					null = true
				}
			}
			if null {
				out = append(out, "NULL"...)
			}
			i, value = end, false
		default:
			return out[:begin], false
		}
	}
	if depth != 0 || len(out) == begin {
		return out[:begin], false
	}
	return out, true
}

// readElement appends the element that begins at v[i], and tells where it ends;
// 0: it doesn't.
func readElement(out, v []byte, i int) (_ []byte, end int, null bool) {
	if v[i] != '"' {
		start := i
		for i < len(v) && v[i] != ',' && v[i] != '}' {
			if c := v[i]; c == '{' || c == '"' || c == '\\' {
				return out, 0, false
			}
			i++
		}
		if i == len(v) || i == start {
			return out, 0, false
		}
		return append(out, v[start:i]...), i, bytes.EqualFold(v[start:i], []byte("NULL"))
	}
	for i++; i < len(v); i++ {
		switch v[i] {
		case '"':
			return out, i + 1, false
		case '\\':
			if i++; i == len(v) {
				return out, 0, false
			}
		}
		out = append(out, v[i])
	}
	return out, 0, false
}

func appendElement(out, v []byte) []byte {
	out = append(out, '"')
	for _, c := range v {
		if c == '"' || c == '\\' {
			out = append(out, '\\')
		}
		out = append(out, c)
	}
	return append(out, '"')
}

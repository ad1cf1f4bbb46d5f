package postgres

import "encoding/binary"

// The messages of a client, read in place: byte slices alias the frame. Each
// reader reports false for a body that PostgreSQL would refuse as malformed,
// trailing bytes included.

func readQuery(frame []byte) (text []byte, ok bool) {
	b := body{rest: frame[headerSize:]}
	text = b.cstring()
	return text, b.whole()
}

type parseMessage struct {
	name, text []byte
	types      []byte // OIDs in wire order
}

func readParse(frame []byte) (m parseMessage, ok bool) {
	b := body{rest: frame[headerSize:]}
	m.name, m.text = b.cstring(), b.cstring()
	m.types = b.take(4 * int(b.uint16()))
	return m, b.whole()
}

// typeOIDs are the parameter types that the client gave; 0 is "not specified".
func (m parseMessage) typeOIDs() []uint32 {
	if len(m.types) == 0 {
		return nil
	}
	return readOIDs(m.types)
}

func readOIDs(wire []byte) []uint32 {
	oids := make([]uint32, len(wire)/4)
	for i := range oids {
		oids[i] = binary.BigEndian.Uint32(wire[4*i:])
	}
	return oids
}

type functionCallMessage struct {
	oid    uint32
	params []byte // formats and values, as on the wire
	values int    // how many arguments
	result int16  // format code
}

// readFunctionCall reports false as well for formats that there are none of: the
// server finds that out only when it has called the function.
func readFunctionCall(frame []byte) (m functionCallMessage, ok bool) {
	b := body{rest: frame[headerSize:]}
	m.oid = b.uint32()
	m.params, m.values = b.params()
	m.result = int16(b.uint16())
	formats := body{rest: m.params}
	for range int(formats.uint16()) {
		if formats.uint16() > 1 {
			return m, false
		}
	}
	return m, b.whole() && (m.result == 0 || m.result == 1)
}

type bindMessage struct {
	portal, statement []byte
	params            []byte // formats and values, as on the wire
	results           []byte // result format codes, as on the wire
	values            int    // how many parameters
}

func readBind(frame []byte) (m bindMessage, ok bool) {
	b := body{rest: frame[headerSize:]}
	m.portal, m.statement = b.cstring(), b.cstring()
	m.params, m.values = b.params()
	m.results = b.take(2 * int(b.uint16()))
	return m, b.whole()
}

// params takes the formats and values of parameters, as they are on the wire, and
// tells how many there are. Fitting formats are none, one, or as many as values.
func (b *body) params() (wire []byte, values int) {
	start := b.rest
	formats := int(b.uint16())
	b.take(2 * formats)
	values = int(b.uint16())
	for range values {
		if n := int32(b.uint32()); n != -1 {
			b.take(int(n))
		}
		if b.bad {
			return nil, values
		}
	}
	if b.bad || formats > 1 && formats != values {
		b.bad, b.rest = true, nil
		return nil, values
	}
	return start[:len(start)-len(b.rest)], values
}

// readParams reads what params kept into dst, whose slices are
// used again.
func readParams(dst *Params, wire []byte) {
	dst.Formats, dst.Values = dst.Formats[:0], dst.Values[:0]
	if len(wire) == 0 {
		return
	}
	b := body{rest: wire}
	for range int(b.uint16()) {
		dst.Formats = append(dst.Formats, int16(b.uint16()))
	}
	for range int(b.uint16()) {
		var value []byte
		if n := int32(b.uint32()); n != -1 {
			value = b.take(int(n))
		}
		dst.Values = append(dst.Values, value)
	}
}

// readNamed reads Describe and Close: what kind of thing, and its name.
func readNamed(frame []byte) (kind byte, name []byte, ok bool) {
	b := body{rest: frame[headerSize:]}
	kind, name = b.byte(), b.cstring()
	return kind, name, b.whole() && (kind == 'S' || kind == 'P')
}

func readExecute(frame []byte) (portal []byte, ok bool) {
	b := body{rest: frame[headerSize:]}
	portal = b.cstring()
	b.uint32() // row limit
	return portal, b.whole()
}

func readCopyFail(frame []byte) bool {
	b := body{rest: frame[headerSize:]}
	b.cstring()
	return b.whole()
}

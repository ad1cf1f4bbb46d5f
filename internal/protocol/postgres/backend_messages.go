package postgres

import "encoding/binary"

// The messages of a server that are looked at.

// readRowDescription reads the columns of a result. Names are copied.
func readRowDescription(frame []byte) (fields []Field, ok bool) {
	b := body{rest: frame[headerSize:]}
	n := int(b.uint16())
	// A column takes at least its name's zero and 18 bytes.
	if n > len(b.rest)/19 {
		return nil, false
	}
	fields = make([]Field, n)
	for i := range fields {
		f := &fields[i]
		f.Name = string(b.cstring())
		f.Table = b.uint32()
		f.Column = b.uint16()
		f.Type = b.uint32()
		b.uint16() // type size
		b.uint32() // type modifier
		f.Format = int16(b.uint16())
	}
	return fields, b.whole()
}

func readParameterDescription(frame []byte) (types []uint32, ok bool) {
	b := body{rest: frame[headerSize:]}
	// Of a statement with more parameters than the count can tell, which can be
	// prepared but not bound, the server sends all types nevertheless.
	n := b.uint16()
	types = readOIDs(b.rest)
	return types, !b.bad && len(b.rest)%4 == 0 && uint16(len(types)) == n
}

func readCommandComplete(frame []byte) (tag []byte, ok bool) {
	b := body{rest: frame[headerSize:]}
	tag = b.cstring()
	return tag, b.whole()
}

func readFunctionCallResponse(frame []byte) bool {
	b := body{rest: frame[headerSize:]}
	if n := int32(b.uint32()); n != -1 {
		b.take(int(n))
	}
	return b.whole()
}

func readParameterStatus(frame []byte) (name, value string, ok bool) {
	b := body{rest: frame[headerSize:]}
	n, v := b.cstring(), b.cstring()
	return string(n), string(v), b.whole()
}

func readReadyForQuery(frame []byte) (status byte, ok bool) {
	b := body{rest: frame[headerSize:]}
	status = b.byte()
	return status, b.whole() && (status == 'I' || status == 'T' || status == 'E')
}

// readCopyResponse reads the overall format of CopyInResponse and
// CopyOutResponse.
func readCopyResponse(frame []byte) (binaryFormat, ok bool) {
	b := body{rest: frame[headerSize:]}
	format := b.byte()
	b.take(2 * int(b.uint16()))
	return format == 1, b.whole() && format <= 1
}

// serverError is what is needed of an ErrorResponse beside its bytes.
type serverError struct {
	severity, sqlState, message string
}

func (e serverError) fatal() bool { return e.severity != severityError }

// readErrorResponse reads an ErrorResponse or NoticeResponse. The severity is
// the unlocalised one (field V, PostgreSQL 9.6 and newer).
func readErrorResponse(frame []byte) (e serverError, ok bool) {
	b := body{rest: frame[headerSize:]}
	for {
		code := b.byte()
		if code == 0 {
			return e, b.whole()
		}
		value := b.cstring()
		switch code {
		case 'V':
			e.severity = string(value)
		case 'C':
			e.sqlState = string(value)
		case 'M':
			e.message = string(value)
		}
	}
}

// coverError passes the free text of an ErrorResponse or NoticeResponse through
// cover. It returns frame itself when nothing changed, else a new frame in
// dst. The frame must have been read by readErrorResponse.
func coverError(dst, frame []byte, cover func(field byte, s string) string) (out []byte, changed bool) {
	dst, start := beginMessage(dst[:0], frame[0])
	b := body{rest: frame[headerSize:]}
	for code := b.byte(); code != 0; code = b.byte() {
		value := b.cstring()
		dst = append(dst, code)
		switch code {
		case 'S', 'V', 'C', 'P', 'p', 's', 't', 'd', 'c', 'n', 'F', 'L', 'R':
			// Codes, positions, names.
			dst = append(append(dst, value...), 0)
		default:
			text := string(value)
			covered := cover(code, text)
			if covered != text {
				changed = true
			}
			dst = appendCString(dst, covered)
		}
	}
	if !changed {
		return frame, false
	}
	return endMessage(append(dst, 0), start), true
}

// coverNotification does the same for the payload of a NotificationResponse.
func coverNotification(dst, frame []byte, cover func(s string) string) (out []byte, ok bool) {
	b := body{rest: frame[headerSize:]}
	b.uint32() // process
	b.cstring()
	head := frame[headerSize : len(frame)-len(b.rest)]
	payload := b.cstring()
	if !b.whole() {
		return nil, false
	}
	text := string(payload)
	covered := cover(text)
	if covered == text {
		return frame, true
	}
	dst, start := beginMessage(dst[:0], frame[0])
	return endMessage(appendCString(append(dst, head...), covered), start), true
}

// withFormats returns fields with the result formats of a Bind message: none
// means text for all, one is for all.
func withFormats(fields []Field, wire []byte) []Field {
	n := len(wire) / 2
	if n == 0 {
		return fields
	}
	out := make([]Field, len(fields))
	copy(out, fields)
	for i := range out {
		at := i
		if n == 1 {
			at = 0
		}
		if at >= n {
			break // the server refuses such a Bind
		}
		out[i].Format = int16(binary.BigEndian.Uint16(wire[2*at:]))
	}
	return out
}

package resolver

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/miekg/dns"
)

var errMalformed = errors.New("malformed message")

// record is one resource record of a message, its data still unread.
type record struct {
	owner string // as it is spelt, fully qualified
	rtype uint16
	class uint16
	ttl   uint32
	data  int // offset of the data
	end   int // offset behind it
}

// readRecord reads the record at the offset.
func readRecord(message []byte, off int) (record, error) {
	var rr record
	owner, data, err := dns.UnpackDomainName(message, off)
	if err != nil || data+10 > len(message) {
		return rr, errMalformed
	}
	rr.owner = owner
	rr.rtype = binary.BigEndian.Uint16(message[data:])
	rr.class = binary.BigEndian.Uint16(message[data+2:])
	rr.ttl = binary.BigEndian.Uint32(message[data+4:])
	rr.data = data + 10
	rr.end = rr.data + int(binary.BigEndian.Uint16(message[data+8:]))
	if rr.end > len(message) {
		return rr, errMalformed
	}
	return rr, nil
}

// lifetime is the TTL in seconds; one with the highest bit set is zero (RFC 2181, 8).
func (rr record) lifetime() uint32 {
	if rr.ttl > 1<<31-1 {
		return 0
	}
	return rr.ttl
}

// target reads the name that is the whole of the record's data.
func (rr record) target(message []byte) (string, error) {
	name, end, err := dns.UnpackDomainName(message, rr.data)
	if err != nil || end != rr.end {
		return "", errMalformed
	}
	return strings.ToLower(name), nil
}

// service reads the data of an SVCB or HTTPS record.
func (rr record) service(message []byte) (*dns.SVCB, error) {
	header := dns.RR_Header{Name: rr.owner, Rrtype: rr.rtype, Class: rr.class, Ttl: rr.ttl, Rdlength: uint16(rr.end - rr.data)}
	parsed, _, err := dns.UnpackRRWithHeader(header, message[:rr.end], rr.data)
	if err != nil {
		return nil, errMalformed
	}
	switch parsed := parsed.(type) {
	case *dns.SVCB:
		return parsed, nil
	case *dns.HTTPS:
		return &parsed.SVCB, nil
	}
	return nil, errMalformed // of no data at all
}

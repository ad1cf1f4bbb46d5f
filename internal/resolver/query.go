package resolver

import (
	"encoding/binary"
	"errors"

	"github.com/miekg/dns"
)

// The bits of a header's third and fourth byte.
const (
	bitResponse  = 1 << 15
	bitTruncated = 1 << 9
	bitRecurse   = 1 << 8 // RD
	bitAvailable = 1 << 7 // RA
	bitAuthentic = 1 << 5 // AD
	bitChecking  = 1 << 4 // CD
	bitsOpcode   = 0xF << 11
	bitsRcode    = 0xF

	optSize      = 11     // an OPT record without options
	optBits      = 0xC000 // DO, CO (RFC 9824)
	maxLabel     = 63
	maxName      = 255
	offeredSize  = 1232 // what our own answers say that we take
	ednsVersions = 0    // the highest
)

// query is what a client asked, read strictly: whoever made it is a stranger.
type query struct {
	header   [headerSize]byte
	question []byte // as in the message, the only one
	asked    string // the name as it was spelt, fully qualified
	name     string // the same, canonical
	qtype    uint16
	edns     bool
	size     int    // of the answer that the client takes over UDP
	bits     uint16 // of EDNS, that are passed on
}

// errNoQuery is of a message that must not be answered.
var errNoQuery = errors.New("no query")

// rejection is why a query is not answered but with this code.
type rejection int

func (r rejection) Error() string { return "query rejected: " + dns.RcodeToString[int(r)] }

func (q *query) id() uint16    { return binary.BigEndian.Uint16(q.header[:]) }
func (q *query) flags() uint16 { return binary.BigEndian.Uint16(q.header[2:]) }

// parseQuery reads a query. With a [rejection] the query is filled as far as it
// could be read. It refers to the message.
func parseQuery(message []byte) (*query, error) {
	q := &query{size: dns.MinMsgSize}
	if copy(q.header[:], message) < headerSize || q.flags()&bitResponse != 0 {
		return nil, errNoQuery
	}
	if q.flags()&bitsOpcode != dns.OpcodeQuery {
		return q, rejection(dns.RcodeNotImplemented)
	}
	count := func(section int) int { return int(binary.BigEndian.Uint16(q.header[4+2*section:])) }
	if count(0) != 1 {
		return q, rejection(dns.RcodeFormatError)
	}
	end, ok := questionEnd(message)
	if !ok {
		return q, rejection(dns.RcodeFormatError)
	}
	asked, _, err := dns.UnpackDomainName(message, headerSize)
	if err != nil {
		return q, rejection(dns.RcodeFormatError)
	}
	q.question = message[headerSize:end]
	q.asked, q.name = asked, canonical(asked)
	q.qtype = binary.BigEndian.Uint16(message[end-4:])
	if err := q.parseExtra(message, end, count(1)+count(2), count(3)); err != nil {
		return q, err
	}
	switch {
	case q.qtype == dns.TypeAXFR, q.qtype == dns.TypeIXFR, q.qtype == dns.TypeTKEY, q.qtype == dns.TypeTSIG:
		return q, rejection(dns.RcodeRefused)
	case q.qtype == dns.TypeOPT, count(1) != 0, count(2) != 0:
		return q, rejection(dns.RcodeFormatError)
	case binary.BigEndian.Uint16(message[end-2:]) != dns.ClassINET:
		return q, rejection(dns.RcodeRefused)
	}
	return q, nil
}

// questionEnd returns the offset behind the first question, whose name must be
// written out.
func questionEnd(message []byte) (int, bool) {
	for off := headerSize; off < len(message) && off < headerSize+maxName; {
		label := int(message[off])
		off++
		if label == 0 {
			return off + 4, off+4 <= len(message)
		}
		if label > maxLabel {
			return 0, false
		}
		off += label
	}
	return 0, false
}

// parseExtra reads what comes after the question: nothing, or an OPT record. Of the
// records before the additional section only IXFR has a use.
func (q *query) parseExtra(message []byte, off, before, additional int) error {
	for i := range before + additional {
		rr, err := readRecord(message, off)
		if err != nil {
			return rejection(dns.RcodeFormatError)
		}
		off = rr.end
		switch {
		case i < before:
		case rr.rtype == dns.TypeTSIG:
			// Signed for a server that we are not; without the signature it is another query.
			return rejection(dns.RcodeRefused)
		case rr.rtype == dns.TypeOPT:
			if q.edns || rr.owner != "." {
				return rejection(dns.RcodeFormatError)
			}
			q.edns = true
			q.size = min(max(int(rr.class), dns.MinMsgSize), maxDatagram)
			q.bits = uint16(rr.ttl) & optBits
			if version := byte(rr.ttl >> 16); version > ednsVersions {
				return rejection(dns.RcodeBadVers)
			}
		}
	}
	if off != len(message) {
		return rejection(dns.RcodeFormatError)
	}
	return nil
}

// forServer makes the query that a server is asked, into b: the question as it was
// spelt and the bits that say how to answer, with an id of its own. EDNS options are
// between neighbours (RFC 6891, 6.1.1) and end here.
func (q *query) forServer(b *buffer, id uint16) {
	m := binary.BigEndian.AppendUint16(b.space()[:0], id)
	m = binary.BigEndian.AppendUint16(m, q.flags()&(bitRecurse|bitAuthentic|bitChecking))
	m = append(m, 0, 1, 0, 0, 0, 0, 0, 0)
	m = append(m, q.question...)
	if q.edns {
		m = q.appendOPT(m, uint16(q.size))
	}
	b.n = len(m)
}

// appendOPT appends an OPT record without options, and counts it.
func (q *query) appendOPT(m []byte, size uint16) []byte {
	binary.BigEndian.PutUint16(m[10:], 1)
	m = append(m, 0)
	m = binary.BigEndian.AppendUint16(m, dns.TypeOPT)
	m = binary.BigEndian.AppendUint16(m, size)
	m = append(m, 0, 0)
	m = binary.BigEndian.AppendUint16(m, q.bits)
	return append(m, 0, 0)
}

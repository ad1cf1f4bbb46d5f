package resolver

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// reply begins an answer of our own.
func (q *query) reply(code int) *dns.Msg {
	m := &dns.Msg{
		MsgHdr: dns.MsgHdr{
			Id:                 q.id(),
			Response:           true,
			Opcode:             int(q.flags() & bitsOpcode >> 11),
			RecursionDesired:   q.flags()&bitRecurse != 0,
			RecursionAvailable: true,
			CheckingDisabled:   q.flags()&bitChecking != 0,
			Rcode:              code,
		},
	}
	if q.question != nil {
		class := binary.BigEndian.Uint16(q.question[len(q.question)-2:])
		m.Question = []dns.Question{{Name: q.asked, Qtype: q.qtype, Qclass: class}}
	}
	if q.edns {
		m.SetEdns0(offeredSize, q.bits&(1<<15) != 0)
	}
	return m
}

// refusal says that the name may not be resolved, in the one way after which
// clients go on with their search list. EDNS tells people that it was us.
func (q *query) refusal() *dns.Msg {
	m := q.reply(dns.RcodeNameError)
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited})
	}
	return m
}

// truncate leaves of a server's answer only that there is more over TCP.
func (q *query) truncate(b *buffer) {
	m := b.space()[:headerSize]
	flags := binary.BigEndian.Uint16(m[2:])
	binary.BigEndian.PutUint16(m[2:], flags&^bitAuthentic|bitTruncated)
	clear(m[4:])
	m[5] = 1
	m = append(m, q.question...)
	if q.edns {
		m = q.appendOPT(m, offeredSize)
	}
	b.n = len(m)
}

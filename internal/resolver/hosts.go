package resolver

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	maxHosts = 16 << 20
	// maxNames bounds the names that one address has in a reverse lookup:
	// lists that block names give a single address to all of them.
	maxNames = 16
	// hostsTTL is short, since the file can change at any time.
	hostsTTL = 10
)

// hosts is the node's hosts file.
type hosts struct {
	addrs   map[string][]netip.Addr // by name, as a Watcher sees it
	reverse map[string][]string     // canonical names by the name of the reverse lookup
}

func parseHosts(content []byte) hosts {
	h := hosts{addrs: map[string][]netip.Addr{}, reverse: map[string][]string{}}
	for line := range strings.Lines(string(content)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil || addr.Zone() != "" { // a zone can't be said in DNS
			continue
		}
		h.add(addr.Unmap(), fields[1:])
	}
	return h
}

func (h *hosts) add(addr netip.Addr, names []string) {
	for i, name := range names {
		name = canonical(name)
		if _, ok := dns.IsDomainName(name); !ok || name == "" {
			continue
		}
		if !slices.Contains(h.addrs[name], addr) {
			h.addrs[name] = append(h.addrs[name], addr)
		}
		if i > 0 {
			continue
		}
		reverse, err := dns.ReverseAddr(addr.String())
		if err != nil {
			continue
		}
		key := canonical(reverse)
		if known := h.reverse[key]; len(known) < maxNames && !slices.Contains(known, name) {
			h.reverse[key] = append(known, name)
		}
	}
}

// answer returns the records that answer the question, and whether the file
// has the answer. A name that is in the file has the addresses there and no
// others, as for programs on the node; its other types are asked of the servers.
func (h hosts) answer(q *query) (records []dns.RR, ok bool) {
	header := dns.RR_Header{Name: q.asked, Class: dns.ClassINET, Ttl: hostsTTL}
	if q.qtype == dns.TypePTR {
		header.Rrtype = dns.TypePTR
		for _, name := range h.reverse[q.name] {
			records = append(records, &dns.PTR{Hdr: header, Ptr: dns.Fqdn(name)})
		}
		return records, len(records) > 0
	}
	v4 := q.qtype == dns.TypeA || q.qtype == dns.TypeANY
	v6 := q.qtype == dns.TypeAAAA || q.qtype == dns.TypeANY
	addrs := h.addrs[q.name]
	if len(addrs) == 0 || (!v4 && !v6) {
		return nil, false
	}
	for _, addr := range addrs {
		switch {
		case addr.Is4() && v4:
			header.Rrtype = dns.TypeA
			records = append(records, &dns.A{Hdr: header, A: addr.AsSlice()})
		case addr.Is6() && v6:
			header.Rrtype = dns.TypeAAAA
			records = append(records, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
		}
	}
	return records, true
}

// canonical is a name as a [Watcher] sees it. The bytes outside of ASCII are
// escaped in names that come from messages, so only ASCII changes its case.
func canonical(name string) string {
	return strings.TrimSuffix(strings.ToLower(name), ".")
}

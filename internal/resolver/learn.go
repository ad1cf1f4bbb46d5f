package resolver

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The most of each that one answer may have. Honest ones have a few.
const (
	maxAliases  = 256
	maxBindings = 256
)

var errTooMuch = errors.New("more names or aliases than an answer may have")

// binding is what is to be learned of one name.
type binding struct {
	name  string // canonical
	addrs []netip.Addr
	ttl   time.Duration
}

// lesson collects what an answer says about addresses. Names in it are lower case
// and fully qualified.
type lesson struct {
	asked   string
	addrs   map[string][]netip.Addr
	ttls    map[string]uint32  // the smallest of a name's addresses
	aliases map[string][]alias // by the name that is an alias
	count   int                // of aliases
	dnames  []dname
	direct  []netip.Addr // all addresses of the answer section
	ttl     uint32       // the smallest of them
}

type alias struct {
	target string
	ttl    uint32
}

// dname says that all names below the owner are aliases of those below the target.
type dname struct {
	owner string
	alias
}

// readAnswer reads a whole answer to the question. It returns the bindings and
// where the last record ends.
func readAnswer(q *query, message []byte) (bindings []binding, end int, err error) {
	l := lesson{asked: strings.ToLower(q.asked), addrs: map[string][]netip.Addr{},
		ttls: map[string]uint32{}, aliases: map[string][]alias{}}
	off := headerSize + len(q.question)
	for section := range 3 {
		for range binary.BigEndian.Uint16(message[6+2*section:]) {
			rr, err := readRecord(message, off)
			if err != nil {
				return nil, 0, err
			}
			off = rr.end
			const authority = 1
			if section == authority {
				continue
			}
			if err := l.add(message, rr, section == 0); err != nil {
				return nil, 0, err
			}
		}
	}
	bindings, err = l.bindings()
	return bindings, off, err
}

// add takes a record of the answer or additional section. Its class is not looked
// at, since there are clients that don't either.
func (l *lesson) add(message []byte, rr record, inAnswer bool) error {
	owner := strings.ToLower(rr.owner)
	switch rr.rtype {
	case dns.TypeA, dns.TypeAAAA:
		addr, ok := netip.AddrFromSlice(message[rr.data:rr.end])
		if !ok || addr.Is4() != (rr.rtype == dns.TypeA) {
			return errMalformed
		}
		l.addAddr(owner, addr, rr.lifetime(), inAnswer)
	case dns.TypeCNAME:
		target, err := rr.target(message)
		if err != nil {
			return err
		}
		return l.addAlias(owner, target, rr.lifetime())
	case dns.TypeDNAME:
		target, err := rr.target(message)
		if err != nil {
			return err
		}
		if len(l.dnames) == maxAliases {
			return errTooMuch
		}
		l.dnames = append(l.dnames, dname{owner, alias{target, rr.lifetime()}})
	case dns.TypeSVCB, dns.TypeHTTPS:
		return l.addService(message, rr, owner, inAnswer)
	}
	return nil
}

func (l *lesson) addAddr(owner string, addr netip.Addr, ttl uint32, inAnswer bool) {
	addr = addr.Unmap()
	if len(l.addrs[owner]) == 0 || ttl < l.ttls[owner] {
		l.ttls[owner] = ttl
	}
	l.addrs[owner] = append(l.addrs[owner], addr)
	if inAnswer {
		if len(l.direct) == 0 || ttl < l.ttl {
			l.ttl = ttl
		}
		l.direct = append(l.direct, addr)
	}
}

func (l *lesson) addAlias(from, target string, ttl uint32) error {
	if from == target || slices.ContainsFunc(l.aliases[from], func(a alias) bool { return a.target == target }) {
		return nil
	}
	if l.count++; l.count > maxAliases {
		return errTooMuch
	}
	l.aliases[from] = append(l.aliases[from], alias{target, ttl})
	return nil
}

// addService takes an SVCB or HTTPS record: its hints are addresses of its target,
// and who asks for the owner goes on to the target. An owner with a prefix such
// as _8443._https stands for the name behind it (RFC 9460, 2.3).
func (l *lesson) addService(message []byte, rr record, owner string, inAnswer bool) error {
	service, err := rr.service(message)
	if err != nil {
		return err
	}
	target := strings.ToLower(service.Target)
	if target == "." || target == "" {
		target = owner
	}
	if err := l.addAlias(owner, target, rr.lifetime()); err != nil {
		return err
	}
	if origin := withoutPrefix(owner); origin != owner && origin != "" {
		if err := l.addAlias(origin, owner, rr.lifetime()); err != nil {
			return err
		}
	}
	for _, value := range service.Value {
		var hints []net.IP
		switch value := value.(type) {
		case *dns.SVCBIPv4Hint:
			hints = value.Hint
		case *dns.SVCBIPv6Hint:
			hints = value.Hint
		}
		for _, hint := range hints {
			addr, ok := netip.AddrFromSlice(hint)
			if !ok {
				return errMalformed
			}
			l.addAddr(target, addr, rr.lifetime(), inAnswer)
		}
	}
	return nil
}

// withoutPrefix takes the leading labels away that begin with an underscore.
func withoutPrefix(name string) string {
	for strings.HasPrefix(name, "_") {
		next, end := dns.NextLabel(name, 0)
		if end {
			return ""
		}
		name = name[next:]
	}
	return name
}

// bindings says, of each name that leads to addresses, to which. The name that
// was asked has all those of the answer section, since there are clients that take
// them whatever their owner is.
func (l *lesson) bindings() ([]binding, error) {
	if err := l.followDNAMEs(); err != nil {
		return nil, err
	}
	names := make([]string, 0, 4)
	names = append(names, l.asked)
	for name := range l.addrs {
		names = append(names, name)
	}
	for name := range l.aliases {
		names = append(names, name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxBindings {
		return nil, errTooMuch
	}
	var all []binding
	for _, name := range names {
		addrs, ttl := l.resolve(name)
		if name == l.asked && len(l.direct) > 0 {
			addrs, ttl = append(addrs, l.direct...), min(ttl, l.ttl)
		}
		if len(addrs) == 0 {
			continue
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
		all = append(all, binding{canonical(name), slices.Compact(addrs), time.Duration(ttl) * time.Second})
	}
	return all, nil
}

// resolve returns the addresses that the name leads to, and the smallest TTL on
// the ways there.
func (l *lesson) resolve(name string) (addrs []netip.Addr, ttl uint32) {
	ttl = math.MaxUint32
	visited := map[string]bool{name: true}
	for open := []string{name}; len(open) > 0; {
		name, open = open[len(open)-1], open[:len(open)-1]
		if own := l.addrs[name]; len(own) > 0 {
			addrs, ttl = append(addrs, own...), min(ttl, l.ttls[name])
		}
		for _, next := range l.aliases[name] {
			ttl = min(ttl, next.ttl)
			if !visited[next.target] {
				visited[next.target] = true
				open = append(open, next.target)
			}
		}
	}
	return addrs, ttl
}

// followDNAMEs adds the aliases that DNAME records imply for the name asked and for
// all that it leads to. Servers mostly add them as CNAME records too.
func (l *lesson) followDNAMEs() error {
	if len(l.dnames) == 0 {
		return nil
	}
	visited := map[string]bool{l.asked: true}
	for open := []string{l.asked}; len(open) > 0; {
		name := open[len(open)-1]
		open = open[:len(open)-1]
		for _, d := range l.dnames {
			if name == d.owner || !dns.IsSubDomain(d.owner, name) {
				continue
			}
			below := strings.TrimSuffix(name, d.owner)
			if d.owner == "." {
				below = name
			}
			target := below + strings.TrimPrefix(d.target, ".")
			if _, ok := dns.IsDomainName(target); !ok {
				continue // too long, and so for the client
			}
			if err := l.addAlias(name, target, d.ttl); err != nil {
				return err
			}
		}
		for _, next := range l.aliases[name] {
			if !visited[next.target] {
				visited[next.target] = true
				open = append(open, next.target)
			}
		}
	}
	return nil
}

package bypass

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Raw sockets. A planner gets none, so most of these use one that was made below the
// ancestor before joining: what stops them then is the belt.

func rawRows() []row {
	const outside = "the socket belongs to a cgroup outside the ancestor: chaperone run closes inherited sockets"
	tooLong := slices.Concat(slices.Repeat([]byte{unix.IPPROTO_DSTOPTS, 0, 1, 4, 0, 0, 0, 0}, 7), []byte{unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0})
	to4 := func(name, hope string, packet func(aim) []byte) row {
		return row{threat: 7, name: "raw: " + name, hope: hope, from: fromStranger, do: raw(unix.AF_INET, packet), want: "refused or dropped"}
	}
	to6 := func(name, hope string, next byte, rest func(aim) []byte) row {
		return row{threat: 7, name: "raw, IPv6: " + name, hope: hope, from: fromStranger, want: "refused or dropped",
			do: raw(unix.AF_INET6, func(a aim) []byte { return ip6(node6, a.V6, next, rest(a)) })}
	}
	fragment := func(offset byte, more byte) []byte {
		return []byte{unix.IPPROTO_UDP, 0, 0, offset<<3 | more, 0, 0, 0, 1}
	}
	udp := func(a aim) []byte { return ports(a.Port) }
	routed := func(kind byte) func(aim) []byte {
		return func(a aim) []byte {
			to := a.V4.As4()
			return ip4(node4, hop4, unix.IPPROTO_UDP, 0, append([]byte{1, kind, 7, 4}, to[:]...), ports(a.Port))
		}
	}
	all := []row{
		{threat: 7, name: "raw socket", hope: "packets written by hand", do: rawHere(unix.IPPROTO_RAW), want: "refused"},
		{threat: 7, name: "raw socket, TCP", hope: "a handshake written by hand", do: rawHere(unix.IPPROTO_TCP), want: "refused"},
		to4("UDP", "a whole datagram", func(a aim) []byte { return udp4(node4, a.V4, a.Port) }),
		to4("TCP SYN", "a handshake of one's own", func(a aim) []byte { return ip4(node4, a.V4, unix.IPPROTO_TCP, 0, nil, synTo(a.Port)) }),
		to4("foreign source", "a packet of somebody else", func(a aim) []byte { return udp4(nobody4, a.V4, a.Port) }),
		to4("first fragment", "the rest follows", func(a aim) []byte {
			return ip4(node4, a.V4, unix.IPPROTO_UDP, moreFragments, nil, append(ports(a.Port), make([]byte, 7)...))
		}),
		to4("later fragment", "it has no port", func(a aim) []byte { return ip4(node4, a.V4, unix.IPPROTO_UDP, 1, nil, make([]byte, 16)) }),
		to4("tiny fragment", "it ends before the port", func(a aim) []byte { return ip4(node4, a.V4, unix.IPPROTO_UDP, moreFragments, nil, ports(a.Port)[:2]) }),
		to4("no-operation options", "the header is longer than usual", func(a aim) []byte { return ip4(node4, a.V4, unix.IPPROTO_UDP, 0, []byte{1, 1, 1, 0}, ports(a.Port)) }),
		to4("protocol 253", "a protocol that is nobody's", func(a aim) []byte { return ip4(node4, a.V4, 253, 0, nil, ports(a.Port)) }),
		to4("SCTP", "its INIT, written by hand", func(a aim) []byte { return ip4(node4, a.V4, unix.IPPROTO_SCTP, 0, nil, ports(a.Port)) }),
		to4("ESP", "encrypted, to the target's host", func(a aim) []byte { return ip4(node4, a.V4, unix.IPPROTO_ESP, 0, nil, make([]byte, 32)) }),
		to4("AH", "authenticated, to the target's host", func(a aim) []byte { return ip4(node4, a.V4, unix.IPPROTO_AH, 0, nil, make([]byte, 32)) }),
		to4("GRE", "a tunnel to the target's host", func(a aim) []byte {
			return ip4(node4, a.V4, unix.IPPROTO_GRE, 0, nil, append([]byte{0, 0, 8, 0}, udp4(node4, a.V4, a.Port)...))
		}),
		to4("IP in IP", "a tunnel to the target's host", func(a aim) []byte { return ip4(node4, a.V4, unix.IPPROTO_IPIP, 0, nil, udp4(node4, a.V4, a.Port)) }),
		to6("UDP", "a whole datagram", unix.IPPROTO_UDP, udp),
		to6("hop-by-hop options", "an extension header before the port", unix.IPPROTO_HOPOPTS, func(a aim) []byte { return append([]byte{unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0}, ports(a.Port)...) }),
		to6("eight extension headers", "more than anybody reads", unix.IPPROTO_DSTOPTS, func(a aim) []byte { return append(slices.Clone(tooLong), ports(a.Port)...) }),
		to6("first fragment", "the rest follows", unix.IPPROTO_FRAGMENT, func(a aim) []byte { return append(fragment(0, 1), append(ports(a.Port), make([]byte, 7)...)...) }),
		to6("later fragment", "it has no port", unix.IPPROTO_FRAGMENT, func(a aim) []byte { return append(fragment(1, 0), make([]byte, 16)...) }),
		to6("routing header", "the way is the goal", unix.IPPROTO_ROUTING, func(a aim) []byte { return append([]byte{unix.IPPROTO_UDP, 0, 4, 0, 0, 0, 0, 0}, ports(a.Port)...) }),
		to6("no next header", "data after the end", unix.IPPROTO_NONE, udp),
	}
	all = append(all,
		to4("IP in IP, by way of another host", "a tunnel to a host that unpacks it", func(a aim) []byte { return ip4(node4, hop4, unix.IPPROTO_IPIP, 0, nil, udp4(node4, a.V4, a.Port)) }),
		to4("GRE, by way of another host", "the same by GRE", func(a aim) []byte {
			return ip4(node4, hop4, unix.IPPROTO_GRE, 0, nil, append([]byte{0, 0, 8, 0}, udp4(node4, a.V4, a.Port)...))
		}),
		to4("loose source route", "another host sends it on", routed(131)),
		to4("strict source route", "the same, strict", routed(137)),
	)
	return append(all, row{threat: 8, name: "raw: UDP, outside the ancestor", hope: "the socket was made outside the ancestor, before joining",
		from: fromOutside, do: raw(unix.AF_INET, func(a aim) []byte { return udp4(node4, a.V4, a.Port) }), want: "refused", open: outside, closers: []string{withNodeBelt}})
}

// raw makes a raw socket, joins the job, and sends a packet.
func raw(family int, packet func(aim) []byte) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return answer{}, err
		}
		if err := join(a.Job); err != nil {
			return answer{}, err
		}
		b := packet(a)
		return answer{}, sendRaw(fd, destination(b), b)
	}
}

// destination reads it from the header.
func destination(packet []byte) netip.Addr {
	if packet[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(packet[16:20]))
	}
	return netip.AddrFrom16([16]byte(packet[24:40]))
}

// rawHere makes the socket as a planner.
func rawHere(protocol int) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(unix.AF_INET, unix.SOCK_RAW, protocol)
		if err != nil {
			return answer{}, err
		}
		if protocol == unix.IPPROTO_TCP {
			return answer{}, sendRaw(fd, a.V4, synTo(a.Port))
		}
		return answer{}, sendRaw(fd, a.V4, udp4(node4, a.V4, a.Port))
	}
}

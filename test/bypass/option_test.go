package bypass

import (
	"golang.org/x/sys/unix"
)

// Socket options that change the way of a packet, its source or its headers.

func optionRows() []row {
	const away = "the connection is diverted, and does not come about"
	return []row{
		{threat: 1, name: "SO_BINDTODEVICE", hope: "the device that leads to the target, where loopback isn't", do: toDevice, want: "diverted or dropped or unreachable", silent: away},
		{threat: 1, name: "SO_BINDTODEVICE, UDP", hope: "the same with datagrams", do: toDeviceUDP, want: "refused"},
		{threat: 1, name: "IP_TRANSPARENT", hope: "a source address of somebody else", do: foreignSource(unix.IP_TRANSPARENT), want: "dropped or unreachable", silent: away},
		{threat: 1, name: "IP_FREEBIND", hope: "the same, not bound to any interface", do: foreignSource(unix.IP_FREEBIND), want: "dropped or unreachable", silent: away},
		{threat: 1, name: "IP_BIND_ADDRESS_NO_PORT", hope: "the source port is chosen late", do: withOption(unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1), want: "diverted"},
		{threat: 1, name: "IP_UNICAST_IF", hope: "an interface for what is unicast", do: unicastIf, want: "diverted or dropped or unreachable", silent: away},
		{threat: 1, name: "TCP_REPAIR", hope: "a connection without a handshake", do: repaired, want: "diverted or dropped or refused", mayAsAny: true, silent: away},
		{threat: 1, name: "TCP_ULP", hope: "a protocol above, with a connect of its own", do: withULP, want: "diverted"},
		{threat: 6, name: "IP_OPTIONS, source route by way of another host", hope: "LSRR: the packet is addressed to a hop", do: sourceRoute(131, true), want: "diverted or dropped or unreachable", silent: away},
		{threat: 6, name: "IP_OPTIONS, strict source route", hope: "SSRR: the same", do: sourceRoute(137, true), want: "diverted or dropped or unreachable", silent: away},
		{threat: 6, name: "UDP, source route by way of the target", hope: "LSRR: another destination, and the target as a hop", do: sourceRoute(131, false), want: "refused or dropped"},
		{threat: 6, name: "UDP, strict source route by way of the target", hope: "SSRR: the same", do: sourceRoute(137, false), want: "refused or dropped"},
		{threat: 6, name: "IPv6 routing header by way of the target", hope: "IPV6_RTHDR: another destination, and the target as a segment", do: segmentRoute, want: "refused or dropped"},
		{threat: 6, name: "IPv6 hop-by-hop options", hope: "IPV6_HOPOPTS before the UDP header", do: stickyOptions(unix.IPV6_HOPOPTS), want: "refused"},
		{threat: 6, name: "IPv6 destination options", hope: "IPV6_DSTOPTS before the UDP header", do: stickyOptions(unix.IPV6_DSTOPTS), want: "refused"},
		{threat: 6, name: "IPv6 destination options, TCP", hope: "IPV6_DSTOPTS before the TCP header", do: stickyTCP, want: "diverted"},
	}
}

func toDevice(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "n-db"); err != nil {
		return answer{}, step("SO_BINDTODEVICE", err)
	}
	return connect(fd, a.V4, a.Port)
}

func toDeviceUDP(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "n-db"); err != nil {
		return answer{}, step("SO_BINDTODEVICE", err)
	}
	return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(a.V4, a.Port)))
}

func unicastIf(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	index, err := deviceIndex("n-db")
	if err != nil {
		return answer{}, err
	}
	big := int(uint32(index)<<24 | uint32(index)>>8&0xff00 | uint32(index)<<8&0xff0000)
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_UNICAST_IF, big); err != nil {
		return answer{}, step("IP_UNICAST_IF", err)
	}
	return connect(fd, a.V4, a.Port)
}

func foreignSource(option int) attack {
	return func(a aim) (answer, error) {
		fd, err := open(a.V4)
		if err != nil {
			return answer{}, err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, option, 1); err != nil {
			return answer{}, step("setsockopt", err)
		}
		if err := unix.Bind(fd, sockaddr(nobody4, 0)); err != nil {
			return answer{}, step("bind", err)
		}
		return connect(fd, a.V4, a.Port)
	}
}

// repaired puts a socket into the established state and sends from it.
func repaired(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
		return answer{}, step("TCP_REPAIR", err)
	}
	if err := unix.Connect(fd, sockaddr(a.V4, a.Port)); err != nil {
		return answer{}, step("connect", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 0); err != nil {
		return answer{}, step("TCP_REPAIR", err)
	}
	if _, err := unix.Write(fd, payload); err != nil {
		return answer{}, step("write", err)
	}
	return hear(fd, answer{})
}

// withULP asks for TLS of the kernel's, which not every kernel has, after a connect.
func withULP(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP, "mptcp")
	unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP, "tls")
	unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP, "smc")
	return connect(fd, a.V4, a.Port)
}

// sourceRoute sends by way of a hop. The kernel puts the hop into the header, and the
// destination at the end of the route: so the target is either.
func sourceRoute(option byte, toTarget bool) attack {
	return func(a aim) (answer, error) {
		hop, to := hop4, a.V4
		if !toTarget {
			hop, to = a.V4, hop4
		}
		kind := unix.SOCK_STREAM
		if !toTarget {
			kind = unix.SOCK_DGRAM
		}
		fd, err := socket(unix.AF_INET, kind, 0)
		if err != nil {
			return answer{}, err
		}
		h := hop.As4()
		options := append([]byte{1, option, 7, 4}, h[:]...)
		if err := unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, string(options)); err != nil {
			return answer{}, step("IP_OPTIONS", err)
		}
		if toTarget {
			return connect(fd, to, a.Port)
		}
		return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(to, a.Port)))
	}
}

// segmentRoute uses a segment routing header (RFC 8754), which any user may set.
func segmentRoute(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	// Two segments, in reverse order; the kernel fills in the last one.
	header := make([]byte, 8, 40)
	header[1], header[2], header[3], header[4] = 4, 4, 1, 1
	header = append(header, hop6.AsSlice()...)
	header = append(header, a.V6.AsSlice()...)
	if err := unix.SetsockoptString(fd, unix.SOL_IPV6, unix.IPV6_RTHDR, string(header)); err != nil {
		return answer{}, step("IPV6_RTHDR", err)
	}
	return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(hop6, a.Port)))
}

// padding is an extension header with eight bytes of nothing.
var padding = string([]byte{0, 0, 1, 4, 0, 0, 0, 0})

func stickyOptions(option int) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		if err != nil {
			return answer{}, err
		}
		if err := unix.SetsockoptString(fd, unix.SOL_IPV6, option, padding); err != nil {
			return answer{}, step("setsockopt", err)
		}
		return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(a.V6, a.Port)))
	}
}

func stickyTCP(a aim) (answer, error) {
	fd, err := open(a.V6)
	if err != nil {
		return answer{}, err
	}
	if err := unix.SetsockoptString(fd, unix.SOL_IPV6, unix.IPV6_DSTOPTS, padding); err != nil {
		return answer{}, step("IPV6_DSTOPTS", err)
	}
	return connect(fd, a.V6, a.Port)
}

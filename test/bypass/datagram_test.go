package bypass

import (
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// UDP and its relatives. A datagram to the target's port is no PostgreSQL, and
// still a way out.

func datagramRows() []row {
	all := []row{
		{threat: 4, name: "UDP sendto", hope: "a datagram, without connect(2)", do: sendTo(v4), want: "refused"},
		{threat: 4, name: "UDP sendto, IPv6", hope: "the same by IPv6", do: sendTo(v6), want: "refused"},
		{threat: 4, name: "UDP sendto, IPv4 in IPv6", hope: "the same by ::ffff:a.b.c.d", do: sendTo(inV6), want: "refused"},
		{threat: 4, name: "UDP sendto, AF_INET address on an AF_INET6 socket", hope: "an address of the other family", do: crossFamily, want: "refused"},
		{threat: 4, name: "UDP sendmmsg", hope: "many datagrams in one call, the first to where it may", do: sendMany, want: "refused"},
		{threat: 4, name: "UDP connected", hope: "connect(2), then write(2)", do: connectedDatagram(v4), want: "refused"},
		{threat: 4, name: "UDP connected, IPv6", hope: "the same by IPv6", do: connectedDatagram(v6), want: "refused"},
		{threat: 4, name: "UDP connected, AF_INET address on an AF_INET6 socket", hope: "an address of the other family", do: crossConnected, want: "refused"},
		{threat: 4, name: "UDP connected elsewhere, then sendto", hope: "an allowed connect(2) first", do: elsewhereFirst, want: "refused"},
		{threat: 4, name: "UDP corked", hope: "an allowed datagram is begun, and ended elsewhere", do: corked, want: "refused"},
		{threat: 4, name: "UDP segmentation offload", hope: "UDP_SEGMENT: the kernel cuts the datagrams", do: offloaded, want: "refused"},
		{threat: 4, name: "UDP MSG_ZEROCOPY", hope: "pages that are sent later", do: zeroCopy, want: "refused"},
		{threat: 4, name: "UDP, from a pod", hope: "a datagram out of a network namespace of its own", do: sendTo(v4), inPod: true, want: "refused"},
		{threat: 4, name: "UDP-Lite", hope: "UDP's sibling", do: other(unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE), want: "refused"},
		{threat: 4, name: "ping socket", hope: "data in an echo request", do: ping, want: "refused"},
		{threat: 6, name: "UDP broadcast", hope: "the subnet's broadcast address", do: groupCast("198.51.100.255"), want: "refused"},
		{threat: 6, name: "UDP limited broadcast", hope: "255.255.255.255", do: groupCast("255.255.255.255"), want: "refused"},
		{threat: 6, name: "UDP multicast", hope: "224.0.0.1, all hosts", do: groupCast("224.0.0.1"), want: "refused"},
		{threat: 6, name: "UDP multicast, IPv6", hope: "ff02::1, all nodes", do: groupCast("ff02::1%n-db"), want: "refused"},
	}
	return all
}

var payload = []byte("x")

func sendTo(to func(aim) netip.Addr) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(family(to(a)), unix.SOCK_DGRAM, 0)
		if err != nil {
			return answer{}, err
		}
		defer unix.Close(fd)
		return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(to(a), a.Port)))
	}
}

func crossFamily(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(a.V4, a.Port)))
}

// sendMany is sendmmsg(2): two datagrams, the second to the target.
func sendMany(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	type message struct {
		unix.Msghdr
		_ [2]uint32 // the length that was sent
	}
	raw := [2]unix.RawSockaddrInet4{rawSockaddr(a.V4, freePort), rawSockaddr(a.V4, a.Port)}
	vector := unix.Iovec{Base: &payload[0], Len: 1}
	var messages [2]message
	for n := range messages {
		m := &messages[n].Msghdr
		m.Name, m.Namelen = (*byte)(unsafe.Pointer(&raw[n])), unix.SizeofSockaddrInet4
		m.Iov, m.Iovlen = &vector, 1
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages)), 2, 0, 0, 0)
	runtime.KeepAlive(raw)
	switch {
	case errno != 0:
		return answer{}, step("sendmmsg", errno)
	case n < 2: // the error of the second is told by the next call only
		return answer{}, step("sendmmsg", unix.EPERM)
	}
	return answer{}, nil
}

func rawSockaddr(to netip.Addr, port uint16) unix.RawSockaddrInet4 {
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port<<8 | port>>8, Addr: to.As4()}
}

func connectedDatagram(to func(aim) netip.Addr) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(family(to(a)), unix.SOCK_DGRAM, 0)
		if err != nil {
			return answer{}, err
		}
		if err := unix.Connect(fd, sockaddr(to(a), a.Port)); err != nil {
			return answer{}, step("connect", err)
		}
		_, err = unix.Write(fd, payload)
		return answer{}, step("write", err)
	}
}

func crossConnected(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.Connect(fd, sockaddr(a.V4, a.Port)); err != nil {
		return answer{}, step("connect", err)
	}
	_, err = unix.Write(fd, payload)
	return answer{}, step("write", err)
}

func elsewhereFirst(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.Connect(fd, sockaddr(a.V4, freePort)); err != nil {
		return answer{}, step("connect", err)
	}
	return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(a.V4, a.Port)))
}

func corked(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.Sendto(fd, payload, unix.MSG_MORE, sockaddr(a.V4, freePort)); err != nil {
		return answer{}, step("sendto", err)
	}
	if err := unix.Sendto(fd, payload, unix.MSG_MORE, sockaddr(a.V4, a.Port)); err != nil {
		return answer{}, step("sendto", err)
	}
	if err := unix.Sendto(fd, payload, 0, sockaddr(a.V4, a.Port)); err != nil {
		return answer{}, step("sendto", err)
	}
	return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(a.V4, a.Port)))
}

func offloaded(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 100); err != nil {
		return answer{}, step("UDP_SEGMENT", err)
	}
	return answer{}, step("sendto", unix.Sendto(fd, make([]byte, 1000), 0, sockaddr(a.V4, a.Port)))
}

func zeroCopy(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1); err != nil {
		return answer{}, step("SO_ZEROCOPY", err)
	}
	return answer{}, step("sendto", unix.Sendto(fd, make([]byte, 1000), unix.MSG_ZEROCOPY, sockaddr(a.V4, a.Port)))
}

// other sends one datagram by another kind of socket.
func other(kind, protocol int) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(unix.AF_INET, kind, protocol)
		if err != nil {
			return answer{}, err
		}
		return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(a.V4, a.Port)))
	}
}

func ping(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	if err != nil {
		return answer{}, err
	}
	echo := []byte{8, 0, 0, 0, 0, 0, 0, 1, 'x'}
	return answer{}, step("sendto", unix.Sendto(fd, echo, 0, sockaddr(a.V4, 0)))
}

func groupCast(to string) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(family(addr(to)), unix.SOCK_DGRAM, 0)
		if err != nil {
			return answer{}, err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
			return answer{}, step("SO_BROADCAST", err)
		}
		if addr(to).Is4() { // there is no default route on the node
			if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "n-db"); err != nil {
				return answer{}, step("SO_BINDTODEVICE", err)
			}
		}
		return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(addr(to), a.Port)))
	}
}

package bypass

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Plain TCP, the ways in which a client may call connect(2), and its relatives.

func tcpRows() []row {
	return []row{
		{threat: 1, name: "connect", hope: "connect(2), IPv4", do: plain4, want: "diverted"},
		{threat: 1, name: "connect, IPv6", hope: "connect(2), IPv6", do: plain6, want: "diverted"},
		{threat: 1, name: "connect, from a pod", hope: "connect(2) in a network namespace of its own", do: plain4, inPod: true, want: "diverted"},
		{threat: 1, name: "connect, IPv6, from a pod", hope: "the same by IPv6", do: plain6, inPod: true, want: "diverted"},
		{threat: 1, name: "non-blocking connect", hope: "connect(2) that returns before it is decided", do: nonBlocking, want: "diverted"},
		{threat: 1, name: "connect twice", hope: "a second connect(2) of a connected socket", do: twice, want: "diverted"},
		{threat: 1, name: "AF_UNSPEC, then again", hope: "a first connection elsewhere, dissolved", do: afterUnspec, want: "diverted"},
		{threat: 1, name: "diverted, AF_UNSPEC, then again", hope: "a first connection to the target, dissolved", do: divertedUnspec, want: "diverted"},
		{threat: 1, name: "bind first", hope: "a bound socket, with a fixed source port", do: bindFirst, want: "diverted"},
		{threat: 1, name: "bind to the outward address", hope: "a source address from which loopback can't be reached", do: bindOutward, want: "diverted or unreachable or dropped", silent: "the connection is diverted, and does not come about"},
		{threat: 1, name: "SO_MARK", hope: "a firewall mark that the proxy itself might use", do: marked, want: "diverted"},
		{threat: 1, name: "hundred connections at once", hope: "one of many non-blocking connections slips through", do: many, want: "diverted"},
		{threat: 2, name: "Fast Open, sendto", hope: "MSG_FASTOPEN: no connect(2) at all", do: fastOpenSend(0), want: "diverted"},
		{threat: 2, name: "Fast Open, sendmsg", hope: "the same by sendmsg(2), IPv6", do: fastOpen6, want: "diverted"},
		{threat: 2, name: "Fast Open, TCP_FASTOPEN_CONNECT", hope: "connect(2) that sends nothing yet", do: fastOpenConnect, want: "diverted"},
		{threat: 3, name: "MPTCP", hope: "subflows are opened by the kernel", do: mptcp(v4), want: "diverted or refused"},
		{threat: 3, name: "MPTCP, IPv6", hope: "the same by IPv6", do: mptcp(v6), want: "diverted or refused"},
		{threat: 3, name: "MPTCP, IPv4 in IPv6", hope: "the same by ::ffff:a.b.c.d", do: mptcp(inV6), want: "diverted or refused"},
		{threat: 3, name: "MPTCP with Fast Open", hope: "both at once", do: fastOpenSend(unix.IPPROTO_MPTCP), want: "diverted or refused"},
		{threat: 4, name: "SCTP", hope: "a stream protocol of its own hooks", do: otherStream(unix.SOCK_STREAM, unix.IPPROTO_SCTP), want: "refused"},
		{threat: 4, name: "SCTP, one-to-many", hope: "sendmsg(2) that associates", do: sctpMany, want: "refused"},
		{threat: 4, name: "DCCP", hope: "a protocol nobody remembers", do: otherStream(unix.SOCK_DCCP, unix.IPPROTO_DCCP), want: "refused"},
		{threat: 4, name: "SMC", hope: "an inner TCP socket, made by the kernel", do: smc, want: "diverted or refused"},
	}
}

func v4(a aim) netip.Addr   { return a.V4 }
func v6(a aim) netip.Addr   { return a.V6 }
func inV6(a aim) netip.Addr { return mapped(a.V4) }

func plain4(a aim) (answer, error) { return dial(a.V4, a.Port) }
func plain6(a aim) (answer, error) { return dial(a.V6, a.Port) }

func nonBlocking(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return answer{}, err
	}
	return connectPolling(fd, a.V4, a.Port)
}

// connectPolling connects a non-blocking socket.
func connectPolling(fd int, to netip.Addr, port uint16) (answer, error) {
	got := answer{Asked: netip.AddrPortFrom(to, port).String()}
	if err := unix.Connect(fd, sockaddr(to, port)); err != nil && err != unix.EINPROGRESS {
		return got, step("connect", err)
	}
	if err := writable(fd); err != nil {
		return got, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return got, step("O_NONBLOCK", err)
	}
	return hear(fd, got)
}

func writable(fd int) error {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, patience)
	if err == nil && n == 0 {
		err = unix.ETIMEDOUT
	}
	if err != nil {
		return step("poll", err)
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return step("connect", err)
}

func twice(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if err := unix.Connect(fd, sockaddr(a.V4, freePort)); err != nil {
		return answer{}, step("first connect", err)
	}
	unix.Connect(fd, sockaddr(a.V4, a.Port)) // EISCONN, one hopes not
	got, err := dial(a.V4, a.Port)
	return got, err
}

var unspec = make([]byte, 16)

func afterUnspec(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if err := unix.Connect(fd, sockaddr(a.V4, freePort)); err != nil {
		return answer{}, step("first connect", err)
	}
	if err := rawConnect(fd, unspec); err != nil {
		return answer{}, err
	}
	return connect(fd, a.V4, a.Port)
}

func divertedUnspec(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if _, err := connect(fd, a.V4, a.Port); err != nil {
		return answer{}, err
	}
	if err := rawConnect(fd, unspec); err != nil {
		return answer{}, err
	}
	return connect(fd, a.V4, a.Port)
}

func bindFirst(a aim) (answer, error) { return boundTo(addr("0.0.0.0"), 45001)(a) }

func bindOutward(a aim) (answer, error) { return boundTo(node4, 45002)(a) }

func boundTo(source netip.Addr, port uint16) attack {
	return func(a aim) (answer, error) {
		fd, err := open(a.V4)
		if err != nil {
			return answer{}, err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return answer{}, step("SO_REUSEADDR", err)
		}
		if err := unix.Bind(fd, sockaddr(source, port)); err != nil {
			return answer{}, step("bind", err)
		}
		return connect(fd, a.V4, a.Port)
	}
}

func marked(a aim) (answer, error) {
	return withOption(unix.SOL_SOCKET, unix.SO_MARK, 0x1234)(a)
}

// withOption sets an option of a TCP socket before it connects.
func withOption(level, option, value int) attack {
	return func(a aim) (answer, error) {
		fd, err := open(a.V4)
		if err != nil {
			return answer{}, err
		}
		if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
			return answer{}, step("setsockopt", err)
		}
		return connect(fd, a.V4, a.Port)
	}
}

func many(a aim) (answer, error) {
	var fds []int
	for range 100 {
		fd, err := socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return answer{}, err
		}
		unix.Connect(fd, sockaddr(a.V4, a.Port))
		fds = append(fds, fd)
	}
	got := answer{Counts: map[string]int{}}
	for _, fd := range fds {
		if err := writable(fd); err != nil {
			got.Counts["failed"]++
			continue
		}
		unix.SetNonblock(fd, false)
		one, _ := hear(fd, answer{})
		got.count(one, asked(netip.AddrPortFrom(a.V4, a.Port).String()))
		unix.Close(fd)
	}
	return got, nil
}

// count adds the answer of one attempt of many. Right is the destination asked for.
func (a answer) count(one answer, right string) {
	switch {
	case one.reached():
		a.Counts["real"]++
	case one.Said == "PROXY "+right:
		a.Counts["right"]++
	case one.Said == "":
		a.Counts["failed"]++
	default:
		a.Counts["wrong"]++
	}
}

func fastOpenSend(protocol int) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(unix.AF_INET, unix.SOCK_STREAM, protocol)
		if err != nil {
			return answer{}, err
		}
		got := answer{Asked: netip.AddrPortFrom(a.V4, a.Port).String()}
		if err := unix.Sendto(fd, []byte("hello\n"), unix.MSG_FASTOPEN, sockaddr(a.V4, a.Port)); err != nil {
			return got, step("sendto", err)
		}
		return hear(fd, got)
	}
}

func fastOpen6(a aim) (answer, error) {
	fd, err := open(a.V6)
	if err != nil {
		return answer{}, err
	}
	got := answer{Asked: netip.AddrPortFrom(a.V6, a.Port).String()}
	if err := unix.Sendmsg(fd, []byte("hello\n"), nil, sockaddr(a.V6, a.Port), unix.MSG_FASTOPEN); err != nil {
		return got, step("sendmsg", err)
	}
	return hear(fd, got)
}

// fastOpenConnect sends data and SYN with the first write.
func fastOpenConnect(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
		return answer{}, step("TCP_FASTOPEN_CONNECT", err)
	}
	got := answer{Asked: netip.AddrPortFrom(a.V4, a.Port).String()}
	if err := unix.Connect(fd, sockaddr(a.V4, a.Port)); err != nil {
		return got, step("connect", err)
	}
	if _, err := unix.Write(fd, []byte("hello\n")); err != nil {
		return got, step("write", err)
	}
	return hear(fd, got)
}

func mptcp(to func(aim) netip.Addr) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(family(to(a)), unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
		if err != nil {
			return answer{}, err
		}
		return connect(fd, to(a), a.Port)
	}
}

func otherStream(kind, protocol int) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(unix.AF_INET, kind, protocol)
		if err != nil {
			return answer{}, err
		}
		if protocol == unix.IPPROTO_DCCP {
			const service = 2 // DCCP_SOCKOPT_SERVICE; without one it does not connect
			if err := unix.SetsockoptInt(fd, unix.SOL_DCCP, service, 1); err != nil {
				return answer{}, step("DCCP_SOCKOPT_SERVICE", err)
			}
		}
		return connect(fd, a.V4, a.Port)
	}
}

func sctpMany(a aim) (answer, error) {
	fd, err := socket(unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP)
	if err != nil {
		return answer{}, err
	}
	return answer{}, step("sendto", unix.Sendto(fd, []byte("x"), unix.MSG_DONTWAIT, sockaddr(a.V4, a.Port)))
}

func smc(a aim) (answer, error) {
	fd, err := socket(unix.AF_SMC, unix.SOCK_STREAM, 0)
	if err != nil {
		return answer{}, err
	}
	return connect(fd, a.V4, a.Port)
}

// spellings of an address.

func spellingRows() []row {
	to := func(f func(aim) netip.Addr) attack {
		return func(a aim) (answer, error) { return dial(f(a), a.Port) }
	}
	at := func(s string) attack {
		return to(func(aim) netip.Addr { return addr(s) })
	}
	all := []row{
		{threat: 6, name: "::ffff:a.b.c.d", hope: "IPv4 by an IPv6 socket", do: to(inV6), want: "diverted"},
		{threat: 6, name: "0.0.0.0", hope: "this host, unspecified", do: at("0.0.0.0"), want: "diverted"},
		{threat: 6, name: "::", hope: "the same by IPv6", do: at("::"), want: "diverted"},
		{threat: 6, name: "::ffff:0.0.0.0", hope: "the same by IPv4 in IPv6", do: at("::ffff:0.0.0.0"), want: "diverted"},
		{threat: 6, name: "::1", hope: "loopback by IPv6", do: at("::1"), want: "diverted"},
	}
	for _, s := range []struct {
		name, hope string
		do         attack
	}{
		{"another address", "an alias of the target's host, that no list has", to(func(a aim) netip.Addr { return a.Alias4 })},
		{"another address, IPv6", "the same by IPv6", to(func(a aim) netip.Addr { return a.Alias6 })},
		{"64:ff9b::a.b.c.d", "a NAT64 gateway translates it", to(func(a aim) netip.Addr { return a.NAT64 })},
		{"::a.b.c.d", "IPv4-compatible IPv6", to(func(a aim) netip.Addr { return a.Compatible })},
		{"fe80::…%device", "the link-local address, with its zone", to(func(a aim) netip.Addr { return a.LinkLocal.WithZone("n-db") })},
		{"127.0.0.2", "another loopback address", at("127.0.0.2")},
		{"the node's own address", "the database on the node, by the node's outward address", at(node4.String())},
		{"the node's own address, IPv6", "the same by IPv6", at(node6.String())},
	} {
		all = append(all, row{threat: 6, name: s.name, hope: s.hope, do: s.do, want: "diverted"})
	}
	return slices.Clip(all)
}

package bypass

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// The listener itself: spoken to directly, or taken over.

func listenerRows() []row {
	const none = "without the daemon there is no listener"
	to := func(s string) attack { return func(aim) (answer, error) { return dial(addr(s), listenerPort) } }
	bind := func(s string, reuse ...int) attack {
		return func(aim) (answer, error) { return squat(addr(s), reuse...) }
	}
	return []row{
		{threat: 10, name: "listener", hope: "connect(2) straight to it", control: none, do: to("127.0.0.1"), want: "refused"},
		{threat: 10, name: "listener, IPv6", hope: "the same by IPv6", control: none, do: to("::1"), want: "refused"},
		{threat: 10, name: "listener, IPv4 in IPv6", hope: "the same by ::ffff:127.0.0.1", control: none, do: to("::ffff:127.0.0.1"), want: "refused"},
		{threat: 10, name: "listener, 0.0.0.0", hope: "the same, unspecified", control: none, do: to("0.0.0.0"), want: "refused"},
		{threat: 10, name: "listener, from a pod", hope: "the pod's own", control: none, inPod: true, do: to("127.0.0.1"), want: "refused"},
		{threat: 10, name: "listener, Fast Open", hope: "data with the SYN", control: none, do: listenerFastOpen, want: "refused"},
		{threat: 10, name: "listener, from outside", hope: "a process that no hook sees", control: none, from: fromOutside, do: to("127.0.0.1"), want: "refused"},
		{threat: 10, name: "listener, from outside, IPv6", hope: "the same by IPv6", control: none, from: fromOutside, do: to("::1"), want: "refused"},
		{threat: 10, name: "listener, source port of a planner", hope: "the address of a connection that was just diverted", control: none, from: fromOutside, do: sameSource, want: "refused"},
		{threat: 10, name: "listener's port, bound", hope: "bind(2) and listen(2) beside the daemon", control: none, do: bind("127.0.0.9"), want: "refused"},
		{threat: 10, name: "listener's port, SO_REUSEPORT", hope: "the same address, shared", control: none, do: bind("127.0.0.1", unix.SO_REUSEADDR, unix.SO_REUSEPORT), want: "refused"},
		{threat: 10, name: "listener's port, any address, IPv6", hope: "a listener on ::", control: none, do: bind("::", unix.SO_REUSEADDR), want: "refused"},
	}
}

func listenerFastOpen(aim) (answer, error) {
	fd, err := open(netip.IPv4Unspecified())
	if err != nil {
		return answer{}, err
	}
	if err := unix.Sendto(fd, payload, unix.MSG_FASTOPEN, sockaddr(addr("127.0.0.1"), listenerPort)); err != nil {
		return answer{}, step("sendto", err)
	}
	return hear(fd, answer{})
}

// squat takes the listener's port. To have it is as bad as to reach the target.
func squat(on netip.Addr, reuse ...int) (answer, error) {
	fd, err := open(on)
	if err != nil {
		return answer{}, err
	}
	for _, option := range reuse {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return answer{}, step("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, sockaddr(on, listenerPort)); err != nil {
		return answer{}, step("bind", err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		return answer{}, step("listen", err)
	}
	return answer{Said: "REAL listener of the planner's"}, nil
}

// sameSource is diverted as a planner, dies, and comes back from outside with the same
// source port.
func sameSource(a aim) (answer, error) {
	once := func(to netip.Addr, port uint16) (answer, error) {
		fd, err := open(to)
		if err != nil {
			return answer{}, err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return answer{}, step("SO_REUSEADDR", err)
		}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return answer{}, step("SO_LINGER", err)
		}
		if err := unix.Bind(fd, sockaddr(addr("127.0.0.1"), 45020)); err != nil {
			return answer{}, step("bind", err)
		}
		return connect(fd, to, port)
	}
	if err := join(a.Job); err != nil {
		return answer{}, err
	}
	if _, err := once(a.V4, a.Port); err != nil {
		return answer{}, err
	}
	if err := join(a.Home); err != nil {
		return answer{}, err
	}
	return once(addr("127.0.0.1"), listenerPort)
}

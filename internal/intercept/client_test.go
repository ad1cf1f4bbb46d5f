package intercept

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// What a test's client process does: one action, inside the cgroup that it was
// started in, by system calls, as a planner might. The result goes to stdout.

// answer is what a client came to.
type answer struct {
	Said  string `json:",omitempty"` // what the peer said
	Peer  string `json:",omitempty"` // getpeername(2)
	Error string `json:",omitempty"` // name of the errno
	// Of "measure", in ns.
	P50, Mean float64 `json:",omitempty"`
	Counts    map[string]int
}

func clientMain() int {
	action, args := os.Args[1], os.Args[2:]
	if action == "probe" {
		if err := Probe(context.Background(), os.Stdout, args[0]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	act, ok := actions()[action]
	if !ok {
		fmt.Fprintln(os.Stderr, "no action", action)
		return 2
	}
	a, err := act(args)
	if errno := unix.Errno(0); errors.As(err, &errno) {
		a.Error = unix.ErrnoName(errno)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		return 1
	}
	return 0
}

func actions() map[string]func([]string) (answer, error) {
	return map[string]func([]string) (answer, error){
		"tcp":        func(a []string) (answer, error) { return dialTCP(unix.IPPROTO_TCP, a[0]) },
		"mptcp":      func(a []string) (answer, error) { return dialTCP(unix.IPPROTO_MPTCP, a[0]) },
		"tfo":        fastOpen,
		"mapped":     mapped,
		"reconnect":  reconnect,
		"reused":     reusedPort,
		"race":       race,
		"udp":        datagram,
		"udpconnect": connectedDatagram,
		"socket":     socketOnly,
		"bind":       bindOnly,
		"raw":        rawPacket,
		"premade":    premade,
		"late":       late,
		"leave":      leave,
		"netns":      inNetns,
		"measure":    measure,
		"hold":       hold,
		"ask":        ask,
		"unix":       unixSocket,
		"packet":     packetSocket,
		"knock":      knock,
		"churn":      churn,
	}
}

func sockaddr(to netip.AddrPort) (family int, sa unix.Sockaddr) {
	if to.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

func addrOf(sa unix.Sockaddr) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return ""
}

// hear reads what the peer says until it closes.
func hear(fd int) (answer, error) {
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return answer{}, err
	}
	var a answer
	if peer, err := unix.Getpeername(fd); err == nil {
		a.Peer = addrOf(peer)
	}
	buf := make([]byte, 4096)
	for n := 0; ; {
		m, err := unix.Read(fd, buf[n:])
		if err != nil {
			return a, err
		}
		if n += m; m == 0 {
			a.Said = string(buf[:n])
			return a, nil
		}
	}
}

func dialTCP(protocol int, address string) (answer, error) {
	family, sa := sockaddr(netip.MustParseAddrPort(address))
	fd, err := unix.Socket(family, unix.SOCK_STREAM, protocol)
	if err != nil {
		return answer{}, err
	}
	return connectAndHear(fd, sa)
}

func connectAndHear(fd int, sa unix.Sockaddr) (answer, error) {
	if err := unix.Connect(fd, sa); err != nil {
		return answer{}, err
	}
	return hear(fd)
}

// mapped connects an IPv6 socket to ::ffff:a.b.c.d.
func mapped(args []string) (answer, error) {
	to := netip.MustParseAddrPort(args[0])
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err != nil {
		return answer{}, err
	}
	return connectAndHear(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
}

func fastOpen(args []string) (answer, error) {
	family, sa := sockaddr(netip.MustParseAddrPort(args[0]))
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.Sendto(fd, []byte("hello\n"), unix.MSG_FASTOPEN, sa); err != nil {
		return answer{}, err
	}
	return hear(fd)
}

// reconnect connects to the first address, disconnects, and connects the same socket
// to the second.
func reconnect(args []string) (answer, error) {
	family, first := sockaddr(netip.MustParseAddrPort(args[0]))
	_, second := sockaddr(netip.MustParseAddrPort(args[1]))
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return answer{}, err
	}
	if _, err := connectAndHear(fd, first); err != nil {
		return answer{}, err
	}
	if err := disconnect(fd); err != nil {
		return answer{}, err
	}
	return connectAndHear(fd, second)
}

func disconnect(fd int) error {
	unspec := make([]byte, 16) // sa_family AF_UNSPEC
	return rawConnect(fd, unspec)
}

// reusedPort connects to two addresses in turn from one source port, and counts the
// answers that name another destination than the one asked for.
func reusedPort(args []string) (answer, error) {
	a := answer{Counts: map[string]int{}}
	for n := range 100 {
		to := args[n%2]
		_, sa := sockaddr(netip.MustParseAddrPort(to))
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return a, err
		}
		if err := errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
			unix.Bind(fd, &unix.SockaddrInet4{Port: 45010}),
		); err != nil {
			return a, err
		}
		got, err := connectAndHear(fd, sa)
		switch {
		case err != nil:
			a.Counts["failed"]++
		case strings.Contains(got.Said, to):
			a.Counts["right"]++
		default:
			a.Counts["wrong"]++
		}
		unix.Close(fd)
	}
	return a, nil
}

// race lets two threads connect one socket to two destinations, many times over.
func race(args []string) (answer, error) {
	a := answer{Counts: map[string]int{}}
	for range 100 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return a, err
		}
		var both sync.WaitGroup
		for _, to := range args {
			_, sa := sockaddr(netip.MustParseAddrPort(to))
			both.Go(func() { unix.Connect(fd, sa) })
		}
		both.Wait()
		got, err := hear(fd)
		switch {
		case err != nil:
			a.Counts["failed"]++
		case strings.HasPrefix(got.Said, "REAL "+args[0]):
			a.Counts["bypassed"]++
		case strings.Contains(got.Said, got.Peer):
			a.Counts["right"]++
		default:
			a.Counts["wrong"]++
		}
		unix.Close(fd)
	}
	return a, nil
}

func datagram(args []string) (answer, error) {
	family, sa := sockaddr(netip.MustParseAddrPort(args[0]))
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	return answer{}, unix.Sendto(fd, []byte("x"), 0, sa)
}

func connectedDatagram(args []string) (answer, error) {
	family, sa := sockaddr(netip.MustParseAddrPort(args[0]))
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	return answer{}, unix.Connect(fd, sa)
}

// socketOnly makes a socket of "family type protocol".
func socketOnly(args []string) (answer, error) {
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(args[i])
	}
	_, err := unix.Socket(n[0], n[1], n[2])
	return answer{}, err
}

func bindOnly(args []string) (answer, error) {
	family, sa := sockaddr(netip.MustParseAddrPort(args[0]))
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return answer{}, err
	}
	return answer{}, unix.Bind(fd, sa)
}

func join(cgroup string) error {
	return os.WriteFile(cgroup+"/cgroup.procs", []byte("0"), 0)
}

// premade makes a socket, joins a cgroup and only then uses it: "cgroup kind address".
func premade(args []string) (answer, error) {
	to := netip.MustParseAddrPort(args[2])
	family, sa := sockaddr(to)
	kinds := map[string][2]int{
		"tcp": {unix.SOCK_STREAM, unix.IPPROTO_TCP},
		"udp": {unix.SOCK_DGRAM, unix.IPPROTO_UDP},
		"raw": {unix.SOCK_RAW, unix.IPPROTO_RAW},
	}
	fd, err := unix.Socket(family, kinds[args[1]][0], kinds[args[1]][1])
	if err != nil {
		return answer{}, err
	}
	if err := join(args[0]); err != nil {
		return answer{}, err
	}
	switch args[1] {
	case "tcp":
		return connectAndHear(fd, sa)
	case "udp":
		return answer{}, unix.Sendto(fd, []byte("x"), 0, sa)
	}
	return answer{}, sendRaw4(fd, to, "plain")
}

// leave goes to another cgroup and connects from there: "cgroup address".
func leave(args []string) (answer, error) {
	if err := join(args[0]); err != nil {
		return answer{}, err
	}
	return dialTCP(0, args[1])
}

// late makes a socket, says so on stdout, waits for a byte on stdin, and sends: "address
// kind", where kind is udp (connected before), or one of rawPacket's.
func late(args []string) (answer, error) {
	to := netip.MustParseAddrPort(args[0])
	family, sa := sockaddr(to)
	socketType, protocol := unix.SOCK_RAW, unix.IPPROTO_RAW
	if args[1] == "udp" {
		socketType, protocol = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	}
	fd, err := unix.Socket(family, socketType, protocol)
	if err != nil {
		return answer{}, err
	}
	if args[1] == "udp" {
		if err := unix.Connect(fd, sa); err != nil {
			return answer{}, err
		}
	}
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return answer{}, err
	}
	if args[1] != "udp" {
		return answer{}, sendRaw4(fd, to, args[1])
	}
	_, err = unix.Write(fd, []byte("x"))
	return answer{}, err
}

// inNetns does an action in another network namespace: "path action argument…".
func inNetns(args []string) (answer, error) {
	var a answer
	err := Namespace{Path: args[0]}.do(func() error {
		var err error
		a, err = actions()[args[1]](args[2:])
		return err
	})
	return a, err
}

// unixSocket connects to the unix socket of a name.
func unixSocket(args []string) (answer, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: args[0]}); err != nil {
		return answer{}, err
	}
	return hear(fd)
}

// ask sends a datagram and tells the answer and whom it came from: "address how", where
// how is "connected" or "unconnected".
func ask(args []string) (answer, error) {
	family, sa := sockaddr(netip.MustParseAddrPort(args[0]))
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return answer{}, err
	}
	if args[1] == "connected" {
		if err := unix.Connect(fd, sa); err != nil {
			return answer{}, err
		}
		if _, err := unix.Write(fd, []byte("who?")); err != nil {
			return answer{}, err
		}
	} else if err := unix.Sendto(fd, []byte("who?"), 0, sa); err != nil {
		return answer{}, err
	}
	buf := make([]byte, 512)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return answer{}, err
	}
	a := answer{Said: string(buf[:n]), Peer: addrOf(from)}
	if args[1] == "connected" {
		peer, err := unix.Getpeername(fd)
		if err != nil {
			return answer{}, err
		}
		a.Peer = addrOf(peer)
	}
	return a, nil
}

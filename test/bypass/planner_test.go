package bypass

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/confine"
)

// What a planner's process does: one attack, by system calls, in the cgroup that it
// was started in. The result goes to stdout.

// aim is what an attack is told.
type aim struct {
	place
	Job      string // the planner's cgroup
	Stranger string // a cgroup below the ancestor that is nobody's
	Home     string // one outside the ancestor
	Pod, DB  string // network namespaces
	InPod    bool   // attack from the pod's
	Pins     string
	Confined bool   // be confined first, as chaperone run does it
	Stop     string // a file: "hammer" ends when it is there
	Patience int    // ms to wait for what may never come
}

// answer is what an attack came to.
type answer struct {
	Asked string // the destination asked for
	Said  string // what the peer said
	Peer  string // getpeername(2)
	Step  string // what failed, and
	Errno string // how
	// Of attacks that try many times: how it went, by "right", "wrong", …
	Counts map[string]int
}

type attack func(aim) (answer, error)

func plannerMain(args []string) error {
	var a aim
	if err := json.Unmarshal([]byte(args[1]), &a); err != nil {
		return err
	}
	runtime.LockOSThread() // some change the thread's namespaces
	patience = a.Patience
	if args[0] == "beacon" {
		return beaconMain(os.Stdin, os.Stdout)
	}
	if help, ok := accomplices()[args[0]]; ok {
		return help(a)
	}
	r, ok := rowNamed(args[0])
	if !ok {
		return fmt.Errorf("no attack %q", args[0])
	}
	if a.InPod {
		if err := enterNet(a.Pod); err != nil {
			return err
		}
	}
	if a.Confined {
		return confined(a)
	}
	got, err := r.do(a)
	errno := unix.Errno(0)
	switch {
	case errors.As(err, &errno):
		got.Step, got.Errno = err.Error(), unix.ErrnoName(errno)
	case err != nil:
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(got)
}

// confined does what chaperone run does before it executes a command, and executes the
// attack.
func confined(a aim) error {
	a.Confined = false
	arg, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := errors.Join(confine.HideEnforcement(), confine.Drop(nil)); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", []string{os.Args[0], "planner", os.Args[2], string(arg)}, os.Environ())
}

// beaconMain sends the marker for each byte that it reads.
func beaconMain(in, out *os.File) error {
	conn, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	defer conn.Close()
	b := make([]byte, 1)
	for {
		if _, err := in.Read(b); err != nil {
			return nil
		}
		if _, err := conn.WriteTo([]byte("mark"), net.UDPAddrFromAddrPort(marker)); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("a datagram to the marker was not refused (error: %v)", err)
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
}

var patience = 400

// step names the call that failed.
func step(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func socket(family, kind, protocol int) (int, error) {
	fd, err := unix.Socket(family, kind, protocol)
	return fd, step("socket", err)
}

// open makes a TCP socket for an address.
func open(to netip.Addr) (int, error) {
	return socket(family(to), unix.SOCK_STREAM, 0)
}

func family(to netip.Addr) int {
	if to.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(to netip.Addr, port uint16) unix.Sockaddr {
	if to.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: to.As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(port), Addr: to.As16()}
	if device, err := net.InterfaceByName(to.Zone()); to.Zone() != "" && err == nil {
		sa.ZoneId = uint32(device.Index)
	}
	return sa
}

func mapped(to netip.Addr) netip.Addr { return netip.AddrFrom16(to.As16()) }

// dial makes a TCP socket, connects it and listens to what the peer says.
func dial(to netip.Addr, port uint16) (answer, error) {
	fd, err := open(to)
	if err != nil {
		return answer{}, err
	}
	defer unix.Close(fd)
	return connect(fd, to, port)
}

// connect waits a while for a connection, and says EINPROGRESS if none comes.
func connect(fd int, to netip.Addr, port uint16) (answer, error) {
	a := answer{Asked: netip.AddrPortFrom(to, port).String()}
	wait := unix.NsecToTimeval(int64(patience) * 1e6)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait); err != nil {
		return a, step("SO_SNDTIMEO", err)
	}
	if err := unix.Connect(fd, sockaddr(to, port)); err != nil {
		return a, step("connect", err)
	}
	return hear(fd, a)
}

// hear reads what the peer says until it closes.
func hear(fd int, a answer) (answer, error) {
	wait := unix.NsecToTimeval(10 * int64(patience) * 1e6)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return a, step("SO_RCVTIMEO", err)
	}
	if peer, err := unix.Getpeername(fd); err == nil {
		a.Peer = name(peer)
	}
	buf := make([]byte, 512)
	for n := 0; ; {
		m, err := unix.Read(fd, buf[n:])
		if n += max(m, 0); m <= 0 || n == len(buf) {
			a.Said = string(buf[:n])
			if n > 0 {
				err = nil
			}
			return a, step("read", err)
		}
	}
}

func name(sa unix.Sockaddr) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return ""
}

// rawConnect is connect(2) with an address that package unix has no type for.
func rawConnect(fd int, address []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address[0])), uintptr(len(address)))
	if errno != 0 {
		return step("connect", errno)
	}
	return nil
}

func join(cgroup string) error {
	return step("join "+cgroup, os.WriteFile(cgroup+"/cgroup.procs", []byte("0"), 0))
}

package intercept

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/bpf"
)

// Origin is where a diverted connection was going, and who opened it, as the
// kernel saw it in connect(2). Nothing of it was said by the client.
type Origin struct {
	// Destination is never IPv4 in IPv6, and never unspecified: a client that
	// named the unspecified address meant loopback.
	Destination netip.AddrPort
	// Workload is the id of the enrolled cgroup, Cgroup that of the process's own:
	// the same, or one inside of it.
	Workload uint64
	Cgroup   uint64
	// CgroupPath is where that process is, below the root of cgroup v2, as of a moment
	// later. Empty means that it can't be told.
	CgroupPath string
	// Process connected. It may have handed the socket on since.
	Process Process
	At      time.Time
	// Protocol and Target are those of the [Capture].
	Protocol uint8
	Target   uint32
}

// ErrNotDiverted says that a connection has no origin: it came straight to the
// listener, or its origin was taken before. It must not be served.
var ErrNotDiverted = errors.New("connection was not diverted here")

// Origin takes the origin of an accepted connection: a second call returns
// [ErrNotDiverted]. Any other error means that it can't be told, and that the
// connection must not be served either.
func (i *Interceptor) Origin(conn *net.TCPConn) (Origin, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Origin{}, fmt.Errorf("origin of a connection: %w", err)
	}
	var o bpf.InterceptOrigin
	if err := control(raw, func(fd int) error { return i.take(fd, &o) }); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return Origin{}, ErrNotDiverted
		}
		return Origin{}, fmt.Errorf("origin of a connection: %w", err)
	}
	process, cgroup := process(o.Process.Started, o.Process.Tgid, o.Process.Uid, o.Process.Gid, o.Process.Comm)
	return Origin{
		Destination: addrPort(o.Destination, o.Port),
		Workload:    o.Workload,
		Cgroup:      o.Cgroup,
		CgroupPath:  cgroup,
		Process:     process,
		At:          atBoot(o.At),
		Protocol:    o.Protocol,
		Target:      o.Target,
	}, nil
}

// take reads the origin off the socket and deletes it, one caller after the
// other: the kernel lets two delete the same entry at once, and tells both that
// they did (bpf_sk_storage_del looks it up before it locks).
func (i *Interceptor) take(fd int, o *bpf.InterceptOrigin) error {
	i.taking.Lock()
	err := i.objects.Accepted.Lookup(int32(fd), o)
	if err == nil {
		err = i.objects.Accepted.Delete(int32(fd))
	}
	i.taking.Unlock()
	if err != nil {
		return err
	}
	// The bridge is keyed by namespace, so this can't be. If it were, the origin
	// would be another connection's.
	netns, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if netns != o.Netns {
		return fmt.Errorf("it was opened in network namespace %d and accepted in %d", o.Netns, netns)
	}
	return nil
}

func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

func addrPort(a bpf.InterceptAddress, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Bytes).Unmap(), ntoh(port))
}

// atBoot tells the time of a reading of the boot-time clock.
func atBoot(ns uint64) time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Now()
	}
	return time.Now().Add(time.Duration(ns) - time.Duration(now.Nano()))
}

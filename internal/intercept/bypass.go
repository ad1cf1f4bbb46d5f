package intercept

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/bpf"
)

// Bypass is one attempt to get around the listener that was stopped.
type Bypass struct {
	At      time.Time
	Outcome Outcome
	// Hook is the kernel hook that stopped it: "connect", "sendmsg", "bind",
	// "sock_create", "egress", "interface", "connect_unix" or "socket".
	Hook string
	// Workload is the id of the planner's cgroup; 0 says that it was none.
	// Cgroup is that of the process, of a packet that of its socket.
	Workload uint64
	Cgroup   uint64
	// Netns is the cookie of the network namespace; 0 for packets, and for
	// sockets that were not made.
	Netns uint64
	// Process is zero for packets that no process of the socket's cgroup was
	// just sending.
	Process Process
	// Socket is "tcp", "udp", "raw", or another protocol's name or number.
	Socket string
	// Destination is what it was for, for bind(2) the local address. It is
	// invalid for sock_create, and its port is 0 where a packet's can't be told.
	Destination netip.AddrPort
}

// Bypasses calls handle for each attempt that is reported, one after the other,
// until ctx is done; then it returns nil. At most one call at a time may be
// under way. The kernel reports up to 64 a second of each planner, and of all others
// together; [Interceptor.Stats] counts all.
func (i *Interceptor) Bypasses(ctx context.Context, handle func(Bypass)) error {
	reader, err := ringbuf.NewReader(i.objects.Reports)
	if err != nil {
		return fmt.Errorf("read reports of bypasses: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer func() {
		if stop() {
			reader.Close()
		}
	}()
	var record ringbuf.Record
	for {
		err := reader.ReadInto(&record)
		if errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read reports of bypasses: %w", err)
		}
		b, err := decodeBypass(record.RawSample)
		if err != nil {
			return err
		}
		if !isCanary(b.Destination) {
			handle(b)
		}
	}
}

func decodeBypass(sample []byte) (Bypass, error) {
	var r bpf.InterceptReport
	if _, err := binary.Decode(sample, binary.NativeEndian, &r); err != nil {
		return Bypass{}, fmt.Errorf("report of a bypass, %d bytes: %w", len(sample), err)
	}
	process, _ := process(r.Process.Started, r.Process.Tgid, r.Process.Uid, r.Process.Gid, r.Process.Comm)
	b := Bypass{
		At:       atBoot(r.At),
		Outcome:  RefusedFault,
		Hook:     hookName(bpf.InterceptHook(r.Hook)),
		Workload: r.Workload,
		Cgroup:   r.Cgroup,
		Netns:    r.Netns,
		Process:  process,
		Socket:   socketName(r.Family, r.Type, r.Protocol),
	}
	if all := outcomes(); int(r.Outcome) < len(all) {
		b.Outcome = all[r.Outcome]
	}
	switch bpf.InterceptHook(r.Hook) {
	case bpf.InterceptHookHOOK_SOCK_CREATE, bpf.InterceptHookHOOK_SOCKET, bpf.InterceptHookHOOK_CONNECT_UNIX:
	default:
		b.Destination = addrPort(r.Address, r.Port)
	}
	return b, nil
}

func hookName(h bpf.InterceptHook) string {
	switch h {
	case bpf.InterceptHookHOOK_CONNECT:
		return "connect"
	case bpf.InterceptHookHOOK_SENDMSG:
		return "sendmsg"
	case bpf.InterceptHookHOOK_BIND:
		return "bind"
	case bpf.InterceptHookHOOK_SOCK_CREATE:
		return "sock_create"
	case bpf.InterceptHookHOOK_EGRESS:
		return "egress"
	case bpf.InterceptHookHOOK_INTERFACE:
		return "interface"
	case bpf.InterceptHookHOOK_CONNECT_UNIX:
		return "connect_unix"
	case bpf.InterceptHookHOOK_SOCKET:
		return "socket"
	}
	return "unknown"
}

func socketName(family uint16, kind uint8, protocol uint16) string {
	switch family {
	case unix.AF_INET, unix.AF_INET6:
	case unix.AF_UNIX:
		return "unix"
	case unix.AF_PACKET:
		return "packet"
	case unix.AF_VSOCK:
		return "vsock"
	case unix.AF_XDP:
		return "xdp"
	case 0: // a frame that is no IP packet
		return "frame"
	default:
		return "family " + strconv.Itoa(int(family))
	}
	if kind == unix.SOCK_RAW {
		return "raw"
	}
	switch protocol {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_UDPLITE:
		return "udplite"
	case unix.IPPROTO_MPTCP:
		return "mptcp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	case unix.IPPROTO_DCCP:
		return "dccp"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "icmp"
	}
	return "protocol " + strconv.Itoa(int(protocol))
}

package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/netns"
)

// rawSocket is a socket's way to its descriptor. The descriptor is never taken out of it:
// os.File.Fd would make the socket a blocking one, for this process too.
type rawSocket = syscall.RawConn

func rawSockets(h netns.Handover) ([]rawSocket, error) {
	var raws []rawSocket
	var errs []error
	add := func(conn syscall.Conn) {
		raw, err := conn.SyscallConn()
		raws, errs = append(raws, raw), append(errs, err)
	}
	for _, l := range h.Listeners {
		add(l)
	}
	for _, conn := range h.Datagrams {
		add(conn)
	}
	return raws, errors.Join(errs...)
}

// withDescriptors calls f with the descriptors of all sockets, which are open meanwhile.
func withDescriptors(sockets []rawSocket, fds []int, f func(fds []int) error) error {
	if len(sockets) == 0 {
		return f(fds)
	}
	var err error
	if cerr := sockets[0].Control(func(fd uintptr) {
		err = withDescriptors(sockets[1:], append(fds, int(fd)), f)
	}); cerr != nil {
		return cerr
	}
	return err
}

// descriptors are those that came with a packet.
func descriptors(control []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeFiles(files)
			return nil, fmt.Errorf("%w: %w", ErrMessage, err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd) // the runtime's recvmsg(2) has asked for that already
			files = append(files, os.NewFile(uintptr(fd), "inherited socket"))
		}
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// open makes sockets of a packet's descriptors.
func open(described []socket, files []*os.File) ([]netns.Handover, error) {
	defer closeFiles(files) // what is made of them are copies
	var all []netns.Handover
	fail := func(err error) ([]netns.Handover, error) {
		for _, h := range all {
			h.Close()
		}
		return nil, err
	}
	rest := files
	for _, d := range described {
		if d.Count < 0 || d.Count > len(rest) {
			return fail(fmt.Errorf("%w: %d sockets are said to come, and %d did", ErrMessage, d.Count, len(rest)))
		}
		h := netns.Handover{
			Namespace: netns.ID{Device: d.Device, Inode: d.Inode}, Workload: d.Workload, Cgroup: d.Cgroup, Interfaces: d.Interfaces,
		}
		all = append(all, h)
		last := &all[len(all)-1]
		for _, f := range rest[:d.Count] {
			if err := add(last, f); err != nil {
				return fail(err)
			}
		}
		rest = rest[d.Count:]
	}
	if len(rest) > 0 {
		return fail(fmt.Errorf("%w: %d sockets too many", ErrMessage, len(rest)))
	}
	return all, nil
}

func add(h *netns.Handover, f *os.File) error {
	if h.Workload == 0 {
		l, err := net.FileListener(f)
		if err != nil {
			return fmt.Errorf("inherited listener: %w", err)
		}
		tcp, ok := l.(*net.TCPListener)
		if !ok {
			return errors.Join(fmt.Errorf("%w: a listener of %s", ErrMessage, l.Addr().Network()), l.Close())
		}
		h.Listeners = append(h.Listeners, tcp)
		return nil
	}
	conn, err := net.FilePacketConn(f)
	if err != nil {
		return fmt.Errorf("inherited socket: %w", err)
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return errors.Join(fmt.Errorf("%w: a socket of %s", ErrMessage, conn.LocalAddr().Network()), conn.Close())
	}
	h.Datagrams = append(h.Datagrams, udp)
	return nil
}

package control

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroups is how many supplementary groups a process can have (NGROUPS_MAX).
const maxGroups = 65536

func peerOf(conn net.Conn) (Peer, error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var peer Peer
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr != nil {
			return
		}
		peer = Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
		peer.Groups, credErr = peerGroups(fd)
	}); err != nil {
		return Peer{}, err
	}
	return peer, credErr
}

// peerGroups asks for the groups that the peer had when it connected. Until there is room
// for them the kernel says how much that takes.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups) && size/4 <= maxGroups:
			groups = make([]uint32, size/4)
		default:
			return nil, fmt.Errorf("the groups of who asks: %w", errno)
		}
	}
}

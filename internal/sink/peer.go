package sink

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of a unix socket, as it was when it
// connected.
type Peer struct {
	PID      int32
	UID, GID uint32
}

type peerKey struct{}

// peerResult is a Peer, or why there is none.
type peerResult struct {
	peer Peer
	err  error
}

// PeerOf tells who asks, from the context of a request that came to
// [Sink.Serve].
func PeerOf(ctx context.Context) (Peer, error) {
	known, ok := ctx.Value(peerKey{}).(peerResult)
	if !ok {
		return Peer{}, errors.New("the request came by no unix socket")
	}
	return known.peer, known.err
}

// withPeer has the kernel say who connected (SO_PEERCRED).
func withPeer(ctx context.Context, c net.Conn) context.Context {
	peer, err := peerOf(c)
	if err != nil {
		err = fmt.Errorf("who is at the other end of the socket: %w", err)
	}
	return context.WithValue(ctx, peerKey{}, peerResult{peer, err})
}

func peerOf(c net.Conn) (Peer, error) {
	socket, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}, errors.New("it is no unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return Peer{}, e
	}
	if err != nil {
		return Peer{}, err
	}
	return Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid}, nil
}

// Package handover is the conversation between a daemon and the one that takes its place:
// over a unix socket that root alone can open, where the kernel says who is at the
// other end, and that carries open sockets (SCM_RIGHTS, unix(7)). It knows the
// messages and their order, not what either side has to do for them.
//
//	successor               daemon
//	Hello           →
//	                ←       Refusal, or, when it has let go of everything else:
//	                ←       Sockets, any number of times
//	                ←       Released
//	Ready           →
//
// Until Ready has arrived the daemon's sockets are its own, and it goes on with them when
// the conversation ends. Afterwards it keeps it open for as long as it has sessions.
package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/netns"
)

// SocketName is the socket's name in the run folder.
const SocketName = "takeover.sock"

// Protocol is the version of the messages.
const Protocol = 1

// Hello says who wants to take over. Two daemons in which it differs, but for
// Version, can't have each other's sockets.
type Hello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"` // of the program, for the log
	Maps     string `json:"maps"`    // layout of the kernel maps
	Cluster  string `json:"cluster"`
	Node     string `json:"node"`
	Cgroup   string `json:"cgroup"`
	PinDir   string `json:"pinDir"`
	State    string `json:"state"`
	Port     int    `json:"port"`
	Embedded bool   `json:"embedded"`
}

// Released says that all is the successor's, once it is ready.
type Released struct {
	Cgroup   uint64   `json:"cgroup"` // of the daemon that goes on with its sessions
	Jobs     []string `json:"jobs"`   // ids of those that live
	Sessions int      `json:"sessions"`
}

var (
	// ErrNobody says that no daemon answers.
	ErrNobody = errors.New("no daemon runs here")
	// ErrRefused is wrapped by what the other daemon's refusal says.
	ErrRefused = errors.New("the running daemon does not hand over")
	// ErrMessage is wrapped by errors about what can't be understood.
	ErrMessage = errors.New("unexpected message of the other daemon")
)

// message is one packet. One of the fields is set.
type message struct {
	Hello    *Hello    `json:"hello,omitempty"`
	Refusal  string    `json:"refusal,omitempty"`
	Sockets  []socket  `json:"sockets,omitempty"`
	Released *Released `json:"released,omitempty"`
	Ready    bool      `json:"ready,omitempty"`
}

// socket describes sockets of one namespace, which are so many of the packet's descriptors.
type socket struct {
	Device     uint64 `json:"device"`
	Inode      uint64 `json:"inode"`
	Workload   uint64 `json:"workload,omitempty"`
	Cgroup     string `json:"cgroup,omitempty"`
	Interfaces []int  `json:"interfaces,omitempty"`
	Count      int    `json:"count"`
}

const (
	maxMessage     = 64 << 10
	maxDescriptors = 64 // of a packet; the kernel's limit is SCM_MAX_FD, 253
	maxSockets     = 1 << 16
	helloTimeout   = 5 * time.Second
)

// Listen makes the socket.
func Listen(ctx context.Context, path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("take-over socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("take-over socket: %w", err)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("take-over socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("take-over socket: %w", err), l.Close())
	}
	return l.(*net.UnixListener), nil
}

// Peer is who is at the other end of a connection, as the kernel says.
func Peer(conn *net.UnixConn) (pid int, uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		return 0, 0, cerr
	}
	if err != nil {
		return 0, 0, err
	}
	return int(cred.Pid), cred.Uid, nil
}

// Conn is one side of the conversation.
type Conn struct{ unix *net.UnixConn }

// Close ends the conversation.
func (c *Conn) Close() error { return c.unix.Close() }

// Greet reads the hello of who has connected, which has a few seconds for it.
func Greet(conn *net.UnixConn) (*Conn, Hello, error) {
	c := &Conn{unix: conn}
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, Hello{}, err
	}
	m, files, err := c.receive()
	closeFiles(files)
	if err == nil && m.Hello == nil {
		err = ErrMessage
	}
	if err != nil {
		return nil, Hello{}, fmt.Errorf("hello: %w", err)
	}
	return c, *m.Hello, conn.SetReadDeadline(time.Time{})
}

// Refuse tells the other side why nothing is handed over.
func (c *Conn) Refuse(why error) error { return c.send(message{Refusal: why.Error()}, nil) }

// Release hands the sockets over.
func (c *Conn) Release(sockets []netns.Handover, r Released) error {
	var m message
	var raws []rawSocket
	flush := func() error {
		if len(m.Sockets) == 0 {
			return nil
		}
		err := c.send(m, raws)
		m, raws = message{}, nil
		return err
	}
	for _, h := range sockets {
		own, err := rawSockets(h)
		if err != nil {
			return err
		}
		if len(raws)+len(own) > maxDescriptors {
			if err := flush(); err != nil {
				return err
			}
		}
		raws = append(raws, own...)
		m.Sockets = append(m.Sockets, socket{
			Device: h.Namespace.Device, Inode: h.Namespace.Inode, Workload: h.Workload,
			Cgroup: h.Cgroup, Interfaces: h.Interfaces, Count: len(own),
		})
	}
	if err := flush(); err != nil {
		return err
	}
	return c.send(message{Released: &r}, nil)
}

// WaitReady returns nil when the successor is ready, and an error when it won't be.
func (c *Conn) WaitReady(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.unix.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	m, files, err := c.receive()
	closeFiles(files)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case m.Refusal != "":
		return fmt.Errorf("the other daemon gave up: %s", m.Refusal)
	case !m.Ready:
		return ErrMessage
	}
	return nil
}

// TakeOver asks the daemon behind the socket for its place. It returns [ErrNobody] when none
// answers. On success the sockets are the caller's, and the conversation has to go
// on with Ready, or be closed.
func TakeOver(ctx context.Context, path string, hello Hello) (_ *Conn, _ []netns.Handover, _ Released, err error) {
	hello.Protocol = Protocol
	var dialer net.Dialer
	dialled, err := dialer.DialContext(ctx, "unixpacket", path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, nil, Released{}, ErrNobody
	}
	if err != nil {
		return nil, nil, Released{}, fmt.Errorf("take over from the daemon at %s: %w", path, err)
	}
	c := &Conn{unix: dialled.(*net.UnixConn)}
	stop := context.AfterFunc(ctx, func() { _ = c.unix.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var sockets []netns.Handover
	defer func() {
		if err != nil {
			for _, h := range sockets {
				h.Close()
			}
			err = errors.Join(fmt.Errorf("take over from the daemon at %s: %w", path, err), c.Close())
		}
	}()
	if err := c.send(message{Hello: &hello}, nil); err != nil {
		return nil, nil, Released{}, err
	}
	for len(sockets) < maxSockets {
		m, files, err := c.receive()
		if err != nil {
			return nil, nil, Released{}, err
		}
		got, err := open(m.Sockets, files)
		sockets = append(sockets, got...)
		switch {
		case err != nil:
			return nil, nil, Released{}, err
		case m.Refusal != "":
			return nil, nil, Released{}, fmt.Errorf("%w: %s", ErrRefused, m.Refusal)
		case m.Released != nil:
			return c, sockets, *m.Released, nil
		case len(m.Sockets) == 0:
			return nil, nil, Released{}, ErrMessage
		}
	}
	return nil, nil, Released{}, fmt.Errorf("%w: more than %d sockets", ErrMessage, maxSockets)
}

// Ready tells the other daemon that this one serves from now on. That it is gone already
// is no error.
func (c *Conn) Ready() error {
	err := c.send(message{Ready: true}, nil)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.ENOTCONN) {
		return nil
	}
	return err
}

// WaitEnd waits until the other daemon has ended, or ctx is done, and tells which.
func (c *Conn) WaitEnd(ctx context.Context) (ended bool) {
	stop := context.AfterFunc(ctx, func() { _ = c.unix.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		_, files, err := c.receive()
		closeFiles(files)
		if err != nil {
			return ctx.Err() == nil
		}
	}
}

func (c *Conn) send(m message, sockets []rawSocket) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(body) > maxMessage {
		return fmt.Errorf("%w: %d bytes are to be sent, the limit is %d", ErrMessage, len(body), maxMessage)
	}
	return sendRaw(c.unix, body, sockets)
}

func sendRaw(conn *net.UnixConn, body []byte, sockets []rawSocket) error {
	return withDescriptors(sockets, nil, func(fds []int) error {
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		_, _, err := conn.WriteMsgUnix(body, rights, nil)
		return err
	})
}

func (c *Conn) receive() (message, []*os.File, error) {
	body := make([]byte, maxMessage+1)
	rights := make([]byte, unix.CmsgSpace(4*(maxDescriptors+1)))
	n, control, flags, _, err := c.unix.ReadMsgUnix(body, rights)
	if err != nil {
		return message{}, nil, err
	}
	files, err := descriptors(rights[:control])
	var m message
	switch {
	case err != nil:
	case n == 0:
		err = fmt.Errorf("the other daemon has ended the conversation: %w", net.ErrClosed)
	case n > maxMessage || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = fmt.Errorf("%w: it is too long", ErrMessage)
	default:
		if jerr := json.Unmarshal(body[:n], &m); jerr != nil {
			err = fmt.Errorf("%w: %w", ErrMessage, jerr)
		}
	}
	if err != nil {
		closeFiles(files)
		return message{}, nil, err
	}
	return m, files, nil
}

package bypass

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Sockets that were made elsewhere, and that are given away.

func socketRows() []row {
	const outside = "the socket belongs to a cgroup outside the ancestor, by the help of a process there: " +
		"chaperone run closes inherited sockets; a helper outside could as well relay"
	both := func(r row) []row {
		in, out := r, r
		in.from = fromStranger
		out.from, out.open, out.closers = fromOutside, outside, []string{withNodeBelt}
		out.name += ", outside the ancestor"
		out.hope += "; made outside the ancestor"
		return []row{in, out}
	}
	var all []row
	for _, r := range []row{
		{threat: 8, name: "TCP socket from before", hope: "made before joining the planner's cgroup", do: before(unix.SOCK_STREAM, v4), want: "diverted"},
		{threat: 8, name: "TCP socket from before, IPv6", hope: "the same by IPv6", do: before(unix.SOCK_STREAM, v6), want: "diverted"},
		{threat: 8, name: "UDP socket from before", hope: "made before joining the planner's cgroup", do: before(unix.SOCK_DGRAM, v4), want: "refused"},
		{threat: 8, name: "socket over SCM_RIGHTS", hope: "an accomplice makes it and sends it", do: received, want: "diverted"},
		{threat: 8, name: "socket by pidfd_getfd", hope: "taken out of an accomplice's table", do: taken, want: "diverted"},
	} {
		all = append(all, both(r)...)
	}
	return append(all,
		row{threat: 8, name: "connection from before", hope: "connected before joining; a stranger's", from: fromStranger, do: connectedBefore, want: "refused"},
		row{threat: 8, name: "connection from before, outside the ancestor", hope: "connected before joining, where it was allowed", from: fromOutside, do: connectedBefore, want: "refused", open: outside, closers: []string{withNodeBelt}},
		row{threat: 8, name: "socket given away", hope: "made here, connected by an accomplice who is no planner", from: fromOutside, do: givenAway, want: "refused"},
	)
}

// before makes a socket, joins the job and uses it there.
func before(kind int, to func(aim) netip.Addr) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(family(to(a)), kind, 0)
		if err != nil {
			return answer{}, err
		}
		if err := join(a.Job); err != nil {
			return answer{}, err
		}
		if kind == unix.SOCK_DGRAM {
			return answer{}, step("sendto", unix.Sendto(fd, payload, 0, sockaddr(to(a), a.Port)))
		}
		return connect(fd, to(a), a.Port)
	}
}

func connectedBefore(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if err := unix.Connect(fd, sockaddr(a.V4, a.Port)); err != nil {
		return answer{}, step("connect", err)
	}
	if err := join(a.Job); err != nil {
		return answer{}, err
	}
	if _, err := unix.Write(fd, payload); err != nil {
		return answer{}, step("write", err)
	}
	return hear(fd, answer{})
}

// An accomplice is a process that stays in the cgroup in which the attack began. It
// shares a Unix socket with it, as descriptor 3.

func accomplices() map[string]func(aim) error {
	return map[string]func(aim) error{"giver": giver, "holder": holder, "taker": taker}
}

const shared = 3

// accomplice starts one. It ends when the socket is closed.
func accomplice(role string, a aim) (fd int, cmd *exec.Cmd, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, step("socketpair", err)
	}
	arg, err := json.Marshal(a)
	if err != nil {
		return 0, nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "accomplice")
	defer theirs.Close()
	cmd = exec.Command("/proc/self/exe", "planner", role, string(arg))
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	return pair[0], cmd, nil
}

func giver(a aim) error {
	fd, err := open(a.V4)
	if err != nil {
		return err
	}
	return errors.Join(sendFD(shared, fd), untilClosed(shared))
}

func holder(a aim) error {
	fd, err := open(a.V4)
	if err != nil {
		return err
	}
	_, err = unix.Write(shared, []byte{byte(fd)})
	return errors.Join(err, untilClosed(shared))
}

// taker connects the socket that it is sent, and sends the answer.
func taker(a aim) error {
	fd, err := recvFD(shared)
	if err != nil {
		return err
	}
	got, err := connect(fd, a.V4, a.Port)
	if errno := unix.Errno(0); errors.As(err, &errno) {
		got.Step, got.Errno = err.Error(), unix.ErrnoName(errno)
	} else if err != nil {
		return err
	}
	return json.NewEncoder(os.NewFile(shared, "shared")).Encode(got)
}

func untilClosed(fd int) error {
	_, err := unix.Read(fd, make([]byte, 1))
	return err
}

func sendFD(over, fd int) error {
	return step("sendmsg", unix.Sendmsg(over, []byte{0}, unix.UnixRights(fd), nil, 0))
}

func recvFD(over int) (int, error) {
	b, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(over, b, control, 0)
	if err != nil {
		return 0, step("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) == 0 {
		return 0, fmt.Errorf("no descriptor came: %v", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return 0, fmt.Errorf("no descriptor came: %v", err)
	}
	return fds[0], nil
}

func received(a aim) (answer, error) {
	over, cmd, err := accomplice("giver", a)
	if err != nil {
		return answer{}, err
	}
	defer cmd.Wait()
	defer unix.Close(over)
	if err := join(a.Job); err != nil {
		return answer{}, err
	}
	fd, err := recvFD(over)
	if err != nil {
		return answer{}, err
	}
	return connect(fd, a.V4, a.Port)
}

func taken(a aim) (answer, error) {
	over, cmd, err := accomplice("holder", a)
	if err != nil {
		return answer{}, err
	}
	defer cmd.Wait()
	defer unix.Close(over)
	if err := join(a.Job); err != nil {
		return answer{}, err
	}
	theirs := make([]byte, 1)
	if _, err := unix.Read(over, theirs); err != nil {
		return answer{}, step("read", err)
	}
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		return answer{}, step("pidfd_open", err)
	}
	fd, err := unix.PidfdGetfd(pidfd, int(theirs[0]), 0)
	if err != nil {
		return answer{}, step("pidfd_getfd", err)
	}
	return connect(fd, a.V4, a.Port)
}

func givenAway(a aim) (answer, error) {
	over, cmd, err := accomplice("taker", a)
	if err != nil {
		return answer{}, err
	}
	defer cmd.Wait()
	defer unix.Close(over)
	if err := join(a.Job); err != nil {
		return answer{}, err
	}
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if err := sendFD(over, fd); err != nil {
		return answer{}, err
	}
	var got answer
	f := os.NewFile(uintptr(over), "accomplice")
	defer f.Close()
	return got, json.NewDecoder(f).Decode(&got)
}

// Databases on the node that are spoken to by other than the internet's sockets.

func localRows() []row {
	const otherName = "a Unix socket by another name than PostgreSQL's: file permissions, or a mount namespace"
	return []row{
		{threat: 7, name: "Unix socket", hope: "the database on the node, by its socket file", do: dialUnix(func(a aim) string { return a.Unix }), want: "refused"},
		{threat: 7, name: "Unix socket, abstract", hope: "the same by an abstract name", do: dialUnix(func(a aim) string { return a.Abstract }), want: "refused"},
		{threat: 7, name: "Unix socket by a link", hope: "the same by the name of a symbolic link", do: linkedUnix(os.Symlink), want: "refused", open: otherName, closers: []string{"unix_connect"}},
		{threat: 7, name: "Unix socket by a hard link", hope: "the same by another name of the file", do: linkedUnix(os.Link), want: "refused", open: otherName, closers: []string{"unix_connect"}},
		{threat: 7, name: "AF_VSOCK", hope: "a proxy on the host of virtual machines; here loopback", do: vsock, want: "refused", open: "a planner may have AF_VSOCK sockets: a seccomp filter", closers: []string{"create_socket"}},
	}
}

func dialUnix(at func(aim) string) attack {
	return func(a aim) (answer, error) {
		conn, err := net.Dial("unix", at(a))
		if err != nil {
			return answer{}, err
		}
		defer conn.Close()
		b := make([]byte, 64)
		n, err := conn.Read(b)
		return answer{Said: string(b[:n])}, err
	}
}

// linkedUnix gives the socket's file another name first.
func linkedUnix(link func(old, new string) error) attack {
	return func(a aim) (answer, error) {
		name := filepath.Join(filepath.Dir(a.Unix), "harmless")
		if err := link(a.Unix, name); err != nil {
			return answer{}, err
		}
		defer os.Remove(name)
		return dialUnix(func(aim) string { return name })(a)
	}
}

func vsock(a aim) (answer, error) {
	fd, err := socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return answer{}, err
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: a.Vsock}); err != nil {
		return answer{}, step("connect", err)
	}
	return hear(fd, answer{})
}

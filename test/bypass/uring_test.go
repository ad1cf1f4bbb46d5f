package bypass

import (
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// io_uring does in the kernel's threads what system calls do, so no filter of
// system calls sees it.

func uringRows() []row {
	return []row{
		{threat: 5, name: "io_uring connect", hope: "IORING_OP_CONNECT, in a kernel thread", do: uringConnect, want: "diverted"},
		{threat: 5, name: "io_uring socket, connect and send", hope: "no system call of a socket at all", do: uringAll, want: "diverted"},
		{threat: 5, name: "io_uring sendmsg", hope: "IORING_OP_SENDMSG, a datagram", do: uringSendmsg, want: "refused"},
		{threat: 5, name: "io_uring sendmsg, Fast Open", hope: "IORING_OP_SENDMSG with MSG_FASTOPEN", do: uringFastOpen, want: "diverted"},
		{threat: 5, name: "io_uring raw socket", hope: "IORING_OP_SOCKET, of a kind that is refused", do: uringRaw, want: "refused"},
	}
}

// The parts of the interface (linux/io_uring.h) that are used.
const (
	opSendmsg, opConnect, opSend, opSocket = 9, 16, 26, 45
	async                                  = 1 << 4 // IOSQE_ASYNC: in a kernel thread at once
	enterGetEvents                         = 1
)

type uringParams struct {
	SQEntries, CQEntries, Flags, SQThreadCPU, SQThreadIdle, Features, WQ uint32
	_                                                                    [3]uint32
	SQ                                                                   struct {
		Head, Tail, Mask, Entries, Flags, Dropped, Array, _ uint32
		_                                                   uint64
	}
	CQ struct {
		Head, Tail, Mask, Entries, Overflow, CQEs, Flags, _ uint32
		_                                                   uint64
	}
}

type uringSQE struct {
	Op, Flags uint8
	Prio      uint16
	FD        int32
	Off, Addr uint64
	Len       uint32
	OpFlags   uint32
	User      uint64
	_         [3]uint64
}

type uringCQE struct {
	User  uint64
	Res   int32
	Flags uint32
}

type uring struct {
	fd     int
	params uringParams
	sq, cq []byte
	sqes   []byte
	kept   []any // what the kernel has pointers to
}

func newUring() (*uring, error) {
	u := &uring{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&u.params)), 0)
	if errno != 0 {
		return nil, step("io_uring_setup", errno)
	}
	u.fd = int(fd)
	p := &u.params
	var errs [3]error
	const both = unix.PROT_READ | unix.PROT_WRITE
	u.sq, errs[0] = unix.Mmap(u.fd, 0, int(p.SQ.Array+p.SQEntries*4), both, unix.MAP_SHARED)
	u.cq, errs[1] = unix.Mmap(u.fd, 0x8000000, int(p.CQ.CQEs)+int(p.CQEntries)*int(unsafe.Sizeof(uringCQE{})), both, unix.MAP_SHARED)
	u.sqes, errs[2] = unix.Mmap(u.fd, 0x10000000, int(p.SQEntries)*int(unsafe.Sizeof(uringSQE{})), both, unix.MAP_SHARED)
	return u, step("mmap", errors.Join(errs[:]...))
}

// do submits one request and waits for its result.
func (u *uring) do(sqe uringSQE) (int, error) {
	word := func(b []byte, at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&b[at])) }
	tail := word(u.sq, u.params.SQ.Tail)
	index := *tail & (u.params.SQEntries - 1)
	*(*uringSQE)(unsafe.Pointer(&u.sqes[int(index)*int(unsafe.Sizeof(sqe))])) = sqe
	*word(u.sq, u.params.SQ.Array+index*4) = index
	*tail++
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), 1, 1, enterGetEvents, 0, 0); errno != 0 {
		return 0, step("io_uring_enter", errno)
	}
	head := word(u.cq, u.params.CQ.Head)
	at := u.params.CQ.CQEs + *head&(u.params.CQEntries-1)*uint32(unsafe.Sizeof(uringCQE{}))
	res := (*uringCQE)(unsafe.Pointer(&u.cq[at])).Res
	*head++
	if res < 0 {
		return 0, unix.Errno(-res)
	}
	return int(res), nil
}

func (u *uring) connect(fd int, a aim) error {
	_, err := u.do(uringSQE{Op: opConnect, Flags: async, FD: int32(fd), Addr: keep(u, rawSockaddr(a.V4, a.Port)), Off: unix.SizeofSockaddrInet4})
	return step("connect", err)
}

// keep copies v to where it stays, and returns its address.
func keep[T any](u *uring, v T) uint64 {
	p := new(T)
	*p = v
	u.kept = append(u.kept, p)
	return uint64(uintptr(unsafe.Pointer(p)))
}

func uringConnect(a aim) (answer, error) {
	u, err := newUring()
	if err != nil {
		return answer{}, err
	}
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if err := u.connect(fd, a); err != nil {
		return answer{}, err
	}
	return hear(fd, answer{Asked: netip.AddrPortFrom(a.V4, a.Port).String()})
}

func uringAll(a aim) (answer, error) {
	u, err := newUring()
	if err != nil {
		return answer{}, err
	}
	fd, err := u.do(uringSQE{Op: opSocket, Flags: async, FD: unix.AF_INET, Off: unix.SOCK_STREAM})
	if err != nil {
		return answer{}, step("socket", err)
	}
	if err := u.connect(fd, a); err != nil {
		return answer{}, err
	}
	if _, err := u.do(uringSQE{Op: opSend, Flags: async, FD: int32(fd), Addr: keep(u, byte('x')), Len: 1}); err != nil {
		return answer{}, step("send", err)
	}
	return hear(fd, answer{Asked: netip.AddrPortFrom(a.V4, a.Port).String()})
}

func uringSendmsg(a aim) (answer, error) {
	_, err := uringSend(a, unix.SOCK_DGRAM, 0)
	return answer{}, err
}

func uringFastOpen(a aim) (answer, error) {
	fd, err := uringSend(a, unix.SOCK_STREAM, unix.MSG_FASTOPEN)
	if errors.Is(err, unix.EINPROGRESS) { // a kernel thread doesn't wait
		err = writable(fd)
	}
	if err != nil {
		return answer{}, err
	}
	return hear(fd, answer{Asked: netip.AddrPortFrom(a.V4, a.Port).String()})
}

func uringSend(a aim, kind, flags int) (fd int, err error) {
	u, err := newUring()
	if err != nil {
		return 0, err
	}
	if fd, err = socket(unix.AF_INET, kind, 0); err != nil {
		return 0, err
	}
	to, vector := new(unix.RawSockaddrInet4), &unix.Iovec{Base: &payload[0], Len: 1}
	*to = rawSockaddr(a.V4, a.Port)
	m := unix.Msghdr{Name: (*byte)(unsafe.Pointer(to)), Namelen: unix.SizeofSockaddrInet4, Iov: vector, Iovlen: 1}
	_, err = u.do(uringSQE{Op: opSendmsg, Flags: async, FD: int32(fd), Addr: keep(u, m), Len: 1, OpFlags: uint32(flags)})
	return fd, step("sendmsg", err)
}

func uringRaw(a aim) (answer, error) {
	u, err := newUring()
	if err != nil {
		return answer{}, err
	}
	fd, err := u.do(uringSQE{Op: opSocket, Flags: async, FD: unix.AF_INET, Off: unix.SOCK_RAW, Len: unix.IPPROTO_RAW})
	if err != nil {
		return answer{}, step("socket", err)
	}
	return answer{}, sendRaw(fd, a.V4, udp4(node4, a.V4, a.Port))
}

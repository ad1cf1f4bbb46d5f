package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (seccomp(2)), of which the lower half of the first
// argument comes first on all machines that this is built for.
const (
	offsetNumber   = 0
	offsetArch     = 4
	offsetArgument = 16
)

// x32 marks the numbers of the x32 ABI, which has the arch of x86-64.
const x32 = 0x40000000

// families are those of the sockets that a planner may have: internet sockets are the
// kernel programs' affair. Packet and XDP sockets make frames past them, VSOCK and
// others reach elsewhere without any.
func families() []uint32 {
	return []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}
}

// refused are system calls that no planner needs. io_uring makes sockets by itself. A
// user's keyring may hold the login of a person who approves ("chaperone login"), and is
// open to every process of that user.
func refused() []uint32 {
	return []uint32{unix.SYS_IO_URING_SETUP, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY}
}

// architecture is what seccomp calls the machine's own system calls.
func architecture() (uint32, error) {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, nil
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, nil
	}
	return 0, fmt.Errorf("no system call filter is known for %s", runtime.GOARCH)
}

// filter is the program that each system call of the planner is decided by. System calls
// of another architecture have other numbers, and are refused.
func filter(arch uint32) []bpf.Instruction {
	refuse := func(errno uint32) bpf.Instruction { return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | errno} }
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		refuse(uint32(unix.ENOSYS)),
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32, SkipTrue: 1},
		refuse(uint32(unix.ENOSYS)),
	}
	for _, number := range refused() {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: 1}, refuse(uint32(unix.EPERM)))
	}
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_SOCKET, SkipTrue: 1},
		allow,
		bpf.LoadAbsolute{Off: offsetArgument, Size: 4},
	)
	for _, family := range families() {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: family, SkipTrue: 1}, allow)
	}
	return append(program, refuse(uint32(unix.EAFNOSUPPORT)))
}

// restrict filters the system calls of the calling thread and of what it executes, for
// good. No program that it executes gains a privilege, setuid ones neither: with one it
// could leave.
func restrict() error {
	arch, err := architecture()
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(filter(arch))
	if err != nil {
		return fmt.Errorf("system call filter: %w", err)
	}
	instructions := make([]unix.SockFilter, len(raw))
	for n, r := range raw {
		instructions[n] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("filtering system calls: %w", errno)
	}
	return nil
}

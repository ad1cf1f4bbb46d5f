package intercept

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawConnect is connect(2) with an address that package unix has no type for.
func rawConnect(fd int, address []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address[0])), uintptr(len(address)))
	if errno != 0 {
		return errno
	}
	return nil
}

package tokenfile

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onOwnThread runs f on a thread that nobody else uses, and that ends with it: f may
// change what the thread may do.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread never ends, and is what others see of the process. While
			// it is held here, it is not the one that f gets.
			onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		f() // and the thread stays locked, so that it ends
	}()
	<-done
}

// become has the file accesses of this thread alone judged as the user's
// (setfsuid(2)). For anyone but root the kernel also takes away the capabilities that
// let root read everything (capabilities(7)).
func become(u User) error {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("reading as its user: %w", err)
	}
	var groups unsafe.Pointer
	if len(u.Groups) > 0 {
		groups = unsafe.Pointer(&u.Groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(u.Groups)), uintptr(groups), 0); errno != 0 {
		return fmt.Errorf("taking the groups of uid %d to read as it does: %w", u.UID, errno)
	}
	// Neither call says whether it worked; asking for an id that nobody has tells what it is.
	unix.SetfsgidRetGid(int(u.GID))
	unix.SetfsuidRetUid(int(u.UID))
	gid, _ := unix.SetfsgidRetGid(-1)
	uid, _ := unix.SetfsuidRetUid(-1)
	if uint32(gid) != u.GID || uint32(uid) != u.UID {
		return fmt.Errorf("can't read as uid %d, gid %d does: the daemon needs CAP_SETUID and CAP_SETGID", u.UID, u.GID)
	}
	// The kernel sets this anew for the whole process, to what sysctl fs.suid_dumpable says.
	if dumpable != 1 {
		dumpable = 0
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(dumpable), 0, 0, 0); err != nil {
		return fmt.Errorf("reading as its user: %w", err)
	}
	return nil
}

package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/procfs"
)

// HideEnforcement takes from this process and its children what the kernel's
// enforcement could be reached by through files: the pinned programs, and other cgroups
// than the job's, to move to. A root user needs no capability for either. It makes
// namespaces of this thread's own, and so takes privilege: without it the file modes do.
// The process must be in the job's cgroup already.
func HideEnforcement() error {
	if !effective(unix.CAP_SYS_ADMIN) {
		return nil
	}
	if err := privateMounts(); err != nil {
		return err
	}
	own, err := ownCgroup()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("a cgroup namespace: %w", err)
	}
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return fmt.Errorf("hiding what enforces: %w", err)
	}
	defer f.Close()
	mounts, err := procfs.Mounts(f)
	if err != nil {
		return fmt.Errorf("hiding what enforces: %w", err)
	}
	for _, m := range mounts {
		at := m.Point
		var err error
		switch m.Kind {
		case "bpf":
			err = unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "mode=0700,size=4k")
		case "cgroup2":
			err = showOnly(filepath.Join(at, own), at)
			if errors.Is(err, unix.ENOENT) { // a mount of another part of the hierarchy
				err = showOnly(at, at)
			}
		case "cgroup":
			err = showOnly(at, at)
		}
		// One that is covered by another can't be reached by a path either.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("hiding what enforces: %s: %w", at, err)
		}
	}
	return nil
}

// showOnly shows a folder of a mount in the mount's place, and read-only. That alone
// would not keep clone3(2) from starting a process in a cgroup that is seen there, so no
// other than the job's own is.
func showOnly(folder, at string) error {
	if folder != at {
		if err := unix.Mount(folder, at, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
}

// ownCgroup is this thread's cgroup of version 2, below the root of the hierarchy.
func ownCgroup() (string, error) {
	text, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		return "", fmt.Errorf("the job's cgroup: %w", err)
	}
	path, ok := procfs.Cgroup(text)
	if !ok {
		return "", errors.New("the job has no cgroup of version 2")
	}
	return path, nil
}

// privateMounts gives this thread, which must be the one that executes the command, a
// mount namespace. Mounts of the machine go on to arrive there; ours never leave. To
// call it again makes another one, which does no harm.
func privateMounts() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("a mount namespace: %w", err)
	}
	return nil
}

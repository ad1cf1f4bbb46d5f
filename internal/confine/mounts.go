package confine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// HideEnforcement takes from this process and its children what the kernel's
// enforcement could be reached by through files: the pinned programs, and other cgroups
// to move to. A root user needs no capability for either. It makes a mount namespace of
// this thread's own, and so takes privilege: without it the file modes do.
func HideEnforcement() error {
	if !effective(unix.CAP_SYS_ADMIN) {
		return nil
	}
	if err := privateMounts(); err != nil {
		return err
	}
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return fmt.Errorf("hiding what enforces: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// "36 35 98:0 /root /mount opts [optional…] - type source superopts"
		before, after, found := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !found || len(fields) < 6 {
			continue
		}
		at, kind := unescape(fields[4]), strings.Fields(after)[0]
		switch kind {
		case "bpf":
			err = unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "mode=0700,size=4k")
		case "cgroup", "cgroup2":
			err = unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		}
		// One that is covered by another can't be reached by a path either.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("hiding what enforces: %s: %w", at, err)
		}
	}
	return lines.Err()
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

// unescape undoes the kernel's octal escapes (proc_pid_mountinfo(5)).
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

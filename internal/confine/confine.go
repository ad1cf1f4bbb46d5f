// Package confine takes from a process what a planner must not have before
// the process becomes one: sockets from outside of the job, capabilities
// that reach around the kernel's hooks, and sockets of families that no hook sees. It is used by "chaperone run" on its
// own process, between the opening of a job and exec.
package confine

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// dropped are the capabilities that a planner is never run with: each one
// lets it make packets or change the kernel's state behind the hooks
// (capabilities(7)).
func dropped() []uintptr {
	return []uintptr{
		unix.CAP_BPF,
		unix.CAP_NET_ADMIN,
		unix.CAP_NET_RAW,
		unix.CAP_PERFMON,
		unix.CAP_SYS_ADMIN,
		unix.CAP_SYS_BOOT,
		unix.CAP_SYS_MODULE,
		unix.CAP_SYS_PTRACE,
		unix.CAP_SYS_RAWIO,
	}
}

// Identity is the user that a command runs as.
type Identity struct {
	uid, gid   int
	groups     []int
	name, home string
}

// Environment holds the variables that say who one is, as su(1) sets them. A
// nil identity has none.
func (i *Identity) Environment() map[string]string {
	if i == nil {
		return nil
	}
	return map[string]string{"HOME": i.home, "USER": i.name, "LOGNAME": i.name}
}

// LookUp finds a user by name or number, with all of its groups.
func LookUp(name string) (*Identity, error) {
	found, err := user.Lookup(name)
	if err != nil {
		if found, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("user %q is not known here", name)
		}
	}
	identity := Identity{name: found.Username, home: found.HomeDir}
	if identity.uid, err = strconv.Atoi(found.Uid); err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	if identity.gid, err = strconv.Atoi(found.Gid); err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	groups, err := found.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("user %q: its groups: %w", name, err)
	}
	for _, group := range groups {
		gid, err := strconv.Atoi(group)
		if err != nil {
			return nil, fmt.Errorf("user %q: group %q: %w", name, group, err)
		}
		identity.groups = append(identity.groups, gid)
	}
	return &identity, nil
}

// Drop gives up what a planner must not have, and becomes the user if one is
// given. It can't be undone, by this process or by what it executes: the
// bounding set is emptied of it too, no program gains privileges, and a filter
// refuses sockets other than internet, unix and netlink ones. The caller must
// execute the command next, from the same goroutine.
func Drop(identity *Identity) error {
	// Capabilities are a thread's. This thread is the one that will execute
	// the command, which then has no other.
	runtime.LockOSThread()
	for _, capability := range dropped() {
		if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, capability, 0, 0, 0); err != nil || set == 0 {
			continue // the kernel doesn't know it, or it is gone already
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
			if errors.Is(err, unix.EPERM) && !effective(unix.CAP_SETPCAP) {
				break // no privilege to give up, and none to gain it from but setuid programs
			}
			return fmt.Errorf("dropping capability %d: %w", capability, err)
		}
	}
	if identity != nil {
		if err := identity.become(); err != nil {
			return err
		}
	}
	if err := keepOut(); err != nil {
		return err
	}
	return restrict()
}

// become changes the user of all threads.
func (i *Identity) become() error {
	if err := syscall.Setgroups(i.groups); err != nil {
		return fmt.Errorf("taking the user's groups: %w", err)
	}
	if err := syscall.Setresgid(i.gid, i.gid, i.gid); err != nil {
		return fmt.Errorf("taking the user's group: %w", err)
	}
	if err := syscall.Setresuid(i.uid, i.uid, i.uid); err != nil {
		return fmt.Errorf("becoming the user: %w", err)
	}
	return nil
}

// keepOut clears the dropped capabilities from this thread's sets, so that
// exec can't pass them on.
func keepOut() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	for _, capability := range dropped() {
		mask := ^uint32(1 << (capability % 32))
		set := &sets[capability/32]
		set.Effective &= mask
		set.Permitted &= mask
		set.Inheritable &= mask
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("giving up capabilities: %w", err)
	}
	return nil
}

func effective(capability uintptr) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if unix.Capget(&header, &sets[0]) != nil {
		return false
	}
	return sets[capability/32].Effective&(1<<(capability%32)) != 0
}

// CloseInheritedSockets marks every inherited socket to be closed by exec,
// and refuses to go on with an internet socket as standard input, output or
// error: a socket keeps the cgroup it was made in, so what goes over it would
// pass the hooks unseen.
func CloseInheritedSockets() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("looking for inherited sockets: %w", err)
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		link, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err != nil || !strings.HasPrefix(link, "socket:") {
			continue // closed meanwhile, or no socket
		}
		if fd > 2 {
			unix.CloseOnExec(fd)
			continue
		}
		family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return fmt.Errorf("file descriptor %d is a socket of unknown kind: %w", fd, err)
		}
		if family != unix.AF_UNIX {
			return fmt.Errorf("file descriptor %d is a network socket from outside of the job; run the command with a pipe or a file there", fd)
		}
	}
	return nil
}

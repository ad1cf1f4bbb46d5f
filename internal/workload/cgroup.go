package workload

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/procfs"
)

// eventsFile tells whether a cgroup or anything below it has a process. The
// kernel marks it modified at every change
// (https://docs.kernel.org/admin-guide/cgroup-v2.html, "cgroup.events").
const eventsFile = "cgroup.events"

// cgroupID is the id that the kernel's programs see: the folder's inode.
func cgroupID(path string) (uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// populated tells whether the cgroup or one below it has a live process.
func populated(path string) (bool, error) {
	f, err := os.Open(filepath.Join(path, eventsFile))
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "populated "); ok {
			return value == "1", nil
		}
	}
	if err := lines.Err(); err != nil {
		// The cgroup was removed between open and read.
		if errors.Is(err, unix.ENODEV) {
			return false, fs.ErrNotExist
		}
		return false, err
	}
	return false, fmt.Errorf("%s says nothing of populated", f.Name())
}

// removeCgroup removes an empty cgroup and those below it.
func removeCgroup(path string) error {
	var folders []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			folders = append(folders, p)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for i := len(folders) - 1; i >= 0; i-- {
		if rerr := os.Remove(folders[i]); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// process is a live process that is held by a pidfd, so that its pid can't
// come to mean another one unnoticed.
type process struct {
	pid int
	fd  int
}

// openProcess holds the process, which must be the user's: the pid is what
// the kernel said of the other end of a socket, and that end may have passed
// the socket on and died.
func openProcess(pid int, uid uint32) (*process, error) {
	if pid <= 0 {
		return nil, errors.New("the asking process can't be seen from here; it lives in another pid namespace")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &process{pid: pid, fd: fd}
	info, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != uid {
		p.Close()
		return nil, fmt.Errorf("process %d belongs to uid %d, but uid %d asked", pid, owner, uid)
	}
	return p, nil
}

// moveTo puts the process with all of its threads into the cgroup.
func (p *process) moveTo(cgroup string) error {
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(p.pid)), 0); err != nil {
		return fmt.Errorf("moving process %d: %w", p.pid, err)
	}
	// Signal 0 fails when the process that was checked is not the one that
	// the pid named when it was moved.
	if err := unix.PidfdSendSignal(p.fd, 0, nil, 0); err != nil {
		return fmt.Errorf("process %d went away: %w", p.pid, err)
	}
	return nil
}

func (p *process) Close() { unix.Close(p.fd) }

// sanitise makes part of a folder's and a role's name of a job's.
func sanitise(name string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name)
	if len(clean) > 32 {
		clean = clean[:32]
	}
	return clean
}

// Inside tells whether the process lives in the cgroup or below it.
func Inside(pid int, cgroup string) (bool, error) {
	mount, err := mountOf(cgroup)
	if err != nil {
		return false, err
	}
	body, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false, fmt.Errorf("the cgroup of process %d: %w", pid, err)
	}
	path, ok := procfs.Cgroup(body)
	if !ok {
		return false, fmt.Errorf("process %d has no cgroup of version 2", pid)
	}
	path = filepath.Join(mount, path)
	return path == cgroup || strings.HasPrefix(path, cgroup+"/"), nil
}

// mountOf returns the folder on which the cgroup's file system is mounted.
func mountOf(cgroup string) (string, error) {
	device := func(path string) (uint64, error) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		return info.Sys().(*syscall.Stat_t).Dev, nil
	}
	wanted, err := device(cgroup)
	if err != nil {
		return "", err
	}
	for path := cgroup; path != "/"; path = filepath.Dir(path) {
		parent, err := device(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		if parent != wanted {
			return path, nil
		}
	}
	return "/", nil
}

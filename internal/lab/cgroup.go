package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup is a fresh cgroup of the v2 hierarchy.
type Cgroup struct {
	// Path is its folder, below the cgroup2 mount.
	Path string
}

// slice is what the names of systemd's slices end in.
const slice = ".slice"

// NewCgroup makes a cgroup with a unique name that starts with name, directly
// below the cgroup2 mount. One whose name ends in ".slice" still does. Root is needed.
func NewCgroup(name string) (*Cgroup, error) {
	mount, err := CgroupMount()
	if err != nil {
		return nil, err
	}
	if name == "" || strings.ContainsAny(name, "/\n") {
		return nil, fmt.Errorf("cgroup: %q is no name", name)
	}
	name, isSlice := strings.CutSuffix(name, slice)
	path := filepath.Join(mount, name+"-"+strconv.Itoa(os.Getpid())+"-"+rand.Text()[:8])
	if isSlice {
		path += slice
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return &Cgroup{Path: path}, nil
}

// NewNamedCgroup makes a cgroup of exactly that name, directly below the cgroup2 mount. One
// that is there already is an error that wraps [fs.ErrExist].
func NewNamedCgroup(name string) (*Cgroup, error) {
	mount, err := CgroupMount()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(mount, name)
	if filepath.Dir(path) != filepath.Clean(mount) {
		return nil, fmt.Errorf("cgroup: %q is no name", name)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return &Cgroup{Path: path}, nil
}

// CgroupMount finds where the cgroup v2 hierarchy is mounted: /sys/fs/cgroup,
// or /sys/fs/cgroup/unified on hybrid machines, or anywhere else.
func CgroupMount() (string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cgroup2 mount: %w", err)
	}
	for line := range strings.Lines(string(info)) {
		// proc_pid_mountinfo(5): id, parent, device, root, mount point, …
		// "-", file system type, …
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if ok && len(fields) >= 5 && strings.HasPrefix(after, "cgroup2 ") {
			return strings.ReplaceAll(fields[4], `\040`, " "), nil
		}
	}
	return "", errors.New("no cgroup2 file system is mounted")
}

// Add moves a process into the cgroup.
func (c *Cgroup) Add(pid int) error { return move(c.Path, pid) }

// Remove kills what runs in the cgroup and below it, waits until it is gone,
// and removes the folders. If the calling process is inside, it is moved out
// to the root of the hierarchy first. A cgroup that is gone already is no error.
func (c *Cgroup) Remove(ctx context.Context) error {
	folders, err := c.folders()
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := leave(folder, filepath.Dir(c.Path)); err != nil {
			return err
		}
	}
	// cgroup.kill reaches the whole subtree, forks in flight included (5.14).
	err = os.WriteFile(filepath.Join(c.Path, "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cgroup: %w", err)
	}
	if err := c.waitEmpty(ctx); err != nil {
		return err
	}
	for _, folder := range slices.Backward(folders) {
		if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	return nil
}

// folders are the cgroup and all below it, parents first.
func (c *Cgroup) folders() ([]string, error) {
	var found []string
	err := filepath.WalkDir(c.Path, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("cgroup: %w", err)
		case entry.IsDir():
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

// leave moves the calling process from folder to outside, if it is there.
func leave(folder, outside string) error {
	procs, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("cgroup: %w", err)
	}
	if !slices.Contains(strings.Fields(string(procs)), strconv.Itoa(os.Getpid())) {
		return nil
	}
	return move(outside, os.Getpid())
}

func move(folder string, pid int) error {
	if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("cgroup: move process %d to %s: %w", pid, folder, err)
	}
	return nil
}

// waitEmpty waits until no process is left in the subtree. cgroup.events
// signals each change by POLLPRI (cgroup-v2 documentation, "[Un]populated
// Notification").
func (c *Cgroup) waitEmpty(ctx context.Context) error {
	f, err := os.Open(filepath.Join(c.Path, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	defer f.Close()
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		if bytes.Contains(buf[:n], []byte("populated 0")) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("cgroup %s still holds processes: %w", c.Path, err)
		}
		const patience = 50 * time.Millisecond // to look at ctx again
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, int(patience.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
}

package intercept

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/procfs"
)

// maxDepth is how deep below the root an enrolled cgroup may be: MAX_DEPTH of the
// kernel programs.
const maxDepth = 16

// ErrCgroup is wrapped by errors about a cgroup that can't serve.
var ErrCgroup = errors.New("unsuitable cgroup")

// cgroup is a cgroup v2 folder. id is its inode number, which is what the kernel
// programs know it by, and is never given to another cgroup.
type cgroup struct {
	path string
	id   uint64
}

// cgroupRoot is where the root of the cgroup v2 hierarchy is mounted.
type cgroupRoot string

// rootID is the inode number of the hierarchy's root. Other mounts, of a
// container for instance, show a part of the hierarchy only.
const rootID = 1

func findCgroupRoot() (cgroupRoot, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find cgroup v2: %w", err)
	}
	defer f.Close()
	mounts, err := cgroupMounts(f)
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if cg, err := stat(m); err == nil && cg.id == rootID {
			return cgroupRoot(m), nil
		}
	}
	return "", fmt.Errorf("%w: the root of cgroup v2 is not mounted here (mounts of it: %q); mount it, or use the host's /sys/fs/cgroup", ErrCgroup, mounts)
}

// cgroupMounts returns the mount points of cgroup v2 in a mountinfo text
// (proc_pid_mountinfo(5)), in its order.
func cgroupMounts(r io.Reader) ([]string, error) {
	all, err := procfs.Mounts(r)
	if err != nil {
		return nil, err
	}
	var mounts []string
	for _, m := range all {
		if m.Kind == "cgroup2" {
			mounts = append(mounts, m.Point)
		}
	}
	return mounts, nil
}

// stat says which cgroup a path is.
func stat(path string) (cgroup, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return cgroup{}, fmt.Errorf("%w: %s: %w", ErrCgroup, path, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return cgroup{}, fmt.Errorf("%w: %s is not in cgroup v2", ErrCgroup, path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return cgroup{}, fmt.Errorf("%w: %s: %w", ErrCgroup, path, err)
	}
	return cgroup{path: path, id: st.Ino}, nil
}

// absolute returns the path of a cgroup that is named by its path below the root
// or by its absolute one.
func (r cgroupRoot) absolute(name string) string {
	if clean := filepath.Clean(name); clean == string(r) || below(string(r), clean) {
		return clean
	}
	return filepath.Join(string(r), name)
}

func (r cgroupRoot) make(name string) (cgroup, error) {
	path := r.absolute(name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return cgroup{}, fmt.Errorf("%w: make %s: %w", ErrCgroup, path, err)
	}
	return stat(path)
}

// enter returns this process's cgroup below the ancestor, and moves it into
// "daemon" there if it is in none.
func (r cgroupRoot) enter(ancestor cgroup) (cgroup, error) {
	own, err := r.ownPath()
	if err != nil {
		return cgroup{}, err
	}
	if !below(ancestor.path, own) {
		own = filepath.Join(ancestor.path, "daemon")
		if err := os.MkdirAll(own, 0o755); err != nil {
			return cgroup{}, fmt.Errorf("%w: make %s: %w", ErrCgroup, own, err)
		}
		procs := filepath.Join(own, "cgroup.procs")
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return cgroup{}, fmt.Errorf("%w: move the daemon into %s: %w", ErrCgroup, own, err)
		}
	}
	// In a cgroup namespace the paths of /proc are others than those of the mount.
	if in, err := holds(own, os.Getpid()); err != nil {
		return cgroup{}, err
	} else if !in {
		return cgroup{}, fmt.Errorf("%w: the daemon is not in %s, as /proc/self/cgroup says; run it in the host's cgroup namespace", ErrCgroup, own)
	}
	return stat(own)
}

func (r cgroupRoot) ownPath() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrCgroup, err)
	}
	path, ok := procfs.Cgroup(text)
	if !ok {
		return "", fmt.Errorf("%w: this process is in no cgroup v2", ErrCgroup)
	}
	return filepath.Join(string(r), path), nil
}

func holds(path string, pid int) (bool, error) {
	text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrCgroup, err)
	}
	for line := range strings.Lines(string(text)) {
		if n, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && n == pid {
			return true, nil
		}
	}
	return false, nil
}

// below tells whether a path is strictly below another one. Both are clean.
func below(ancestor, path string) bool {
	rel, err := filepath.Rel(ancestor, path)
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../")
}

// ids returns the ids of all cgroups below the ancestor.
func (c cgroup) ids() (map[uint64]bool, error) {
	ids := map[uint64]bool{}
	err := filepath.WalkDir(c.path, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone since its parent was read
		}
		if err != nil || !d.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err == nil {
			ids[st.Ino] = true
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: list %s: %w", ErrCgroup, c.path, err)
	}
	return ids, nil
}

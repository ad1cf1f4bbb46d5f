package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/procfs"
)

// ID names a network namespace as long as it exists: the device and inode of its file
// (namespaces(7)).
type ID struct{ Device, Inode uint64 }

// String is the inode, by which ip-netns(8) and /proc name it.
func (id ID) String() string { return "net:[" + strconv.FormatUint(id.Inode, 10) + "]" }

// Own is the namespace of the calling process: of the threads that it works with. The
// first one, which /proc/self shows, may have been left in another.
func Own() (ID, error) { return idAt("/proc/thread-self/ns/net") }

// IDOf is the namespace of a process.
func IDOf(pid int) (ID, error) { return idAt("/proc/" + strconv.Itoa(pid) + "/ns/net") }

func idAt(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, fmt.Errorf("network namespace %s: %w", path, err)
	}
	return ID{st.Dev, st.Ino}, nil
}

// Place is a namespace that is held open.
type Place struct {
	ID
	file *os.File
}

// ErrElsewhere says that a process doesn't live in the cgroup that it was said to.
var ErrElsewhere = errors.New("the process is not in that cgroup")

// Of opens the network namespace of a process that lives in a cgroup or below it; root is
// where the root of the cgroup hierarchy is mounted. It
// looks at the cgroup after the namespace was opened, through one and the same
// open process: neither the process nor its id can change in between.
func Of(root, cgroup string, pid int) (*Place, error) {
	proc, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(proc)
	fd, err := unix.Openat(proc, "ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	p := &Place{file: os.NewFile(uintptr(fd), "net namespace")}
	err = p.identify()
	if err == nil {
		err = inside(proc, root, cgroup)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("network namespace of process %d: %w", pid, err), p.Close())
	}
	return p, nil
}

func (p *Place) identify() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(p.file.Fd()), &st); err != nil {
		return err
	}
	p.ID = ID{st.Dev, st.Ino}
	return nil
}

// Path leads to the namespace as long as the place is open.
func (p *Place) Path() string { return fmt.Sprintf("/proc/self/fd/%d", p.file.Fd()) }

// Close lets go of the namespace.
func (p *Place) Close() error { return p.file.Close() }

// inside tells an error unless the process whose folder of /proc is open lives in the cgroup.
func inside(proc int, root, cgroup string) error {
	fd, err := unix.Openat(proc, "cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "cgroup")
	defer f.Close()
	buf := make([]byte, 16<<10)
	n, err := f.Read(buf)
	if err != nil {
		return err
	}
	if path, ok := procfs.Cgroup(buf[:n]); ok {
		if path = filepath.Join(root, path); path == cgroup || strings.HasPrefix(path, cgroup+"/") {
			return nil
		}
	}
	return fmt.Errorf("%w %s", ErrElsewhere, cgroup)
}

// maxProcesses bounds how many processes of a cgroup are looked at for their
// namespaces.
const maxProcesses = 10000

// Processes returns the processes of a cgroup and of all below it.
func Processes(cgroup string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(cgroup, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != cgroup {
			return nil // gone since its parent was read
		}
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP)) {
			return nil // gone, or a threaded one, whose processes its parent lists
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 && len(pids) < maxProcesses {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("processes of %s: %w", cgroup, err)
	}
	return pids, nil
}

// Namespaces returns the network namespaces of a cgroup's processes.
func Namespaces(cgroup string) (map[ID]bool, error) {
	pids, err := Processes(cgroup)
	if err != nil {
		return nil, err
	}
	ids := map[ID]bool{}
	for _, pid := range pids {
		if id, err := IDOf(pid); err == nil {
			ids[id] = true
		}
	}
	return ids, nil
}

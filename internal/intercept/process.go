package intercept

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/procfs"
)

// Process is a process as the kernel saw it.
type Process struct {
	PID  uint32 // as the host's PID namespace counts
	UID  uint32
	GID  uint32
	Comm string // of the thread; whoever runs can choose it, so decide nothing by it
	// Executable is read from /proc afterwards. Empty means that it can't be
	// told: the process is gone, or its PID is another's now.
	Executable string
}

// process completes what the kernel programs tell of a process, and returns the path of its
// cgroup, if it can be told. started is on the boot-time clock, in ns.
func process(started uint64, pid, uid, gid uint32, comm [16]int8) (p Process, cgroup string) {
	p = Process{PID: pid, UID: uid, GID: gid, Comm: text(comm)}
	if pid != 0 && started != 0 {
		p.Executable, cgroup = look(fmt.Sprintf("/proc/%d", pid), started)
	}
	return p, cgroup
}

// look returns what the process at a folder of /proc runs, and its cgroup, if it is the
// one that started then. The open folder stays that of the same process: once that is
// gone reading there fails, whoever has the PID by then.
func look(proc string, started uint64) (executable, cgroup string) {
	dir, err := unix.Open(proc, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", ""
	}
	defer unix.Close(dir)
	if ticks, ok := startTicks(readAt(dir, "stat")); !ok || ticks != started/nsPerTick {
		return "", ""
	}
	cgroup, _ = procfs.Cgroup(readAt(dir, "cgroup"))
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, "exe", buf)
	if err != nil {
		return "", cgroup
	}
	return string(buf[:n]), cgroup
}

// nsPerTick is that of USER_HZ, which is 100 on all that this is built for.
const nsPerTick = 10_000_000

func readAt(dir int, name string) []byte {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// startTicks returns field 22 of a proc_pid_stat(5). Field 2, the name, is in
// parentheses and may hold some itself.
func startTicks(stat []byte) (ticks uint64, ok bool) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	const start = 22 - 3 // the first one here is field 3
	if len(fields) <= start {
		return 0, false
	}
	ticks, err := strconv.ParseUint(fields[start], 10, 64)
	if err != nil {
		return 0, false
	}
	return ticks, true
}

// text is a C string.
func text(c [16]int8) string {
	b := make([]byte, 0, len(c))
	for _, x := range c {
		if x == 0 {
			break
		}
		b = append(b, byte(x))
	}
	return strings.ToValidUTF8(string(b), "?")
}

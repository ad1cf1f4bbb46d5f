package bypass

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Leaving the planner's cgroup, or the namespaces that it was seen in.

func cgroupRows() []row {
	const (
		escape = "root that may write to the cgroup file system can leave the ancestor: chaperone run drops CAP_SYS_ADMIN, " +
			"and a container's cgroup file system is read-only"
		asRoot   = "the same as root is the control"
		nowhere  = "a new network namespace leads nowhere"
		fsDenies = "the file system refuses it"
	)
	return []row{
		{threat: 9, name: "nested cgroup", hope: "a cgroup that nobody has enrolled", do: nested, want: "diverted"},
		{threat: 9, name: "moved to a cgroup below the ancestor", hope: "cgroup.procs of another one, as root", do: moved(func(a aim) string { return a.Stranger }), want: "refused"},
		{threat: 9, name: "moved outside the ancestor", hope: "the same, to where nothing is enforced", do: moved(func(a aim) string { return a.Home }), want: "refused", open: escape, closers: []string{asRun, withNodeBelt}},
		{threat: 9, name: "moved outside the ancestor, as an ordinary user", hope: "the same without root", user: true, control: asRoot, do: moved(func(a aim) string { return a.Home }), want: "refused", silent: fsDenies},
		{threat: 9, name: "child started outside the ancestor", hope: "clone3(2) with CLONE_INTO_CGROUP", do: childOutside, want: "refused", open: escape, closers: []string{asRun, withNodeBelt}},
		{threat: 9, name: "socket made, then moved outside", hope: "the socket stays, the process is no planner", do: socketThenMoved, want: "diverted or refused"},
		{threat: 9, name: "new user and cgroup namespaces", hope: "the cgroup is called / there", do: cloned(unix.CLONE_NEWUSER | unix.CLONE_NEWCGROUP), want: "diverted"},
		{threat: 9, name: "new user and network namespaces", hope: "a network of one's own", control: nowhere, do: cloned(unix.CLONE_NEWUSER | unix.CLONE_NEWNET), want: "refused or unreachable"},
		{threat: 9, name: "new PID and mount namespaces", hope: "another view of everything", do: cloned(unix.CLONE_NEWPID | unix.CLONE_NEWNS), want: "diverted"},
		{threat: 9, name: "ordinary user", hope: "no capability at all", user: true, do: plain4, want: "diverted"},
		{threat: 9, name: "the database's network namespace", hope: "setns(2) to where the target is local", do: elsewhere(plain4), want: "refused"},
		{threat: 9, name: "the database's network namespace, IPv6", hope: "the same by IPv6", do: elsewhere(plain6), want: "refused"},
		{threat: 9, name: "the database's network namespace, UDP", hope: "the same with a datagram", do: elsewhere(sendTo(v4)), want: "refused"},
		{threat: 9, name: "the database's network namespace, loopback", hope: "the target is on 127.0.0.1 there", do: elsewhere(loopback), want: "refused"},
	}
}

func loopback(a aim) (answer, error) { return dial(addr("127.0.0.1"), a.Port) }

func nested(a aim) (answer, error) {
	child := filepath.Join(a.Job, "child", "grandchild")
	if err := os.MkdirAll(child, 0o755); err != nil {
		return answer{}, err
	}
	if err := join(child); err != nil {
		return answer{}, err
	}
	return plain4(a)
}

func moved(to func(aim) string) attack {
	return func(a aim) (answer, error) {
		if err := join(to(a)); err != nil {
			return answer{}, err
		}
		return plain4(a)
	}
}

func socketThenMoved(a aim) (answer, error) {
	fd, err := open(a.V4)
	if err != nil {
		return answer{}, err
	}
	if err := join(a.Home); err != nil {
		return answer{}, err
	}
	return connect(fd, a.V4, a.Port)
}

func elsewhere(do attack) attack {
	return func(a aim) (answer, error) {
		if err := enterNet(a.DB); err != nil {
			return answer{}, err
		}
		return do(a)
	}
}

// cloned does the plainest attack in a child that has namespaces of its own.
func cloned(flags uintptr) attack {
	return func(a aim) (answer, error) {
		attr := &syscall.SysProcAttr{Cloneflags: flags}
		if flags&unix.CLONE_NEWUSER != 0 {
			attr.UidMappings = []syscall.SysProcIDMap{{Size: 1}}
			attr.GidMappings = []syscall.SysProcIDMap{{Size: 1}}
		}
		return child(a, attr)
	}
}

func childOutside(a aim) (answer, error) {
	dir, err := os.Open(a.Home)
	if err != nil {
		return answer{}, err
	}
	defer dir.Close()
	return child(a, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())})
}

// child is another process that connects.
func child(a aim, attr *syscall.SysProcAttr) (answer, error) {
	arg, err := json.Marshal(a)
	if err != nil {
		return answer{}, err
	}
	cmd := exec.Command("/proc/self/exe", "planner", "connect", string(arg))
	cmd.SysProcAttr = attr
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Run()
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return answer{}, step("clone", errno)
	}
	if err != nil {
		return answer{}, fmt.Errorf("%w: %s", err, complaint.String())
	}
	var got answer
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		return answer{}, err
	}
	return got, nil
}

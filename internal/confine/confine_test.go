package confine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// roleVar tells a process that was started from the test binary what it is.
const roleVar = "CHAPERONE_CONFINE_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "run": // what "chaperone run" does before it executes the command
		var identity *Identity
		if user := os.Args[1]; user != "" {
			var err error
			if identity, err = LookUp(user); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		if err := errors.Join(HideEnforcement(), Drop(identity)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := os.Setenv(roleVar, "planner"); err != nil {
			os.Exit(1)
		}
		fmt.Fprintln(os.Stderr, syscall.Exec(os.Args[2], []string{os.Args[2]}, os.Environ()))
		os.Exit(1)
	case "planner":
		if err := json.NewEncoder(os.Stdout).Encode(try()); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// try does what a planner might, and tells how each went.
func try() map[string]string {
	got := map[string]string{}
	socket := func(name string, family, kind, protocol int) {
		fd, err := unix.Socket(family, kind, protocol)
		if err == nil {
			unix.Close(fd)
		}
		got[name] = errName(err)
	}
	socket("tcp", unix.AF_INET, unix.SOCK_STREAM, 0)
	socket("tcp6", unix.AF_INET6, unix.SOCK_STREAM, 0)
	socket("udp", unix.AF_INET, unix.SOCK_DGRAM, 0)
	socket("unix", unix.AF_UNIX, unix.SOCK_STREAM, 0)
	socket("netlink", unix.AF_NETLINK, unix.SOCK_RAW, 0)
	socket("packet", unix.AF_PACKET, unix.SOCK_RAW, 0)
	socket("vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	socket("xdp", unix.AF_XDP, unix.SOCK_RAW, 0)
	socket("alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
	socket("raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	got["socketpair"] = errName(err)
	if err == nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
	}
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	got["io_uring"] = errName(errno)
	privileges, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	got["no new privileges"] = fmt.Sprint(privileges, err)
	got["uid"] = fmt.Sprint(os.Getuid())
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			got["bounding set"] = strings.TrimSpace(value)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		switch {
		case strings.Contains(line, " - cgroup2 "):
			got["cgroup"] += errName(unix.Mkdir(fields[4]+"/chaperone-escape", 0o755))
			f, err := os.OpenFile(fields[4]+"/cgroup.procs", os.O_WRONLY, 0)
			if err == nil {
				f.Close()
			}
			got["procs"] += fmt.Sprint(errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES))
		case strings.Contains(line, " - bpf "):
			files, err := os.ReadDir(fields[4])
			got["pins"] += fmt.Sprint(len(files), err == nil || errors.Is(err, os.ErrPermission))
		}
	}
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err != nil {
		got["listen"] = err.Error()
	} else {
		got["listen"] = ""
		l.Close()
	}
	return got
}

func errName(err error) string {
	if errno, ok := err.(syscall.Errno); ok && errno != 0 {
		return unix.ErrnoName(errno)
	}
	return ""
}

func TestDrop(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"", "nobody"} {
		t.Run("user "+user, func(t *testing.T) {
			binary := self
			if user != "" { // which may not read the test's own folder
				binary = copyFor(t, self)
			}
			cmd := exec.Command(self, user, binary)
			cmd.Env = append(os.Environ(), roleVar+"=run")
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got := map[string]string{}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			want := map[string]string{
				"tcp": "", "tcp6": "", "udp": "", "unix": "", "netlink": "", "socketpair": "", "listen": "",
				"packet": "EAFNOSUPPORT", "vsock": "EAFNOSUPPORT", "xdp": "EAFNOSUPPORT", "alg": "EAFNOSUPPORT",
				"raw": "EPERM", "io_uring": "EPERM", "no new privileges": "1 <nil>",
			}
			for name, errno := range want {
				if got[name] != errno {
					t.Errorf("%s: %q, want %q", name, got[name], errno)
				}
			}
			// Mounts may be several; each must say the same.
			for name, each := range map[string]string{"cgroup": "EROFS", "procs": "true", "pins": "0true"} {
				if strings.ReplaceAll(got[name], each, "") != "" || got[name] == "" && name != "pins" {
					t.Errorf("%s: %q, want %q of each mount", name, got[name], each)
				}
			}
			if user != "" && got["uid"] == "0" {
				t.Error("the planner is root still")
			}
			var bounding uint64
			if _, err := fmt.Sscanf(got["bounding set"], "%x", &bounding); err != nil {
				t.Fatalf("bounding set %q: %v", got["bounding set"], err)
			}
			for _, capability := range dropped() {
				if bounding&(1<<capability) != 0 {
					t.Errorf("capability %d can be had again", capability)
				}
			}
		})
	}
}

func copyFor(t *testing.T, path string) string {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "chaperone-confine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/planner", body, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir + "/planner"
}

// What no system call of this machine's own shows: other architectures', and x32's.
func TestFilter(t *testing.T) {
	arch, err := architecture()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(filter(arch))
	if err != nil {
		t.Fatal(err)
	}
	const allowed = unix.SECCOMP_RET_ALLOW
	for _, c := range []struct {
		name             string
		arch             uint32
		number, argument uint32
		want             int
	}{
		{"read", arch, unix.SYS_READ, 0, allowed},
		{"an internet socket", arch, unix.SYS_SOCKET, unix.AF_INET, allowed},
		{"a packet socket", arch, unix.SYS_SOCKET, unix.AF_PACKET, unix.SECCOMP_RET_ERRNO | int(unix.EAFNOSUPPORT)},
		{"a family that is none", arch, unix.SYS_SOCKET, 0xffffffff, unix.SECCOMP_RET_ERRNO | int(unix.EAFNOSUPPORT)},
		{"io_uring", arch, unix.SYS_IO_URING_SETUP, 0, unix.SECCOMP_RET_ERRNO | int(unix.EPERM)},
		{"keyctl", arch, unix.SYS_KEYCTL, 0, unix.SECCOMP_RET_ERRNO | int(unix.EPERM)},
		{"request_key", arch, unix.SYS_REQUEST_KEY, 0, unix.SECCOMP_RET_ERRNO | int(unix.EPERM)},
		{"i386's socketcall", unix.AUDIT_ARCH_I386, 102, 0, unix.SECCOMP_RET_ERRNO | int(unix.ENOSYS)},
		{"i386's read", unix.AUDIT_ARCH_I386, 3, 0, unix.SECCOMP_RET_ERRNO | int(unix.ENOSYS)},
		{"x32's socket", arch, x32 | unix.SYS_SOCKET, unix.AF_PACKET, unix.SECCOMP_RET_ERRNO | int(unix.ENOSYS)},
	} {
		data := make([]byte, 64)
		// This machine reads what the kernel wrote in its own order; the simulation is of the other.
		binary.BigEndian.PutUint32(data[offsetNumber:], c.number)
		binary.BigEndian.PutUint32(data[offsetArch:], c.arch)
		binary.BigEndian.PutUint32(data[offsetArgument:], c.argument)
		if got, err := vm.Run(data); err != nil || got != c.want {
			t.Errorf("%s: %#x, %v, want %#x", c.name, got, err, c.want)
		}
	}
}

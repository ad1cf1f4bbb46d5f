package intercept

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func (w *world) lacks(program string) bool {
	return slices.ContainsFunc(w.i.Missing(), func(m Missing) bool { return m.Program == program })
}

func serveUnix(t *testing.T, name string) {
	t.Helper()
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "REAL")
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
}

// The unix socket of a database whose port is captured is no way around, nor by
// another name where the kernel lets that be seen.
func TestUnixSockets(t *testing.T) {
	w := newWorld(t)
	w.capture(Capture{Port: capturedPort, Action: Redirect})
	if w.lacks("connect_unix") && w.lacks("unix_connect") {
		t.Log("this kernel covers no unix sockets")
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	protected, other := filepath.Join(dir, ".s.PGSQL.5999"), filepath.Join(dir, ".s.PGSQL.5998")
	abstract := fmt.Sprintf("@/chaperone-test-%d/.s.PGSQL.5999", os.Getpid())
	for _, name := range []string{protected, other, abstract} {
		serveUnix(t, name)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(protected, link); err != nil {
		t.Fatal(err)
	}
	r := w.watch()
	for _, name := range []string{protected, abstract} {
		wantError(t, w.run(w.job, "unix", name), "EPERM")
		if b := r.next(t, RefusedUnix); b.Workload != w.jobID || b.Socket != "unix" || b.Hook != "connect_unix" || b.Destination.IsValid() {
			t.Errorf("report %+v, want the planner's unix socket", b)
		}
		wantSaid(t, w.run(w.outside, "unix", name), "REAL")
	}
	wantSaid(t, w.run(w.job, "unix", other), "REAL")
	if w.lacks("unix_connect") {
		wantSaid(t, w.run(w.job, "unix", link), "REAL")
	} else {
		wantError(t, w.run(w.job, "unix", link), "EPERM")
	}
	w.stop()
	wantError(t, w.run(w.job, "unix", protected), "EPERM")
	w.start()
	wantError(t, w.run(w.job, "unix", protected), "EPERM")
}

// Planners have no sockets of families that no packet program sees.
func TestSocketFamilies(t *testing.T) {
	w := newWorld(t)
	if w.lacks("create_socket") {
		t.Log("this kernel refuses no socket families")
		return
	}
	r := w.watch()
	for _, c := range []struct {
		family, kind int
		name, errno  string
	}{
		{unix.AF_PACKET, unix.SOCK_RAW, "packet", "EPERM"},
		{unix.AF_VSOCK, unix.SOCK_STREAM, "vsock", "EPERM"},
		{unix.AF_XDP, unix.SOCK_RAW, "xdp", "EPERM"},
		{unix.AF_ALG, unix.SOCK_SEQPACKET, "family 38", "EPERM"},
		{unix.AF_UNIX, unix.SOCK_STREAM, "", ""},
		{unix.AF_NETLINK, unix.SOCK_RAW, "", ""},
		{unix.AF_INET, unix.SOCK_STREAM, "", ""},
	} {
		args := []string{"socket", strconv.Itoa(c.family), strconv.Itoa(c.kind), "0"}
		wantError(t, w.run(w.job, args...), c.errno)
		if c.errno == "" {
			continue
		}
		if b := r.next(t, RefusedSocket); b.Hook != "socket" || b.Socket != c.name || b.Workload != w.jobID {
			t.Errorf("report %+v, want a socket of %s", b, c.name)
		}
		if got := w.run(w.stranger, args...); got.Error == "EPERM" {
			t.Errorf("%s: a stranger was refused", c.name)
		}
	}
}

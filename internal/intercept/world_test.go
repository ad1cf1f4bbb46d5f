package intercept

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

const (
	listenerPort = 15999
	capturedPort = 5999
	otherPort    = 5998
)

// world is an ancestor cgroup with programs attached, a planner's job below it, a
// real target, and a proxy that tells each client what it knows of it.
type world struct {
	t        testing.TB
	options  Options
	i        *Interceptor
	jobs     string
	job      string // enrolled
	jobID    uint64
	stranger string // below the ancestor, not enrolled
	outside  string // beside the ancestor
	target   *target
	mu       sync.Mutex
	origins  []Origin
	rejected []error
	proxy    []*net.TCPListener
	serving  sync.WaitGroup
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, func(*Options) {})
}

// newWorldWith is newWorld with other options.
func newWorldWith(t testing.TB, change func(*Options)) *world {
	t.Helper()
	root, err := findCgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.MkdirTemp(string(root), fmt.Sprintf("chaperone-test-%d-", os.Getpid()))
	if err != nil {
		t.Fatalf("these tests need to make cgroups: %v", err)
	}
	home, err := root.ownPath()
	if err != nil {
		t.Fatal(err)
	}
	pins := t.TempDir()
	if err := unix.Mount("bpf", pins, "bpf", 0, "mode=700"); err != nil {
		t.Fatalf("these tests need to mount a bpffs: %v", err)
	}
	w := &world{
		t: t,
		options: Options{
			Ancestor: filepath.Join(base, "ancestor"),
			PinDir:   filepath.Join(pins, "pins"),
			Port:     listenerPort,
			Probe:    []string{"/proc/self/exe", "probe"},
			Log:      zerolog.New(zerolog.NewTestWriter(t)),
		},
		jobs:     filepath.Join(base, "ancestor", "jobs"),
		job:      filepath.Join(base, "ancestor", "jobs", "one"),
		stranger: filepath.Join(base, "ancestor", "stranger"),
		outside:  filepath.Join(base, "outside"),
	}
	change(&w.options)
	for _, d := range []string{w.job, w.stranger, w.outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.target = newTarget(t)
	t.Setenv(roleVar, "client")             // of all that is started from here
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else each would wait a second for reports
	t.Cleanup(func() {
		if w.i != nil {
			w.stop()
		}
		if err := Detach(w.options.PinDir); err != nil {
			t.Errorf("detach: %v", err)
		}
		if err := unix.Unmount(pins, 0); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
		if err := join(home); err != nil {
			t.Errorf("leave the test's cgroups: %v", err)
		}
		removeCgroups(t, base)
	})
	w.start()
	id, err := w.i.Enroll(w.job)
	if err != nil {
		t.Fatal(err)
	}
	w.jobID = id
	return w
}

// start opens the interceptor and its proxy.
func (w *world) start() {
	w.t.Helper()
	ctx := context.Background()
	i, err := Open(ctx, w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.i = i
	w.proxy, err = i.Listen(ctx, Namespace{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range w.proxy {
		w.serve(l)
	}
}

// stop does what the death of a daemon does.
func (w *world) stop() {
	w.t.Helper()
	for _, l := range w.proxy {
		l.Close()
	}
	w.serving.Wait()
	if err := w.i.Close(); err != nil {
		w.t.Errorf("close: %v", err)
	}
	w.i = nil
}

func (w *world) serve(l *net.TCPListener) {
	i := w.i
	w.serving.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			o, err := i.Origin(conn)
			w.mu.Lock()
			if err != nil {
				w.rejected = append(w.rejected, err)
				io.WriteString(conn, "NO ORIGIN")
			} else {
				w.origins = append(w.origins, o)
				fmt.Fprintf(conn, "PROXY %s", o.Destination)
			}
			w.mu.Unlock()
			conn.CloseWrite()
			io.Copy(io.Discard, conn) // what a Fast Open brought
			conn.Close()
		}
	})
}

func (w *world) lastOrigin() Origin {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.origins) == 0 {
		w.t.Fatal("nothing was diverted")
	}
	return w.origins[len(w.origins)-1]
}

func (w *world) capture(set ...Capture) {
	w.t.Helper()
	if err := w.i.Capture(set); err != nil {
		w.t.Fatal(err)
	}
}

// captureTarget captures the port that tests use on the target's addresses.
func (w *world) captureTarget() {
	w.t.Helper()
	w.capture(
		Capture{Addr: netip.MustParseAddr(target4), Port: capturedPort, Action: Redirect, Protocol: 7, Target: 70},
		Capture{Addr: netip.MustParseAddr(target6), Port: capturedPort, Action: Redirect, Protocol: 7, Target: 71},
	)
}

// client starts an action in a cgroup.
func (w *world) client(cgroup string, args ...string) (*exec.Cmd, func() answer) {
	w.t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	return cmd, func() answer {
		w.t.Helper()
		defer dir.Close()
		if err := cmd.Run(); err != nil {
			w.t.Fatalf("%v in %s: %v: %s", args, cgroup, err, complaint.String())
		}
		var a answer
		if err := json.Unmarshal(out.Bytes(), &a); err != nil {
			w.t.Fatalf("%v: %q: %v", args, out.String(), err)
		}
		return a
	}
}

func (w *world) run(cgroup string, args ...string) answer {
	w.t.Helper()
	_, run := w.client(cgroup, args...)
	return run()
}

// stats fails the test when they can't be read.
func (w *world) stats() map[Outcome]uint64 {
	w.t.Helper()
	s, err := w.i.Stats()
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// target is a real server on every address and both protocols. It says "REAL" and
// its own address, and counts what reaches it.
type target struct {
	datagrams atomic.Int64
}

func newTarget(t testing.TB) *target {
	t.Helper()
	tg := &target{}
	var serving sync.WaitGroup
	var closers []io.Closer
	for _, port := range []string{"5999", "5998"} {
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error {
				return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16)
			})
		}}
		config.SetMultipathTCP(true)
		l, err := config.Listen(context.Background(), "tcp", "[::]:"+port)
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
				fmt.Fprintf(conn, "REAL %s", netip.AddrPortFrom(local.Addr().Unmap(), local.Port()))
				conn.Close()
			}
		})
		u, err := net.ListenPacket("udp", "[::]:"+port)
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() {
			buf := make([]byte, 2048)
			for {
				if _, _, err := u.ReadFrom(buf); errors.Is(err, net.ErrClosed) {
					return
				}
				tg.datagrams.Add(1)
			}
		})
		closers = append(closers, l, u)
	}
	t.Cleanup(func() {
		for _, c := range closers {
			c.Close()
		}
		serving.Wait()
	})
	return tg
}

// waitForDatagrams waits until that many have reached the target, and fails when it
// is more.
func (w *world) waitForDatagrams(n int64) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for w.target.datagrams.Load() < n && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if got := w.target.datagrams.Load(); got != n {
		w.t.Fatalf("%d datagrams reached the target, want %d", got, n)
	}
}

func removeCgroups(t testing.TB, path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Errorf("remove cgroup: %v", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			removeCgroups(t, filepath.Join(path, e.Name()))
		}
	}
	if err := os.Remove(path); err != nil {
		t.Errorf("remove cgroup: %v", err)
	}
}

func at(host string, port int) string {
	return net.JoinHostPort(host, fmt.Sprint(port))
}

func wantSaid(t testing.TB, got answer, prefix string) {
	t.Helper()
	if got.Error != "" || !strings.HasPrefix(got.Said, prefix) {
		t.Errorf("client got %q (error %q), want %q", got.Said, got.Error, prefix)
	}
}

func wantError(t testing.TB, got answer, errno string) {
	t.Helper()
	if got.Error != errno {
		t.Errorf("client got error %q (said %q), want %q", got.Error, got.Said, errno)
	}
}

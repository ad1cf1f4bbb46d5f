package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/control"
	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/lab"
)

// local is a world without servers, for what is looked at on the machine.
func local(t *testing.T) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir(), cgroup: fmt.Sprintf("chaperone-doctor-%d", os.Getpid())}
	m.pins = filepath.Join("/sys/fs/bpf", m.cgroup)
	t.Cleanup(func() {
		if err := os.RemoveAll(m.pins); err != nil {
			t.Error(err)
		}
	})
	m.node = map[string]string{
		"cgroup": m.cgroup, "pinDir": m.pins, "runDir": m.path("run"), "listenPort": "15001", "journal": "{maxBytes: 16MiB}",
	}
	return m
}

type machine struct {
	dir, cgroup, pins string
	node              map[string]string // the Node document's spec
	more              string            // further documents
}

func (m *machine) path(name ...string) string {
	return filepath.Join(append([]string{m.dir}, name...)...)
}

func (m *machine) mkdir(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// sysctl changes a setting of the tests' own network namespace.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	path := filepath.Join("/proc/sys", name)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, before, 0); err != nil {
			t.Error(err)
		}
	})
}

func (m *machine) write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) diagnose(t *testing.T, check string) Result {
	t.Helper()
	text := "apiVersion: chaperone.dev/v1alpha1\nkind: Node\nspec:\n"
	for field, value := range m.node {
		text += "  " + field + ": " + value + "\n"
	}
	m.mkdir(t, m.path("config"), 0o755)
	m.write(t, m.path("config", "all.yaml"), text+m.more, 0o644)
	return diagnose(t, Options{Config: m.path("config"), State: m.path("state")}, check)[check]
}

func makeCgroup(t *testing.T, m *machine) {
	t.Helper()
	made, err := lab.NewCgroup(m.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := made.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	m.node["cgroup"] = filepath.Base(made.Path)
}

// layout is a folder of this build's pins.
func layout(t *testing.T, m *machine, name string) string {
	t.Helper()
	a, err := intercept.InspectAncestor(m.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	state, err := intercept.InspectPins(m.pins, a)
	if !errors.Is(err, fs.ErrNotExist) && err != nil {
		t.Fatal(err)
	}
	return filepath.Join(state.Dir, name)
}

// attachTo attaches what is somebody's to the machine's cgroup.
func attachTo(t *testing.T, m *machine, flags uint32) {
	t.Helper()
	root, err := lab.CgroupMount()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(filepath.Join(root, m.node["cgroup"]))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "somebodys", Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close() // it stays attached as long as the cgroup is there
	if err := link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(dir.Fd()), Program: program, Attach: ebpf.AttachCGroupInetEgress, Flags: flags,
	}); err != nil {
		t.Fatal(err)
	}
}

// mount covers a folder in the tests' own mount namespace.
func mount(t *testing.T, kind, path string) {
	t.Helper()
	if err := unix.Mount("none", path, kind, 0, "size=2m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
}

func listenAt(network, address string) func(*testing.T, *machine) {
	return func(t *testing.T, _ *machine) {
		t.Helper()
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
}

func journalOf(bytes int64) func(*testing.T, *machine) {
	return func(t *testing.T, m *machine) {
		t.Helper()
		m.mkdir(t, m.path("state", "journal"), 0o700)
		segment := m.path("state", "journal", "00000000000000000000.seg")
		m.write(t, segment, "", 0o600)
		if err := os.Truncate(segment, bytes); err != nil {
			t.Fatal(err)
		}
	}
}

func adminFile(mode os.FileMode) func(*testing.T, *machine) {
	return func(t *testing.T, m *machine) {
		t.Helper()
		m.write(t, m.path("admin.dsn"), "host=127.0.0.1", mode)
		m.more = `---
apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: orders-db}
spec:
  protocol: postgres
  hosts: ["127.0.0.1:9"]
  tls: {mode: disable}
  credential: {postgresRole: {adminFrom: {file: ` + strconv.Quote(m.path("admin.dsn")) + `}}}
`
	}
}

func tokenFile(_ *testing.T, m *machine) {
	m.more = `---
apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp-idp}
spec: {issuer: "https://127.0.0.1:9", audiences: [chaperone]}
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: nightly}
spec: {select: {run: {name: "nightly-*"}}, identity: {issuer: corp-idp, tokenFile: ` + strconv.Quote(m.path("token")) + `}}
`
}

// nobody refuses every job.
type nobody struct{}

func (nobody) Admit(context.Context, control.Peer) (control.AdmissionReply, error) {
	return control.AdmissionReply{}, errors.New("not here")
}

func (nobody) StartJob(context.Context, control.Peer, control.JobRequest) (control.JobReply, error) {
	return control.JobReply{}, errors.New("no jobs here")
}

// serve answers on the control socket, as a daemon does.
func serve(t *testing.T, m *machine) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	socket := m.path("run", control.SocketName)
	go func() { done <- control.Serve(ctx, socket, nobody{}) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			done <- err
			t.Fatal(err)
		case <-t.Context().Done():
			t.Fatal("no socket")
		default:
		}
	}
}

// leaveSocket does what a daemon that is killed does.
func leaveSocket(t *testing.T, m *machine) {
	t.Helper()
	m.mkdir(t, m.path("run"), 0o755)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.path("run", control.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

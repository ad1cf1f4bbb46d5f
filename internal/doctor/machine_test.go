package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/lab"
)

func TestMachine(t *testing.T) {
	for name, test := range map[string]struct {
		before func(t *testing.T, m *machine)
		check  string
		status Status
		text   string
		do     string
	}{
		"kernel":          {nil, "kernel", OK, "Linux", ""},
		"btf":             {nil, "kernel btf", OK, "vmlinux", ""},
		"features":        {nil, "kernel features", OK, "all ", ""},
		"programs":        {nil, "kernel programs", OK, "connect4", ""},
		"cgroup":          {nil, "cgroup", OK, "cgroup v2 at", ""},
		"namespaces":      {nil, "namespaces", OK, "pid", ""},
		"capabilities":    {nil, "capabilities", OK, "CAP_BPF, CAP_NET_ADMIN", ""},
		"ancestor":        {nil, "ancestor", OK, "can be made", ""},
		"ancestor, there": {makeCgroup, "ancestor", OK, "id ", ""},
		"ancestor, deep": {func(_ *testing.T, m *machine) {
			m.node["cgroup"] = m.cgroup + strings.Repeat("/x", 14)
		}, "ancestor", Fail, "15 cgroups deep", "nearer to the root"},
		"ancestor, threaded": {func(t *testing.T, m *machine) {
			makeCgroup(t, m)
			root, err := lab.CgroupMount()
			if err != nil {
				t.Fatal(err)
			}
			m.node["cgroup"] += "/threads"
			at := filepath.Join(root, m.node["cgroup"])
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.Remove(at); err != nil {
					t.Error(err)
				}
			})
			if err := os.WriteFile(filepath.Join(at, "cgroup.type"), []byte("threaded"), 0); err != nil {
				t.Fatal(err)
			}
		}, "ancestor", Fail, `"threaded"`, "domain"},
		"other programs": {nil, "other programs", OK, "", ""},
		"other programs, exclusive": {func(t *testing.T, m *machine) {
			makeCgroup(t, m)
			attachTo(t, m, 0)
		}, "other programs", Fail, "egress at", "bpftool"},
		"other programs, shared": {func(t *testing.T, m *machine) {
			makeCgroup(t, m)
			attachTo(t, m, unix.BPF_F_ALLOW_MULTI)
		}, "other programs", OK, "run after ours", ""},
		"other programs, overridable above": {func(t *testing.T, m *machine) {
			makeCgroup(t, m)
			attachTo(t, m, unix.BPF_F_ALLOW_OVERRIDE)
			m.node["cgroup"] += "/below"
		}, "other programs", Warn, "don't run below", "bpftool"},
		"bpffs": {nil, "bpffs", OK, "is made when the daemon starts", ""},
		"bpffs, none": {func(t *testing.T, _ *machine) {
			mount(t, "tmpfs", "/sys/fs/bpf")
		}, "bpffs", Warn, "no bpffs is mounted", "mount -t bpf"},
		"bpffs, elsewhere": {func(_ *testing.T, m *machine) {
			m.node["pinDir"] = m.path("pins")
		}, "bpffs", Fail, "not on a bpffs", "mount -t bpf"},
		"bpffs, open": {func(t *testing.T, m *machine) {
			m.mkdir(t, m.pins, 0o755)
		}, "bpffs", Fail, "0755", "chmod 700"},
		"pins, none": {nil, "pins", Skip, "nothing is pinned", "start the daemon"},
		"pins, other build": {func(t *testing.T, m *machine) {
			m.mkdir(t, filepath.Join(m.pins, "v0"), 0o700)
		}, "pins", Fail, "another build", "build that made them"},
		"pins, no links": {func(t *testing.T, m *machine) {
			m.mkdir(t, layout(t, m, "links"), 0o700)
			m.mkdir(t, layout(t, m, "maps"), 0o700)
		}, "pins", Fail, "no link for egress", "restart"},
		"pins, none beside a daemon": {serve, "pins", Fail, "though a daemon runs", "mount namespace"},
		"port":                       {nil, "listen port", OK, "15001", ""},
		"port, given to clients": {func(_ *testing.T, m *machine) {
			m.node["listenPort"] = "40000"
		}, "listen port", Warn, "ip_local_port_range", "ip_local_reserved_ports=40000"},
		"port, reserved": {func(t *testing.T, m *machine) {
			m.node["listenPort"] = "40000"
			sysctl(t, "net/ipv4/ip_local_reserved_ports", "39999-40001")
		}, "listen port", OK, "40000", ""},
		"port, taken":   {listenAt("tcp4", "127.0.0.1:15001"), "listen port", Fail, fmt.Sprintf("127.0.0.1:15001 (process %d ", os.Getpid()), "another listenPort"},
		"port, taken 6": {listenAt("tcp6", "[::1]:15001"), "listen port", Fail, "[::1]:15001", "another listenPort"},
		"port, daemon's": {func(t *testing.T, m *machine) {
			serve(t, m)
			listenAt("tcp4", "127.0.0.1:15001")(t, m)
		}, "listen port", OK, "listening: 127.0.0.1:15001", ""},
		"ipv6": {nil, "ipv6", OK, "::1", ""},
		"ipv6, off": {func(t *testing.T, _ *machine) {
			sysctl(t, "net/ipv6/conf/lo/disable_ipv6", "1")
		}, "ipv6", Warn, "::1 is not on lo", "disable_ipv6=0"},
		"state, none yet": {nil, "state", OK, "is made", ""},
		"state":           {func(t *testing.T, m *machine) { m.mkdir(t, m.path("state"), 0o700) }, "state", OK, "0700", ""},
		"state, readable": {func(t *testing.T, m *machine) { m.mkdir(t, m.path("state"), 0o755) }, "state", Warn, "0755", "chmod 700"},
		"state, writable": {func(t *testing.T, m *machine) { m.mkdir(t, m.path("state"), 0o777) }, "state", Fail, "0777", "chmod 700"},
		"state, a file":   {func(t *testing.T, m *machine) { m.write(t, m.path("state"), "", 0o600) }, "state", Fail, "no folder", "--state"},
		"journal":         {nil, "journal", OK, "0 B of 16.0 MiB", ""},
		"journal, nearly": {journalOf(14 << 20), "journal", Warn, "nearly full", "nats"},
		"journal, full":   {journalOf(17 << 20), "journal", Fail, "it is full", "nats"},
		"journal, little room": {func(t *testing.T, m *machine) {
			m.mkdir(t, m.path("state"), 0o700)
			mount(t, "tmpfs", m.path("state")) // two megabytes
		}, "journal", Warn, "full before the journal is", "make room"},
		"daemon, none":    {nil, "daemon", Warn, "there is no", "chaperone up"},
		"daemon":          {serve, "daemon", OK, "it answers", ""},
		"daemon, dead":    {leaveSocket, "daemon", Warn, "is gone", "chaperone up"},
		"documents, few":  {nil, "documents", Warn, "no Target", "configuration.md"},
		"documents, none": {func(_ *testing.T, m *machine) { m.more = "  nonsense: 1\n" }, "documents", Fail, "all.yaml:", "correct the documents"},
		"secrets, none":   {nil, "secret files", Skip, "no secret", ""},
		"secrets":         {adminFile(0o640), "secret files", OK, "1 file", ""},
		"secrets, open":   {adminFile(0o644), "secret files", Fail, "0644", "chmod 600"},
		"secrets, owner": {func(t *testing.T, m *machine) {
			adminFile(0o600)(t, m)
			if err := os.Chown(m.path("admin.dsn"), 65534, 0); err != nil {
				t.Fatal(err)
			}
		}, "secret files", Fail, "uid 65534", "chown root"},
		"secrets, absent": {func(t *testing.T, m *machine) {
			adminFile(0o600)(t, m)
			if err := os.Remove(m.path("admin.dsn")); err != nil {
				t.Fatal(err)
			}
		}, "secret files", Fail, "no such file", "put "},
		"secrets, NATS key": {func(t *testing.T, m *machine) {
			m.write(t, m.path("node.nk"), "x", 0o644)
			m.node["nats"] = fmt.Sprintf("{url: %q, nkeyFile: %q}", "nats://127.0.0.1:9", m.path("node.nk"))
		}, "secret files", Warn, "NATS key", "chmod 600"},
		"secrets, node's key": {func(t *testing.T, m *machine) {
			m.mkdir(t, m.path("state", "keys"), 0o700)
			m.write(t, m.path("state", "keys", "node.key"), "x", 0o640)
		}, "secret files", Fail, "key of the node", "chmod 600"},
		"secrets, token": {func(t *testing.T, m *machine) {
			tokenFile(t, m)
			m.write(t, m.path("token"), "x", 0o644)
		}, "secret files", Warn, "token of workload nightly", "chmod 600"},
		"secrets, no token yet": {tokenFile, "secret files", OK, "1 file", ""},
		"CA files, none":        {nil, "CA files", Skip, "the system's", ""},
		"CA files, absent": {func(t *testing.T, m *machine) {
			m.node["nats"] = fmt.Sprintf("{url: %q, caFile: %q}", "nats://127.0.0.1:9", m.path("none.pem"))
		}, "CA files", Warn, "no such file", "PEM"},
		"CA files, empty": {func(t *testing.T, m *machine) {
			m.write(t, m.path("none.pem"), "no certificate", 0o644)
			m.node["nats"] = fmt.Sprintf("{url: %q, caFile: %q}", "nats://127.0.0.1:9", m.path("none.pem"))
		}, "CA files", Warn, "no PEM certificate", "PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			m := local(t)
			if test.before != nil {
				test.before(t, m)
			}
			want(t, m.diagnose(t, test.check), test.status, test.text, test.do)
		})
	}
}

// What the verifier says of a program that it refuses is shown where it ends.
func TestRefusalOfTheVerifier(t *testing.T) {
	_, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Reg(asm.R0, asm.R7), asm.Return()},
	})
	want(t, loadResult(nil, err), Fail, "R7 !read_ok", "Linux 6.1")
}

func TestOptional(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		status Status
		text   string
	}{
		"there":   {nil, OK, "has it"},
		"refused": {fmt.Errorf("load program: %w (and what not)", unix.EPERM), Warn, "(operation not permitted): packets are lost"},
		"unknown": {ebpf.ErrNotSupported, Warn, "(not supported): packets are lost"},
	} {
		t.Run(name, func(t *testing.T) {
			check := optional(func() error { return test.err }, "packets are lost", "nothing")
			want(t, check(t.Context(), nil), test.status, test.text, "")
		})
	}
	// What this kernel has is not known here, but each is tried and named.
	for _, p := range intercept.OptionalPrograms() {
		r := local(t).diagnose(t, "optional "+p.Name)
		if r.Status != OK && (r.Status != Warn || !strings.Contains(r.Missing, p.Lost)) {
			t.Errorf("%+v", r)
		}
	}
}

func TestNoFolderOfDocuments(t *testing.T) {
	results, err := Run(t.Context(), Options{Config: filepath.Join(t.TempDir(), "none"), State: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Check == "documents" {
			want(t, r, Fail, "no such file", "correct the documents")
		}
		if r.Check == "" || r.Status == "" || r.Status == Fail && r.Do == "" {
			t.Errorf("%+v", r)
		}
	}
}

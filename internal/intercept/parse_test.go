package intercept

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/procfs"
)

func TestCgroupMounts(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"alone", `24 30 0:22 / /proc rw,nosuid - proc proc rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
36 24 0:31 / /sys/fs/bpf rw,nosuid - bpf bpf rw,mode=700
`, []string{"/sys/fs/cgroup"}},
		{"beside version 1", `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:3 master:1 - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`, []string{"/sys/fs/cgroup/unified"}},
		{"escaped, and a part of the hierarchy", `50 1 0:38 /../.. /mnt/a\040b\134c rw - cgroup2 none rw
51 1 0:38 / /host rw - cgroup2 none rw`, []string{`/mnt/a b\c`, "/host"}},
		{"version 1 only", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", nil},
		{"nothing", "", nil},
		{"no mountinfo", "a - cgroup2\n - \n-\ncgroup2\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := cgroupMounts(strings.NewReader(c.text))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

func FuzzCgroupMounts(f *testing.F) {
	f.Add("41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n")
	f.Add(`50 1 0:38 /../.. /mnt/a\040b\13 rw - cgroup2 none rw`)
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := cgroupMounts(strings.NewReader(text))
		if err == nil && len(mounts) > strings.Count(text, "cgroup2") {
			t.Errorf("%d mounts of %q", len(mounts), text)
		}
	})
}

func TestStartTicks(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	for _, c := range []struct {
		stat string
		want uint64
		ok   bool
	}{
		{"7 (psql)" + tail, 4242, true},
		{"7 (a) S (b) 99" + ")" + tail, 4242, true},
		{"7 (psql) S 1 2", 0, false},
		{"7 psql S 1 2", 0, false},
		{"7 (psql)" + strings.Replace(tail, "4242", "99999999999999999999", 1), 0, false},
		{"", 0, false},
	} {
		if got, ok := startTicks([]byte(c.stat)); got != c.want || ok != c.ok {
			t.Errorf("%q: %d %t, want %d %t", c.stat, got, ok, c.want, c.ok)
		}
	}
}

func FuzzStartTicks(f *testing.F) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stat)
	f.Fuzz(func(t *testing.T, stat []byte) {
		if ticks, ok := startTicks(stat); !ok && ticks != 0 {
			t.Errorf("%d ticks of %q, which has none", ticks, stat)
		}
	})
}

// A process is told by when it started, not by its PID alone.
func TestLook(t *testing.T) {
	ticks, ok := startTicks(mustRead(t, "/proc/self/stat"))
	if !ok {
		t.Fatal("no start time of this process")
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	started := ticks * nsPerTick
	cgroup, ok := procfs.Cgroup(mustRead(t, "/proc/self/cgroup"))
	if !ok {
		t.Fatal("no cgroup of this process")
	}
	if executable, in := look("/proc/self", started); executable != self || in != cgroup {
		t.Errorf("executable %q in %q, want %q in %q", executable, in, self, cgroup)
	}
	if executable, in := look("/proc/self", started+nsPerTick); executable != "" || in != "" {
		t.Errorf("executable %q in %q of a process that started at another time", executable, in)
	}
	if executable, in := look("/proc/0", started); executable != "" || in != "" {
		t.Errorf("executable %q in %q of no process", executable, in)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSocketNames(t *testing.T) {
	for _, c := range []struct {
		kind     uint8
		protocol uint16
		want     string
	}{
		{1, 6, "tcp"}, {2, 17, "udp"}, {3, 6, "raw"}, {3, 255, "raw"}, {1, 262, "mptcp"},
		{1, 132, "sctp"}, {6, 33, "dccp"}, {2, 58, "icmp"}, {0, 253, "protocol 253"},
	} {
		if got := socketName(unix.AF_INET, c.kind, c.protocol); got != c.want {
			t.Errorf("type %d protocol %d: %q, want %q", c.kind, c.protocol, got, c.want)
		}
	}
}

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		ancestor, path string
		want           bool
	}{
		{"/a", "/a/b", true}, {"/a", "/a/b/c", true}, {"/a", "/a", false}, {"/a", "/ab", false},
		{"/a/b", "/a", false}, {"/", "/a", true}, {"/a", "/a/..b", true}, {"/a", "b", false},
	} {
		if got := below(c.ancestor, c.path); got != c.want {
			t.Errorf("%s below %s: %t, want %t", c.path, c.ancestor, got, c.want)
		}
	}
}

package procfs

import (
	"slices"
	"strings"
	"testing"
)

func TestCgroup(t *testing.T) {
	for _, c := range []struct {
		text, path string
		ok         bool
	}{
		{"0::/\n", "/", true},
		{"0::/a/b\n", "/a/b", true},
		{"0::/a", "/a", true},
		{"12:cpu:/x\n0::/a b\n", "/a b", true},
		{"10::/x\n", "", false},
		{"1:name=systemd:/x\n", "", false},
		{"", "", false},
	} {
		if path, ok := Cgroup([]byte(c.text)); path != c.path || ok != c.ok {
			t.Errorf("%q: %q, %t, want %q, %t", c.text, path, ok, c.path, c.ok)
		}
	}
}

func TestMounts(t *testing.T) {
	const text = `22 27 0:20 / /proc rw - proc proc rw
30 25 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup2 rw
31 25 0:27 / /with\040space\134\011x rw - bpf none rw,mode=700
too short - bpf none
33 25 0:27 / /no/separator rw bpf none
`
	got, err := Mounts(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mount{{"/proc", "proc"}, {"/sys/fs/cgroup", "cgroup2"}, {"/with space\\\tx", "bpf"}}
	if !slices.Equal(got, want) {
		t.Errorf("mounts %q, want %q", got, want)
	}
	if _, err := Mounts(strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line without end was read")
	}
}

package lab_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"chaperone.dev/chaperone/internal/lab"
)

func TestCgroupRemovesItselfWithAllInside(t *testing.T) {
	group, err := lab.NewCgroup("chaperone-lab-test")
	if err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(group.Path, "a", "b")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "1000")
	folder, err := os.Open(below)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	child.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd()), Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- child.Wait() }()
	if err := group.Add(os.Getpid()); err != nil {
		t.Fatal(err)
	}

	if err := group.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := <-waited; !errors.As(err, &exit) {
		t.Errorf("the process inside ended with %v, want it killed", err)
	}
	if _, err := os.Stat(group.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(own), filepath.Base(group.Path)) {
		t.Error("the calling process wasn't moved out")
	}
	if err := group.Remove(t.Context()); err != nil {
		t.Errorf("removing twice: %v", err)
	}
}

func TestCgroupRefusesAPath(t *testing.T) {
	for _, name := range []string{"", "a/b", "../x"} {
		if _, err := lab.NewCgroup(name); err == nil {
			t.Errorf("%q was accepted", name)
		}
		if _, err := lab.NewNamedCgroup(name); err == nil {
			t.Errorf("%q was accepted for the whole name", name)
		}
	}
}

func TestNamedCgroupIsNobodyElses(t *testing.T) {
	fresh, err := lab.NewCgroup("chaperone-lab-test.slice")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(fresh.Path)
	if !strings.HasSuffix(name, ".slice") {
		t.Errorf("the slice's name is %s", name)
	}
	if _, err := lab.NewNamedCgroup(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("one that is there already: %v", err)
	}
	if err := fresh.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	named, err := lab.NewNamedCgroup(name)
	if err != nil {
		t.Fatal(err)
	}
	if named.Path != fresh.Path {
		t.Errorf("it is at %s, not at %s", named.Path, fresh.Path)
	}
	if err := named.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
}

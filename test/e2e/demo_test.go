package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestDemo(t *testing.T) {
	// The server's own user reaches what is in it.
	dir, err := os.MkdirTemp("", "chaperone-e2e-demo-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	before := traces(t)
	cmd := exec.CommandContext(t.Context(), binary, "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "steps did what they said") {
		t.Errorf("it does not say that it is done:\n%s", out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left files: %v, %v", left, err)
	}
	for _, trace := range traces(t) {
		// One whose maker lives is another run's: the demonstration has ended.
		if !slices.Contains(before, trace) && !makerLives(trace) {
			t.Errorf("left %s", trace)
		}
	}
}

// makerLives tells whether the process that is named in a trace, "…-PID-RANDOM", runs.
func makerLives(trace string) bool {
	parts := strings.Split(filepath.Base(trace), "-")
	if len(parts) < 3 {
		return false
	}
	pid, err := strconv.Atoi(parts[len(parts)-2])
	return err == nil && syscall.Kill(pid, 0) == nil
}

// traces are what a demonstration makes outside of files.
func traces(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/sys/fs/bpf/chaperone*", "/sys/fs/cgroup/chaperone-stage-*", "/sys/fs/cgroup/unified/chaperone-stage-*"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, matches...)
	}
	return found
}

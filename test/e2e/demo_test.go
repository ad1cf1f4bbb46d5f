package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDemo(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), binary, "demo")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "steps did what they said") {
		t.Errorf("it does not say that it is done:\n%s", out)
	}
	for _, pattern := range []string{"/sys/fs/bpf/chaperone*", "/tmp/chaperone-demo-*", "/sys/fs/cgroup/chaperone-stage-*", "/sys/fs/cgroup/unified/chaperone-stage-*"} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

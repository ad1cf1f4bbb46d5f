package e2e

import (
	"os"
	"os/exec"
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
	left, _ := os.ReadDir("/sys/fs/bpf")
	if len(left) > 0 {
		t.Errorf("left in bpffs: %v", left)
	}
}

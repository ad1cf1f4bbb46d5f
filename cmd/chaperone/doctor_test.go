package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"chaperone.dev/chaperone/internal/lab"
)

// doctorRun is a run of the real binary.
type doctorRun struct {
	code        int
	out, errors string
}

func runDoctor(t *testing.T, binary string, uid uint32, args ...string) doctorRun {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"doctor"}, args...)...)
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return doctorRun{cmd.ProcessState.ExitCode(), out.String(), complaint.String()}
}

// diagnosis is a row of --json.
type diagnosis struct {
	Check, Status, Found, Missing, Do *string
}

func (r doctorRun) diagnoses(t *testing.T) []diagnosis {
	t.Helper()
	var rows []diagnosis
	decoder := json.NewDecoder(strings.NewReader(r.out))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&rows); err != nil {
		t.Fatalf("%v in %s", err, r.out)
	}
	for _, row := range rows {
		if row.Check == nil || row.Status == nil || row.Found == nil || row.Missing == nil || row.Do == nil ||
			!slices.Contains([]string{"ok", "warn", "fail", "skip"}, *row.Status) {
			t.Errorf("row %+v", row)
		}
	}
	return rows
}

func TestDoctor(t *testing.T) {
	dir, err := os.MkdirTemp("", "chaperone-doctor-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// Another user runs it, too.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "chaperone")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	port, err := lab.FreePort(t.Context(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(dir)
	good := fmt.Sprintf(`apiVersion: chaperone.dev/v1alpha1
kind: Node
spec: {cgroup: %[1]q, pinDir: "/sys/fs/bpf/%[1]s", listenPort: %d, runDir: %q}
`, name, port, filepath.Join(dir, "run"))
	config := func(name, text string) string {
		folder := filepath.Join(dir, name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "node.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return folder
	}
	fine, broken := config("fine", good), config("broken", good+"nonsense: 1\n")
	state := filepath.Join(dir, "state")

	for name, test := range map[string]struct {
		args   []string
		code   int
		out    string
		errors string
	}{
		"nothing failed":    {[]string{"--config", fine, "--state", state}, 0, "warn  daemon", ""},
		"a check failed":    {[]string{"--config", broken, "--state", state}, 1, "node.yaml:4", "checks failed"},
		"no documents":      {[]string{"--config", filepath.Join(dir, "none"), "--state", state}, 1, "fail  documents", "checks failed"},
		"unknown flag":      {[]string{"--fix"}, 2, "", "--fix"},
		"argument":          {[]string{"please"}, 2, "", "please"},
		"flag without text": {[]string{"--config"}, 2, "", "--config"},
	} {
		t.Run(name, func(t *testing.T) {
			got := runDoctor(t, binary, 0, test.args...)
			if got.code != test.code || !strings.Contains(got.out, test.out) || !strings.Contains(got.errors, test.errors) {
				t.Errorf("exit code %d, want %d\n%s%s", got.code, test.code, got.out, got.errors)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		var before []string
		for range 2 {
			var order []string
			got := runDoctor(t, binary, 0, "--config", broken, "--state", state, "--json")
			if got.code != 1 {
				t.Errorf("exit code %d", got.code)
			}
			for _, row := range got.diagnoses(t) {
				order = append(order, *row.Check)
			}
			if before != nil && !slices.Equal(before, order) {
				t.Errorf("order %q, then %q", before, order)
			}
			before = order
		}
	})
	t.Run("as another user", func(t *testing.T) {
		got := runDoctor(t, binary, 65534, "--config", fine, "--state", state, "--json")
		if got.code != 0 {
			t.Errorf("exit code %d\n%s", got.code, got.out)
		}
		unseen := 0
		for _, row := range got.diagnoses(t) {
			if *row.Status == "skip" && strings.Contains(*row.Do, "as root") {
				unseen++
			}
		}
		if unseen < 5 {
			t.Errorf("it says of %d checks that it can't see\n%s", unseen, got.out)
		}
	})
	t.Run("changes nothing", func(t *testing.T) {
		root, err := lab.CgroupMount()
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{state, filepath.Join(dir, "run"), filepath.Join(root, name), filepath.Join("/sys/fs/bpf", name)} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

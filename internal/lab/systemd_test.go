package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
)

// startSystemd boots a system in a cgroup of its own.
func startSystemd(t *testing.T, options lab.SystemdOptions) *lab.Systemd {
	t.Helper()
	group, err := lab.NewCgroup("chaperone-lab-systemd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := group.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	options.Cgroup = group.Path
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	system, err := lab.StartSystemd(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := system.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		entries, err := os.ReadDir(group.Path)
		if err != nil {
			t.Error(err)
		}
		for _, entry := range entries {
			if entry.IsDir() {
				t.Errorf("cgroup %s was left", entry.Name())
			}
		}
	})
	return system
}

func systemctl(t *testing.T, system *lab.Systemd, args ...string) string {
	t.Helper()
	out, err := system.Systemctl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func TestSystemdRunsUnitsBelowTheCgroup(t *testing.T) {
	before := systemdOutside(t)
	var log bytes.Buffer
	system := startSystemd(t, lab.SystemdOptions{Log: &log, Units: map[string]string{
		"planner@.service": "[Service]\nType=exec\nExecStart=/bin/sleep 1000\n",
	}})
	systemctl(t, system, "start", "planner@x.service")
	folder := filepath.Join(system.CgroupPath(), "system.slice/system-planner.slice/planner@x.service")
	procs, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	comm, err := os.ReadFile("/proc/" + strings.TrimSpace(string(procs)) + "/comm")
	if err != nil || string(comm) != "sleep\n" {
		t.Errorf("the unit's cgroup holds %q (%v), want sleep", comm, err)
	}
	// Inside, the cgroup is the root.
	if got, want := systemctl(t, system, "show", "-P", "ControlGroup", "planner@x.service"),
		"/system.slice/system-planner.slice/planner@x.service"; got != want {
		t.Errorf("ControlGroup is %s, want %s", got, want)
	}

	mark := filepath.Join(t.TempDir(), "mark")
	if err := system.WriteUnit(t.Context(), "later.service",
		"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo $$(id -u) > "+mark+"'\n"); err != nil {
		t.Fatal(err)
	}
	systemctl(t, system, "start", "later.service")
	if body, err := os.ReadFile(mark); err != nil || string(body) != "0\n" {
		t.Errorf("the later unit wrote %q (%v)", body, err)
	}
	if state := systemctl(t, system, "is-system-running"); state != "running" {
		t.Errorf("the system is %s, want running", state)
	}
	if after := systemdOutside(t); after != before {
		t.Errorf("the machine changed:\n%s\nbefore:\n%s", after, before)
	}
	if err := system.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "Started planner@x.service") {
		t.Errorf("the log doesn't tell of the unit:\n%s", log.String())
	}
}

// systemdOutside is what a systemd changes on a machine that it boots.
func systemdOutside(t *testing.T) string {
	t.Helper()
	var state string
	for _, path := range []string{"/proc/sys/fs/file-max", "/proc/sys/fs/nr_open", "/proc/sys/kernel/hostname",
		"/proc/sys/net/unix/max_dgram_qlen", "/etc/machine-id", "/proc/self/mountinfo", "/proc/1/cgroup"} {
		body, err := os.ReadFile(path)
		state += fmt.Sprintf("%s: %s (%v)\n", path, body, err)
	}
	return state
}

func TestSystemdCommandRunsInside(t *testing.T) {
	system := startSystemd(t, lab.SystemdOptions{})
	out, err := system.Command(t.Context(), "sh", "-c", "cat /proc/1/comm; grep ^0:: /proc/self/cgroup; ls /sys/class/net").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want := "systemd\n0::/init.scope\nlo\n"; string(out) != want {
		t.Errorf("inside there is %q, want %q", out, want)
	}
	if _, err := system.Systemctl(t.Context(), "start", "ssh.service"); err == nil {
		t.Error("the machine's own units can be started")
	}
	out, err = system.Command(t.Context(), "touch", "/etc/chaperone-lab-was-here").CombinedOutput()
	if err == nil {
		os.Remove("/etc/chaperone-lab-was-here")
		t.Errorf("the machine's files can be written: %s", out)
	}

	ctx, cancel := context.WithCancel(t.Context())
	long := system.Command(ctx, "sh", "-c", "echo ready; sleep 1000")
	stdout, err := long.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := long.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := long.Wait(); err == nil {
		t.Error("the command outlived its context")
	}
}

func TestSystemdSharesTheNetworkWhenAsked(t *testing.T) {
	system := startSystemd(t, lab.SystemdOptions{SharedNetwork: true})
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.Readlink("/proc/" + strconv.Itoa(system.PID()) + "/ns/net")
	if err != nil || got != own {
		t.Errorf("the network namespace is %s (%v), want our %s", got, err, own)
	}
}

func TestSystemdSaysWhyItDoesNotStart(t *testing.T) {
	if _, err := lab.StartSystemd(t.Context(), lab.SystemdOptions{}); err == nil {
		t.Error("started without a cgroup")
	}
	group, err := lab.NewCgroup("chaperone-lab-systemd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := group.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	_, err = lab.StartSystemd(t.Context(), lab.SystemdOptions{Cgroup: group.Path, Units: map[string]string{"../x.service": ""}})
	if err == nil || !strings.Contains(err.Error(), "../x.service") {
		t.Errorf("a unit outside the folder: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lab.StartSystemd(ctx, lab.SystemdOptions{Cgroup: group.Path}); err == nil {
		t.Error("started after the context's end")
	}
}

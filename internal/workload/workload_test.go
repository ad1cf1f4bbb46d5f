package workload

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/pkg/policy"
)

// enforcer records marks; what they do in the kernel is tested with the programs.
type enforcer struct {
	mu     sync.Mutex
	marked map[uint64]bool
	fail   error
}

func (e *enforcer) EnrollAs(cgroup string, _ uint32) (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail != nil {
		return 0, e.fail
	}
	id, err := cgroupID(cgroup)
	e.marked[id] = true
	return id, err
}

func (e *enforcer) Withdraw(id uint64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.marked, id)
	return nil
}

func (e *enforcer) marks() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.marked)
}

type fixture struct {
	*Registry
	enforcer *enforcer
	ended    chan string
	cgroups  string
	dir      string
}

// start opens a registry and runs it until stop is called.
func start(t *testing.T, cgroups, dir string) (f fixture, stop func()) {
	t.Helper()
	f = fixture{enforcer: &enforcer{marked: map[uint64]bool{}}, ended: make(chan string, 16), cgroups: cgroups, dir: dir}
	var err error
	f.Registry, err = Open(Options{
		Cgroups: cgroups, Dir: dir, Enforcer: f.enforcer, Log: zerolog.Nop(),
		Ended: func(_ context.Context, job Job, why string) { f.ended <- job.Name + " " + why },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return f, stop
}

func folders(t *testing.T) (cgroups, dir string) {
	t.Helper()
	cgroup, err := lab.NewCgroup("workload")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cgroup.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return cgroup.Path, t.TempDir()
}

// planner starts a shell that waits for a line, then runs the script.
func planner(t *testing.T, script string) (process *exec.Cmd, release func()) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read line; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, func() { in.Write([]byte("go\n")) }
}

func (f fixture) mustStart(t *testing.T, name string, process *exec.Cmd) Job {
	t.Helper()
	job, err := f.Start(Request{Name: name, Principal: policy.Principal{Subject: "me"}, UID: uint32(os.Getuid()), PID: process.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func (f fixture) wantEnd(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-f.ended:
		if got != want {
			t.Fatalf("ended %q, want %q", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("no end of %q", want)
	}
}

func TestJobLivesAsLongAsAnyOfItsProcesses(t *testing.T) {
	cgroups, dir := folders(t)
	f, stop := start(t, cgroups, dir)
	// The first process ends at once; its child, in a session of its own, is
	// what the job lives for.
	marker := filepath.Join(t.TempDir(), "child")
	process, release := planner(t, "setsid sleep 1000 & echo $! > "+marker+".new; mv "+marker+".new "+marker)
	job := f.mustStart(t, "nightly", process)
	if got, ok := f.ByCgroup(job.CgroupID); !ok || got.ID != job.ID {
		t.Fatalf("by cgroup: %+v, %v", got, ok)
	}
	if inside, err := Inside(process.Process.Pid, f.cgroups); err != nil || !inside {
		t.Fatalf("inside: %v, %v", inside, err)
	}
	if inside, err := Inside(os.Getpid(), f.cgroups); err != nil || inside {
		t.Fatalf("the test is inside: %v, %v", inside, err)
	}
	release()
	process.Wait()
	body, err := os.ReadFile(marker)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := f.ByCgroup(job.CgroupID); !ok {
		t.Error("the job ended with its first process")
	}
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.wantEnd(t, "nightly job_ended")
	stop()
	if _, ok := f.ByCgroup(job.CgroupID); ok || f.enforcer.marks() != 0 {
		t.Error("the ended job is still known")
	}
	if _, err := os.Stat(job.Cgroup); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its cgroup: %v", err)
	}
	if left, _ := os.ReadDir(f.dir); len(left) != 0 {
		t.Errorf("it is still kept: %v", left)
	}
}

func TestJobsAreTakenUpAgain(t *testing.T) {
	cgroups, dir := folders(t)
	f, stop := start(t, cgroups, dir)
	living, release := planner(t, "exit 0")
	dying, releaseDying := planner(t, "exit 0")
	alive := f.mustStart(t, "alive", living)
	dead := f.mustStart(t, "dead", dying)
	stop()
	releaseDying()
	dying.Wait()
	if err := os.Remove(dead.Cgroup); err != nil {
		t.Fatal(err)
	}

	f, _ = start(t, cgroups, dir)
	f.wantEnd(t, "dead recovered")
	if job, ok := f.ByCgroup(alive.CgroupID); !ok || job.Principal.Subject != "me" {
		t.Fatalf("the living job was not taken up: %+v", job)
	}
	release()
	f.wantEnd(t, "alive job_ended")
}

func TestStartRefuses(t *testing.T) {
	cgroups, dir := folders(t)
	f, _ := start(t, cgroups, dir)
	process, _ := planner(t, "exit 0")
	pid, uid := process.Process.Pid, uint32(os.Getuid())

	for name, test := range map[string]struct {
		request Request
		fail    error
		want    string
	}{
		"another user's process": {Request{Name: "a", PID: pid, UID: uid + 1}, nil, "belongs to uid"},
		"no process":             {Request{Name: "a", PID: 0, UID: uid}, nil, "another pid namespace"},
		"not enrolled":           {Request{Name: "a", PID: pid, UID: uid}, errors.New("map is full"), "may not start: map is full"},
	} {
		f.enforcer.fail = test.fail
		if _, err := f.Start(test.request); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if len(f.Jobs()) != 0 {
		t.Errorf("jobs: %v", f.Jobs())
	}
	if inside, _ := Inside(pid, cgroups); inside {
		t.Error("a refused process was moved")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("kept: %v", left)
	}
}

func TestDamagedJobStopsTheStart(t *testing.T) {
	cgroups, dir := folders(t)
	if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Options{Cgroups: cgroups, Dir: dir, Enforcer: &enforcer{marked: map[uint64]bool{}}})
	if err == nil || !strings.Contains(err.Error(), "x.json is damaged") {
		t.Errorf("error %v", err)
	}
}

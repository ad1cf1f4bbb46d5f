package bypass

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/lab"
)

var (
	killFor      = flag.Duration("kill-for", 0, "go on to kill the daemon for that long")
	patienceFlag = flag.Int("patience", patience, "ms to wait for what may never come")
)

// world is all that a row needs.
type world struct {
	base     string
	ancestor string
	jobs     string
	stranger string // below the ancestor, not enrolled
	outside  string // beside the ancestor
	made     int    // jobs, so far
	setup    daemonSetup
	db, pod  string
	target   place
	twin     place
	stop     string
	early    reply // what a row has been told already
	judge    *judge
	daemon   *daemon
	beacon   *beacon
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db, err := newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	pod, err := newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	if err := buildNetwork(db, pod); err != nil {
		t.Fatalf("build the network: %v", err)
	}
	base, err := lab.NewCgroup("chaperone-bypass")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		base:     base.Path,
		ancestor: filepath.Join(base.Path, "ancestor"),
		jobs:     filepath.Join(base.Path, "ancestor", "jobs"),
		stranger: filepath.Join(base.Path, "ancestor", "stranger"),
		outside:  filepath.Join(base.Path, "outside"),
		db:       path(db), pod: path(pod),
		stop: filepath.Join(t.TempDir(), "stop"),
	}
	w.setup = daemonSetup{Ancestor: w.ancestor, Pins: "/sys/fs/bpf/bypass", Namespaces: []string{w.pod}, Uplinks: []string{"n-db"}}
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else each process would wait a second for reports
	t.Cleanup(func() {
		if err := intercept.Detach(w.setup.Pins); err != nil {
			t.Errorf("detach: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := base.Remove(ctx); err != nil {
			t.Error(err)
		}
		if err := removeNetwork(); err != nil {
			t.Errorf("remove the network: %v", err)
		}
		db.Close()
		pod.Close()
	})
	for _, d := range []string{w.jobs, w.stranger, w.outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.judge = newJudge(t, w.db)
	w.target, w.twin = startServers(t, w.db, w.judge)
	w.daemon = startDaemon(t, w.setup)
	t.Logf("optional programs that are not in force: %q", w.daemon.ready.Missing)
	t.Cleanup(func() { w.daemon.stop(t) })
	w.beacon = w.startBeacon(t)
	t.Cleanup(func() { w.beacon.stop(t) })
	return w
}

// has says whether what closes a row is in force.
func (w *world) has(closer string) bool {
	switch closer {
	case "":
		return false
	case withNodeBelt:
		return w.setup.NodeBelt
	case asRun:
		return false
	}
	return !slices.Contains(w.daemon.ready.Missing, closer)
}

// belted restarts the daemon with the node's belt: at the root of the machine's
// hierarchy, where the machine is the test's own, else at that of the test's.
func (w *world) belted(t testing.TB) {
	t.Helper()
	w.setup.NodeBelt = true
	if os.Getenv("CHAPERONE_TEST_WHOLE_MACHINE") == "" {
		w.setup.BeltCgroup = w.base
	}
	w.daemon.stop(t)
	w.restart(t)
}

// restart starts the daemon that a row has ended.
func (w *world) restart(t testing.TB) {
	t.Helper()
	w.daemon = startDaemon(t, w.setup)
}

// captures are what the product captures: the target's port, on any address.
func captures() []intercept.Capture {
	all := []intercept.Capture{{Addr: marker.Addr(), Port: marker.Port(), Action: intercept.Redirect}}
	return append(all, intercept.Capture{Port: target.Port, Action: intercept.Redirect})
}

// tell asks the daemon for all that was reported until now.
func (w *world) tell(t testing.TB) reply {
	t.Helper()
	all := w.early
	w.early = reply{}
	for range 3 { // a marker can get lost, as any report can
		marks := w.daemon.do(t, order{Op: "mark"}).Marks
		w.beacon.mark(t)
		r := w.daemon.do(t, order{Op: "tell", Marks: marks})
		all.Seen, all.Sessions = append(all.Seen, r.Seen...), append(all.Sessions, r.Sessions...)
		if !r.Late {
			return all
		}
		t.Logf("a marker was not reported within %s", tellTimeout)
	}
	t.Fatal("no marker was reported")
	return all
}

// newJob makes a cgroup of its own for a row, so that reports are told apart.
func (w *world) newJob(t testing.TB) (path string, id uint64) {
	t.Helper()
	w.made++
	path = filepath.Join(w.jobs, fmt.Sprint(w.made))
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path, w.daemon.do(t, order{Op: "enroll", Path: path}).ID
}

func (w *world) endJob(t testing.TB, path string, id uint64) {
	t.Helper()
	w.daemon.do(t, order{Op: "withdraw", ID: id})
	w.removeCgroup(t, path)
}

func (w *world) removeCgroup(t testing.TB, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := (&lab.Cgroup{Path: path}).Remove(ctx); err != nil {
		t.Error(err)
	}
}

// runControl runs a row's attack where nothing is enforced.
func (w *world) runControl(t testing.TB, r row) (answer, int) {
	t.Helper()
	w.made++
	job := filepath.Join(w.outside, fmt.Sprint(w.made))
	if err := os.Mkdir(job, 0o755); err != nil {
		t.Fatal(err)
	}
	defer w.removeCgroup(t, job)
	before, _ := w.judge.count(false)
	defer w.judge.nextRow()
	if r.from != fromJob {
		r.from = fromOutside
	}
	got := w.perform(t, r, w.twin, job, false)
	w.judge.sync(t)
	hits, _ := w.judge.count(false)
	return got, hits - before
}

// perform runs a row's attack in a process of its own.
func (w *world) perform(t testing.TB, r row, at place, job string, confined bool) answer {
	t.Helper()
	start := job
	switch r.from {
	case fromStranger:
		start = w.stranger
	case fromOutside:
		start = w.outside
	case fromNew:
		start = filepath.Join(w.jobs, "new")
		if err := os.Mkdir(start, 0o755); err != nil {
			t.Fatal(err)
		}
		defer w.removeCgroup(t, start)
	}
	arg, err := json.Marshal(aim{
		place: at, Job: job, Stranger: w.stranger, Home: w.outside, Pod: w.pod, DB: w.db, InPod: r.inPod,
		Pins: w.setup.Pins, Stop: w.stop, Patience: *patienceFlag, Confined: confined,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Duration(*patienceFlag)*time.Millisecond+*killFor)
	defer cancel()
	cmd, release := planner(ctx, t, start, r.name, string(arg))
	defer release()
	if r.user {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, complaint.String())
	}
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	return a
}

// planner is a command that starts inside a cgroup.
func planner(ctx context.Context, t testing.TB, cgroup string, args ...string) (cmd *exec.Cmd, release func()) {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(ctx, "/proc/self/exe", append([]string{"planner"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: 0}
	return cmd, func() { dir.Close() }
}

// beacon is a planner that sends the marker.
type beacon struct {
	cmd *exec.Cmd
	in  *os.File
	out *os.File
}

func (w *world) startBeacon(t testing.TB) *beacon {
	t.Helper()
	job, _ := w.newJob(t)
	w.daemon.do(t, order{Op: "capture", Captures: captures()})
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd, release := planner(context.Background(), t, job, "beacon", "{}")
	defer release()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inRead, outWrite, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inRead.Close()
	outWrite.Close()
	return &beacon{cmd, inWrite, outRead}
}

func (b *beacon) mark(t testing.TB) {
	t.Helper()
	if _, err := b.in.Write([]byte{1}); err != nil {
		t.Fatalf("beacon: %v", err)
	}
	if _, err := unix.Read(int(b.out.Fd()), make([]byte, 1)); err != nil {
		t.Fatalf("beacon: %v", err)
	}
}

func (b *beacon) stop(t testing.TB) {
	t.Helper()
	b.in.Close()
	b.out.Close()
	if err := b.cmd.Wait(); err != nil {
		t.Errorf("beacon: %v", err)
	}
}

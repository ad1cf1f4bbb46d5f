package cgroupwatch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	"chaperone.dev/chaperone/internal/workload/cgroupwatch"
)

// slices descends into folders whose names end so.
func slices(below string) bool { return strings.HasSuffix(below, ".slice") }

// event is what the watcher told.
type event struct {
	added bool
	cgroupwatch.Cgroup
}

func (e event) String() string {
	if e.added {
		return "+" + e.Below
	}
	return "-" + e.Below
}

type fixture struct {
	*testing.T
	root    string
	events  chan event
	watcher *cgroupwatch.Watcher
	done    chan error
	stop    context.CancelFunc
}

// newRoot makes a cgroup that goes with the test.
func newRoot(t *testing.T) string {
	t.Helper()
	group, err := lab.NewCgroup("cgroupwatch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := group.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return group.Path
}

// watch runs a watcher of the root. Options may be set by adjust.
func watch(t *testing.T, root string, adjust func(*cgroupwatch.Options)) *fixture {
	t.Helper()
	f := &fixture{T: t, root: root, events: make(chan event, 1<<16), done: make(chan error, 1)}
	opts := cgroupwatch.Options{
		Root: root, Descend: slices, Rescan: time.Hour,
		Added:   func(c cgroupwatch.Cgroup) { f.events <- event{true, c} },
		Removed: func(c cgroupwatch.Cgroup) { f.events <- event{false, c} },
		Log:     zerolog.Nop(),
	}
	if adjust != nil {
		adjust(&opts)
	}
	var err error
	if f.watcher, err = cgroupwatch.New(opts); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		f.done <- f.watcher.Run(ctx)
	}()
	f.stop = cancel
	t.Cleanup(func() {
		cancel()
		<-finished
	})
	return f
}

func (f *fixture) ready() {
	f.Helper()
	select {
	case <-f.watcher.Ready():
	case err := <-f.done:
		f.Fatalf("the watcher ended: %v", err)
	case <-time.After(20 * time.Second):
		f.Fatal("the watcher isn't ready")
	}
}

// next is the next event.
func (f *fixture) next() event {
	f.Helper()
	select {
	case e := <-f.events:
		return e
	case err := <-f.done:
		f.Fatalf("the watcher ended: %v", err)
	case <-time.After(20 * time.Second):
		f.Fatal("nothing was told")
	}
	return event{}
}

func (f *fixture) expect(want ...string) []event {
	f.Helper()
	var got []event
	for _, w := range want {
		e := f.next()
		if e.String() != w {
			f.Fatalf("told %s after %v, want %s", e, got, w)
		}
		got = append(got, e)
	}
	return got
}

func (f *fixture) mkdir(below string) uint64 {
	f.Helper()
	path := filepath.Join(f.root, below)
	if err := os.Mkdir(path, 0o755); err != nil {
		f.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		f.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func (f *fixture) rmdir(below string) {
	f.Helper()
	if err := os.Remove(filepath.Join(f.root, below)); err != nil {
		f.Fatal(err)
	}
}

func TestWatcherTellsWhatIsThereAndThenIsReady(t *testing.T) {
	root := newRoot(t)
	if err := os.MkdirAll(filepath.Join(root, "a.slice", "b.slice", "c.service", "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := watch(t, root, nil)
	f.ready()
	got := []string{}
	for len(f.events) > 0 {
		got = append(got, f.next().String())
	}
	if want := "[+a.slice +a.slice/b.slice +a.slice/b.slice/c.service]"; fmt.Sprint(got) != want {
		t.Errorf("told %v when ready, want %s", got, want)
	}
}

func TestWatcherTellsOfChanges(t *testing.T) {
	f := watch(t, newRoot(t), nil)
	f.ready()
	f.mkdir("a.slice")
	f.expect("+a.slice")
	id := f.mkdir("a.slice/x.service")
	e := f.expect("+a.slice/x.service")[0]
	if e.ID != id || e.Path != filepath.Join(f.root, "a.slice/x.service") {
		t.Errorf("told %+v, want id %d", e, id)
	}
	// What is inside of a unit is nobody's business.
	f.mkdir("a.slice/x.service/other.service")
	f.mkdir("y.scope")
	f.expect("+y.scope")
	f.rmdir("a.slice/x.service/other.service")
	f.rmdir("a.slice/x.service")
	e = f.expect("-a.slice/x.service")[0]
	if e.ID != id {
		t.Errorf("told of the end of %d, want %d", e.ID, id)
	}
	f.rmdir("a.slice")
	f.expect("-a.slice")
	f.stop()
	if err := <-f.done; err != nil {
		t.Errorf("the end: %v", err)
	}
}

func TestWatcherTellsApartCgroupsOfOnePath(t *testing.T) {
	f := watch(t, newRoot(t), nil)
	f.ready()
	f.mkdir("a.slice")
	old := f.mkdir("a.slice/x.service")
	f.expect("+a.slice", "+a.slice/x.service")
	// Both levels, so that the watch of the slice is another one as well.
	f.rmdir("a.slice/x.service")
	f.rmdir("a.slice")
	f.mkdir("a.slice")
	fresh := f.mkdir("a.slice/x.service")
	// How often the slice is told depends on who is faster; the unit's own
	// story does not.
	var story []event
	for len(story) < 2 {
		if e := f.next(); e.Below == "a.slice/x.service" {
			story = append(story, e)
		}
	}
	if story[0].added || story[0].ID != old || !story[1].added || story[1].ID != fresh {
		t.Errorf("told %v (ids %d, %d), want -%d +%d", story, story[0].ID, story[1].ID, old, fresh)
	}
	// The new slice is watched.
	f.mkdir("a.slice/y.service")
	for f.next().String() != "+a.slice/y.service" {
	}
}

// A unit is made right after its slice, as systemd does, before anyone can be
// watching the slice.
func TestWatcherMissesNothingMadeAtOnce(t *testing.T) {
	f := watch(t, newRoot(t), nil)
	f.ready()
	const makers, each = 4, 40
	var making sync.WaitGroup
	for m := range makers {
		making.Go(func() {
			for i := range each {
				path := filepath.Join(f.root, fmt.Sprintf("m%d-%d.slice", m, i), "in.slice", "x.service")
				if err := os.MkdirAll(path, 0o755); err != nil {
					t.Error(err)
				}
			}
		})
	}
	making.Wait()
	seen := map[string]bool{}
	for range makers * each * 3 {
		e := f.next()
		if !e.added || seen[e.Below] {
			t.Fatalf("told %s, with %d before", e, len(seen))
		}
		if around := filepath.Dir(e.Below); around != "." && !seen[around] {
			t.Fatalf("told %s before the slice around it", e)
		}
		seen[e.Below] = true
	}
}

func TestWatcherCatchesUpWhenNoticesAreLost(t *testing.T) {
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	queue, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	if err != nil || queue > 1<<16 {
		t.Skipf("the kernel keeps %s notices; filling that takes too long", bytes.TrimSpace(limit))
	}
	var log syncBuffer
	block, blocked := make(chan struct{}), make(chan struct{})
	f := watch(t, newRoot(t), func(o *cgroupwatch.Options) {
		o.Log = zerolog.New(&log)
		tell := o.Added
		o.Added = func(c cgroupwatch.Cgroup) {
			if c.Below == "stop" {
				close(blocked)
				<-block
			}
			tell(c)
		}
	})
	f.ready()
	f.mkdir("before")
	f.mkdir("stop")
	<-blocked
	// Twice the queue: the watcher holds some notices already. A notice that
	// equals the last one is dropped by the kernel, so two kinds take turns.
	for range queue {
		f.mkdir("x")
		f.rmdir("x")
	}
	f.rmdir("before")
	f.mkdir("after.slice")
	f.mkdir("after.slice/y.service")
	close(block)
	f.expect("+before", "+stop")
	told := map[string]bool{}
	for len(told) < 3 {
		if e := f.next(); e.Below != "x" {
			told[e.String()] = true
		}
	}
	if !told["-before"] || !told["+after.slice"] || !told["+after.slice/y.service"] {
		t.Errorf("told %v", told)
	}
	if !strings.Contains(log.String(), "lost") {
		t.Error("no notice was lost, so this test shows nothing")
	}
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Who mounts the hierarchy in a cgroup namespace of its own makes cgroups
// without a notice here.
func TestWatcherFindsByRescanWhatGivesNoNotice(t *testing.T) {
	f := watch(t, newRoot(t), func(o *cgroupwatch.Options) { o.Rescan = 20 * time.Millisecond })
	f.ready()
	f.mkdir("a.slice")
	f.expect("+a.slice")
	folder, err := os.Open(f.root)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	other := exec.Command("unshare", "--cgroup", "--mount", "sh", "-ec",
		"mount -t cgroup2 cgroup2 /mnt; mkdir /mnt/a.slice/x.service")
	other.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd())}
	if out, err := other.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f.expect("+a.slice/x.service")
}

func TestWatcherEndsWithItsRoot(t *testing.T) {
	root := newRoot(t)
	if err := os.Mkdir(filepath.Join(root, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := watch(t, filepath.Join(root, "in"), func(o *cgroupwatch.Options) { o.Rescan = 20 * time.Millisecond })
	f.ready()
	if err := os.Remove(f.root); err != nil {
		t.Fatal(err)
	}
	if err := <-f.done; !errors.Is(err, cgroupwatch.ErrRootGone) || !strings.Contains(err.Error(), f.root) {
		t.Errorf("ended with %v, want %v and the path", err, cgroupwatch.ErrRootGone)
	}
}

func TestWatcherHasALimit(t *testing.T) {
	f := watch(t, newRoot(t), func(o *cgroupwatch.Options) { o.Limit = 2 })
	f.ready()
	for i := range 4 { // each takes the place of the one before
		name := strconv.Itoa(i)
		f.mkdir(name)
		f.expect("+" + name)
		f.rmdir(name)
		f.expect("-" + name)
	}
	for i := range 3 {
		f.mkdir(strconv.Itoa(i))
	}
	if err := <-f.done; !errors.Is(err, cgroupwatch.ErrTooMany) {
		t.Errorf("ended with %v, want %v", err, cgroupwatch.ErrTooMany)
	}
}

func TestWatcherSaysWhatIsWrong(t *testing.T) {
	if _, err := cgroupwatch.New(cgroupwatch.Options{Root: "/sys"}); err == nil {
		t.Error("made without callbacks")
	}
	f := watch(t, "/nowhere", nil)
	if err := <-f.done; !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("ended with %v", err)
	}
}

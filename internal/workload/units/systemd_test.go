package units_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/workload/cgroupwatch"
	"chaperone.dev/chaperone/internal/workload/units"
)

// machine is a systemd and a watcher that tells of its units.
type machine struct {
	*testing.T
	system *lab.Systemd
	dir    string // %LOG% in the text of units is a file in it
	events chan event
}

// event is a unit's cgroup that came or went.
type event struct {
	added bool
	unit  string
	cgroupwatch.Cgroup
}

func (e event) String() string {
	if e.added {
		return "+" + e.unit
	}
	return "-" + e.unit
}

// boot starts a system with the units, and watches those that match.
func boot(t *testing.T, pattern string, files map[string]string) *machine {
	t.Helper()
	m := &machine{T: t, dir: t.TempDir(), events: make(chan event, 1024)}
	for name, text := range files {
		files[name] = strings.ReplaceAll(text, "%LOG%", filepath.Join(m.dir, "log"))
	}
	group, err := lab.NewCgroup("units")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := group.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if m.system, err = lab.StartSystemd(ctx, lab.SystemdOptions{Cgroup: group.Path, Units: files}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.system.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	m.watch(pattern)
	return m
}

func (m *machine) watch(pattern string) {
	m.Helper()
	tell := func(added bool) func(cgroupwatch.Cgroup) {
		return func(c cgroupwatch.Cgroup) {
			if unit, ok := units.ParseCgroup(c.Below); ok && units.Match(pattern, unit) {
				m.events <- event{added, unit, c}
			}
		}
	}
	watcher, err := cgroupwatch.New(cgroupwatch.Options{
		// An hour: what a test sees, it sees by the kernel's notices.
		Root: m.system.CgroupPath(), Descend: units.InSlices, Rescan: time.Hour,
		Added: tell(true), Removed: tell(false), Log: zerolog.Nop(),
	})
	if err != nil {
		m.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- watcher.Run(ctx) }()
	m.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			m.Error(err)
		}
	})
	select {
	case <-watcher.Ready():
	case <-time.After(20 * time.Second):
		m.Fatal("the watcher isn't ready")
	}
}

func (m *machine) systemctl(args ...string) string {
	m.Helper()
	out, err := m.system.Systemctl(m.Context(), args...)
	if err != nil {
		m.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (m *machine) run(name string, args ...string) {
	m.Helper()
	if out, err := m.system.Command(m.Context(), name, args...).CombinedOutput(); err != nil {
		m.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func (m *machine) expect(want string) event {
	m.Helper()
	select {
	case e := <-m.events:
		if e.String() != want {
			m.Fatalf("told %s, want %s", e, want)
		}
		return e
	case <-time.After(20 * time.Second):
		m.Fatalf("%s was not told", want)
	}
	return event{}
}

// logged is what the units wrote to %LOG%.
func (m *machine) logged() []string {
	m.Helper()
	body, err := os.ReadFile(filepath.Join(m.dir, "log"))
	if err != nil {
		m.Fatal(err)
	}
	return strings.Fields(string(body))
}

func TestUnitsOfSystemd(t *testing.T) {
	const sleep = "[Service]\nType=exec\nExecStart=/bin/sleep 1000\n"
	m := boot(t, "planner*", map[string]string{
		"planner@.service":       sleep,
		"other.service":          sleep,
		"planner-sliced.service": "[Service]\nType=exec\nSlice=planners-a.slice\nExecStart=/bin/sleep 1000\n",
	})
	name := `planner@` + `a\x2db-c.service`
	m.systemctl("start", "other.service", name) // other.service is not told
	first := m.expect("+" + name)
	if got := "/" + first.Below; got != m.systemctl("show", "-P", "ControlGroup", name) {
		t.Errorf("the unit's cgroup is said to be %s", got)
	}
	m.systemctl("start", "planner-sliced.service")
	if e := m.expect("+planner-sliced.service"); e.Below != "planners.slice/planners-a.slice/planner-sliced.service" {
		t.Errorf("the unit in a slice is at %s", e.Below)
	}

	// A restart keeps the name and makes another cgroup.
	m.systemctl("restart", name)
	if e := m.expect("-" + name); e.ID != first.ID {
		t.Errorf("the end of %d was told, want %d", e.ID, first.ID)
	}
	if e := m.expect("+" + name); e.ID == first.ID || e.Below != first.Below {
		t.Errorf("the restarted unit is %+v, want another id than %d", e.Cgroup, first.ID)
	}
	m.systemctl("stop", name)
	m.expect("-" + name)

	m.run("systemd-run", "--scope", "--unit=planner-7", "true")
	m.expect("+planner-7.scope")
	m.expect("-planner-7.scope")
	m.run("systemd-run", "--unit=planner-8", "--slice=planners-b", "-p", "Type=exec", "sleep", "1000")
	m.expect("+planner-8.service")
	m.systemctl("stop", "planner-8.service")
	m.expect("-planner-8.service")
}

func TestUnitWithCgroupsOfItsOwnStaysOneUnit(t *testing.T) {
	m := boot(t, "*", map[string]string{
		"planner@.service": `[Service]
Type=notify
NotifyAccess=all
Delegate=yes
ExecStart=/bin/sh -ec 'own=/sys/fs/cgroup/$(sed -n s/^0::.//p /proc/self/cgroup); \
	mkdir -p $own/planner@y.service $own/system.slice/other.service; echo $$$$ >$own/system.slice/other.service/cgroup.procs; \
	sed -n s/^0:://p /proc/self/cgroup >%LOG%; systemd-notify --ready; exec sleep 1000'
`,
	})
	m.expect("+init.scope")
	m.systemctl("start", "planner@x.service")
	m.expect("+planner@x.service")
	inside := m.logged()
	if len(inside) != 1 || !strings.HasSuffix(inside[0], "/planner@x.service/system.slice/other.service") {
		t.Fatalf("the planner went to %v", inside)
	}
	if unit, ok := units.ParseCgroup(inside[0]); !ok || unit != "planner@x.service" {
		t.Errorf("inside, it is taken for %q", unit)
	}
	m.systemctl("stop", "planner@x.service")
	m.expect("-planner@x.service") // and nothing of what is inside in between
}

func TestUnitOfAUsersManager(t *testing.T) {
	own := t.TempDir()
	for name, text := range map[string]string{
		// A user's manager is ready when it has reached basic.target.
		"basic.target": "[Unit]\nRequires=foo.service\nAfter=foo.service\n", "default.target": "[Unit]\nRequires=basic.target\n",
		"shutdown.target": "[Unit]\n",
		"foo.service":     "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sed -n s/^0:://p /proc/self/cgroup >" + own + "/cgroup'\n",
	} {
		if err := os.WriteFile(filepath.Join(own, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := boot(t, "user@*.service", map[string]string{
		// A manager of root's: the machine may have no other user.
		"user@.service": `[Service]
Type=notify
Delegate=yes
Slice=user-%i.slice
Environment=XDG_RUNTIME_DIR=/run/user-%i SYSTEMD_UNIT_PATH=` + own + ` SYSTEMD_GENERATOR_PATH=` + own + `
ExecStartPre=/bin/mkdir -p /run/user-%i
ExecStart=/lib/systemd/systemd --user
`,
	})
	m.systemctl("start", "user@0.service")
	if e := m.expect("+user@0.service"); e.Below != "user.slice/user-0.slice/user@0.service" {
		t.Errorf("the manager is at %s", e.Below)
	}
	body, err := os.ReadFile(filepath.Join(own, "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	cgroup := strings.TrimSpace(string(body))
	if unit, ok := units.ParseCgroup(cgroup); !ok || unit != "user@0.service" {
		t.Errorf("%s belongs to the system unit %q", cgroup, unit)
	}
	if unit, uid, ok := units.ParseUserCgroup(cgroup); !ok || unit != "foo.service" || uid != "0" {
		t.Errorf("%s belongs to the user unit %q of %q", cgroup, unit, uid)
	}
}

// Where a drop-in's command runs, and whether the unit's own command runs in
// that cgroup later, is what a daemon builds upon that classifies a unit
// before its first instruction.
func TestDropInRunsInTheUnitsCgroupFirst(t *testing.T) {
	const say = `/bin/sh -c 'echo %s:$(stat -c %%i /sys/fs/cgroup/$(sed -n s/^0::.//p /proc/self/cgroup)):$(sed -n s/^0:://p /proc/self/cgroup) >>%LOG%'`
	line := func(setting, word string) string { return setting + "=" + strings.ReplaceAll(say, "%s", word) + "\n" }
	unit := "[Service]\nType=oneshot\n" + line("ExecStartPre", "own") + line("ExecStart", "main") +
		line("ExecStopPost", "post") + "RemainAfterExit=yes\n"
	// A drop-in for every unit whose name begins with "planner-".
	dropIn := "[Service]\n" + line("ExecCondition", "condition") + line("ExecStartPre", "drop-in")
	for name, delegate := range map[string]string{"planner-plain.service": "", "planner-delegated.service": "Delegate=yes\n"} {
		t.Run(name, func(t *testing.T) {
			m := boot(t, "planner-*", map[string]string{
				name: unit + delegate, "planner-.service.d/50-first.conf": dropIn,
			})
			m.systemctl("start", name)
			m.systemctl("stop", name)
			want := []string{"condition", "own", "drop-in", "main", "post"}
			logged := m.logged()
			if len(logged) != len(want) {
				t.Fatalf("%v ran, want %v", logged, want)
			}
			var ids []string
			for i, entry := range logged {
				word, rest, _ := strings.Cut(entry, ":")
				id, cgroup, _ := strings.Cut(rest, ":")
				ids = append(ids, id)
				if got, ok := units.ParseCgroup(cgroup); word != want[i] || !ok || got != name {
					t.Errorf("command %d is %s, in %s; want %s in the unit's cgroup", i, word, cgroup, want[i])
				}
				if word != "post" && filepath.Base(cgroup) != name {
					t.Errorf("%s ran in %s, want it in the unit's cgroup itself", word, cgroup)
				}
			}
			if e := m.expect("+" + name); ids[0] != ids[3] || ids[0] != strconv.FormatUint(e.ID, 10) {
				t.Errorf("the commands ran in %v, want one cgroup, the one that was told, %d", ids, e.ID)
			}
		})
	}
}

// A unit whose drop-in doesn't let it start runs nothing of its own.
func TestDropInHoldsTheUnitUntilItAgrees(t *testing.T) {
	m := boot(t, "planner.service", map[string]string{
		"planner.service": "[Service]\nType=exec\nExecStartPre=/bin/sh -c 'echo own >>%LOG%'\nExecStart=/bin/sh -c 'echo main >>%LOG%'\n",
		// It waits for the answer of who classifies, which here is a line in
		// a pipe.
		"planner.service.d/50-wait.conf": "[Service]\nExecCondition=/bin/sh -c 'mkfifo %LOG%.answer; read answer <%LOG%.answer; echo asked >>%LOG%; test $answer = yes'\n",
	})
	for _, test := range []struct{ answer, want string }{{"no", "asked"}, {"yes", "asked own main"}} {
		started := make(chan error, 1)
		go func() {
			_, err := m.system.Systemctl(m.Context(), "start", "planner.service")
			started <- err
		}()
		m.expect("+planner.service") // told while the unit waits
		pipe := filepath.Join(m.dir, "log.answer")
		m.run("sh", "-c", "while ! test -p "+pipe+"; do sleep 0.01; done; echo "+test.answer+" >"+pipe)
		if err := <-started; err != nil {
			t.Error(err)
		}
		m.expect("-planner.service")
		if got := strings.Join(m.logged(), " "); got != test.want {
			t.Errorf("after %q the unit ran %q, want %q", test.answer, got, test.want)
		}
		if err := errors.Join(os.Remove(pipe), os.Remove(filepath.Join(m.dir, "log"))); err != nil {
			t.Fatal(err)
		}
	}
}

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// shell is a planner's psql that stays open.
type shell struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	asks int
}

func (w *world) shell() *shell {
	w.t.Helper()
	s := &shell{t: w.t, cmd: w.Planner(w.t.Context(), "nightly-shell", stage.Psql("-Atq")...)}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	s.cmd.Stderr = w.log
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	w.t.Cleanup(func() { s.in.Close(); s.cmd.Wait() })
	return s
}

// ask runs SQL and returns what it printed.
func (s *shell) ask(sql string) string {
	s.t.Helper()
	s.asks++
	end := fmt.Sprintf("end of %d", s.asks)
	if _, err := fmt.Fprintf(s.in, "%s;\n\\echo %s\n", sql, end); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	var lines []string
	for s.out.Scan() {
		if s.out.Text() == end {
			return strings.Join(lines, "\n")
		}
		lines = append(lines, s.out.Text())
	}
	s.t.Fatalf("the session ended during %q; it had printed %q", sql, lines)
	return ""
}

func (s *shell) close() {
	s.t.Helper()
	s.in.Close()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("psql: %v", err)
	}
}

// upgrade has another daemon take over.
func (w *world) upgrade(args ...string) (before *stage.Daemon) {
	w.t.Helper()
	before = w.daemon
	var err error
	if w.daemon, err = w.Upgrade(w.t.Context(), args...); err != nil {
		w.t.Fatal(err)
	}
	return before
}

// drained waits until a daemon has ended by itself, as if nothing had gone wrong.
func (w *world) drained(d *stage.Daemon) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	if err := d.Wait(ctx); err != nil {
		w.t.Fatalf("the daemon that handed over: %v", err)
	}
}

// load connects again and again as one planner, until stop is called, which returns how often
// that went well and fails the test if it ever didn't.
func (w *world) load() (stop func() int64) {
	w.t.Helper()
	end := w.Path("stop-" + fmt.Sprint(time.Now().UnixNano()))
	words := stage.Psql("-At", "-c", "SELECT 'ok ' || current_user")
	cmd := w.Planner(w.t.Context(), "nightly-load", append([]string{"sh", "-c", `while [ ! -e "$0" ]; do "$@" 2>&1; done`, end}, words...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	var good atomic.Int64
	var reading sync.WaitGroup
	var bad []string
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "ok chaperone_") {
				good.Add(1)
			} else {
				bad = append(bad, lines.Text())
			}
		}
	})
	w.until("a connection that went well", func() bool { return good.Load() > 0 })
	return sync.OnceValue(func() int64 {
		w.t.Helper()
		before := good.Load()
		w.until("connections after it", func() bool { return good.Load() > before+3 })
		if err := os.WriteFile(end, nil, 0o644); err != nil {
			w.t.Fatal(err)
		}
		reading.Wait()
		if err := cmd.Wait(); err != nil {
			w.t.Errorf("the planner: %v", err)
		}
		if len(bad) > 0 {
			w.t.Errorf("%d connections failed, and %d didn't; the first said %q", len(bad), good.Load(), bad[0])
		}
		return good.Load()
	})
}

// onlyMinted fails the test if anybody but a minted role, or who runs the stage, was let in by the
// server from where planners are.
func (w *world) onlyMinted() {
	w.t.Helper()
	for line := range strings.Lines(w.log.String()) {
		_, who, ok := strings.Cut(line, "connection authorized: user=")
		if ok && !strings.HasPrefix(who, "chaperone_") && !strings.HasPrefix(who, "postgres") {
			w.t.Errorf("the server let somebody in: %s", line)
		}
	}
}

func logged() stage.Options {
	return stage.Options{Postgres: map[string]string{"log_connections": "on"}}
}

// A session goes on while one daemon takes over from another, twice; whoever connects meanwhile
// waits; and in the end all is on record, and no role is left.
func TestUpgrade(t *testing.T) {
	w := setUp(t, logged())
	old := w.shell()
	old.ask("BEGIN")
	old.ask("INSERT INTO orders (customer, amount, note) VALUES (1, 1, 'upgrade')")
	role := old.ask("SELECT current_user")
	stop := w.load()

	first := w.upgrade()
	middle := w.shell()
	if middle.ask("SELECT 'middle'") != "middle" {
		t.Error("a session on the second daemon answers something else")
	}
	second := w.upgrade()
	if n := stop(); n < 3 {
		t.Errorf("%d connections", n)
	}
	if got := old.ask("SELECT current_user"); got != role {
		t.Errorf("the session is %s's, and was %s's", got, role)
	}
	old.ask("COMMIT")
	if got := w.mustAsk("SELECT count(*) FROM orders WHERE note = 'upgrade'"); got != "1" {
		t.Errorf("%s rows were committed", got)
	}
	old.close()
	w.drained(first)
	middle.close()
	w.drained(second)
	w.noRoles()
	w.onlyMinted()

	// Everything is published by the third daemon, and verifies.
	w.event(event.TypeSessionEnded, func(map[string]any) bool { return true })
	w.until("the ends of all sessions", func() bool {
		started, ended := map[any]bool{}, 0
		for _, e := range w.eventsOf(event.TypeSessionStarted) {
			started[e["session"]] = true
		}
		for _, e := range w.eventsOf(event.TypeSessionEnded) {
			if e["reason"] == string(event.ReasonTruncated) {
				t.Fatalf("session %v was truncated", e["session"])
			}
			ended++
		}
		return len(started) == ended && ended > 4
	})
	for _, e := range w.eventsOf(event.TypeSessionStarted) {
		w.until("a recording that verifies", func() bool { // the sink stores it a little later
			return w.do(w.Command(t.Context(), "sessions", "verify", e["session"].(string))).code == 0
		})
	}
	w.alive()
}

// mustAsk asks the server past Chaperone.
func (w *world) mustAsk(sql string) string {
	w.t.Helper()
	out, err := w.Superuser(w.t.Context(), sql)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// eventsOf are the data of all events of a type.
func (w *world) eventsOf(kind event.Type) (all []map[string]any) {
	w.t.Helper()
	for _, e := range w.events() {
		if e.Kind() != kind {
			continue
		}
		var data map[string]any
		if err := json.Unmarshal(e.Data, &data); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, data)
	}
	return all
}

// A daemon that can't take over, whenever that shows, leaves the one that runs serving.
func TestUpgradeThatFails(t *testing.T) {
	w := setUp(t, logged())
	session := w.shell()
	role := session.ask("SELECT current_user")
	stop := w.load()
	for name, try := range map[string]func() error{
		"its documents are bad": func() error {
			if err := w.WriteDocument("broken.yaml", "kind: Nothing"); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(w.Path("config", "broken.yaml"))
			_, err := w.Upgrade(t.Context())
			return err
		},
		"it is another node's": func() error {
			other := w.Path("other-state")
			_, err := w.Upgrade(t.Context(), "--state", other)
			return err
		},
		"its NATS server can't start": func() error { // after everything was handed over
			_, err := w.Upgrade(t.Context(), "--nats-listen", "192.0.2.1:4222")
			return err
		},
		"it doesn't ask": func() error {
			r := w.do(w.Command(t.Context(), "up", "--config", w.ConfigDir(), "--state", w.Path("state")))
			if r.code == 0 {
				return nil
			}
			return errors.New(r.out)
		},
	} {
		err := try()
		if err == nil {
			t.Fatalf("%s: it took over", name)
		}
		t.Logf("%s: %.300s", name, err)
		if got := session.ask("SELECT current_user"); got != role {
			t.Errorf("%s: the session is %q's, and was %q's", name, got, role)
		}
		w.until("a job that can start", func() bool { return w.psql("SELECT 'alive'").code == 0 })
	}
	if n := stop(); n < 8 {
		t.Errorf("%d connections", n)
	}
	// The credentials of before are still known, and revoked.
	session.close()
	w.noRoles()
	w.onlyMinted()
	if err := w.daemon.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// Whichever daemon is killed, and when, planners are served by the other one or refused.
func TestKilledDuringUpgrade(t *testing.T) {
	w := setUp(t, logged())
	for n := range 12 {
		after := time.Duration(n/2) * 120 * time.Millisecond
		old := w.daemon
		session := w.shell()
		role := session.ask("SELECT current_user")
		cmd := w.Command(context.Background(), "up", "--config", w.ConfigDir(), "--state", w.Path("state"), "--take-over")
		cmd.Stderr = w.log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after) // a point in its start, whichever that is
		what := fmt.Sprintf("round %d, killed after %s", n, after)
		if n%2 == 0 {
			cmd.Process.Kill()
			cmd.Wait()
			// The old one serves again, or has handed over and drains.
			if got := session.ask("SELECT current_user"); got != role {
				t.Errorf("%s: the session is %q's, and was %q's", what, got, role)
			}
			session.close()
			if !w.served(old, what) {
				w.drained(old)
				w.up()
			}
		} else {
			if err := old.Kill(); err != nil {
				t.Fatal(err)
			}
			session.kill()
			w.until(what+": a daemon, or none", func() bool {
				return w.psql("SELECT 'served'").code == 0 || exited(cmd.Process.Pid)
			})
			cmd.Process.Kill()
			cmd.Wait()
			if r := w.psql("SELECT 'served'"); r.code == 0 {
				t.Errorf("%s: served by nobody: %s", what, r.out)
			}
			w.up()
		}
		w.alive()
		w.noRoles()
		w.onlyMinted()
	}
}

// served waits until planners are served, which it tells, or the daemon has ended.
func (w *world) served(d *stage.Daemon, what string) (yes bool) {
	w.t.Helper()
	now, cancel := context.WithCancel(w.t.Context())
	cancel()
	w.until(what+": a daemon, or none", func() bool {
		yes = w.psql("SELECT 'served'").code == 0
		return yes || !errors.Is(d.Wait(now), context.Canceled)
	})
	return yes
}

// exited tells whether a child has ended and was not waited for.
func exited(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

func (s *shell) kill() {
	s.in.Close()
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// Documents that are read again and again never let a connection past the daemon.
func TestReloadUnderLoad(t *testing.T) {
	w := setUp(t, logged())
	stop := w.load()
	text := stage.Documents()["policy.yaml"]
	for n := range 200 {
		if err := w.WriteDocument("policy.yaml", fmt.Sprintf("%s# %d\n", text, n)); err != nil {
			t.Fatal(err)
		}
		if err := w.daemon.Reload(); err != nil {
			t.Fatal(err)
		}
		loaded := n + 1
		w.until("the documents in force", func() bool {
			return strings.Count(w.log.String(), `"message":"documents in force"`) >= loaded
		})
	}
	if n := stop(); n < 10 {
		t.Errorf("%d connections", n)
	}
	w.onlyMinted()
}

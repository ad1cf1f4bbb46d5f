// Package e2e tests the whole product from outside: the real binaries, a real
// PostgreSQL, the real kernel, and clients that know nothing of Chaperone.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// binary is the chaperone binary that the tests are about.
var binary string

func TestMain(m *testing.M) {
	if name := os.Getenv(clientVariable); name != "" {
		os.Exit(runClient(name))
	}
	if err := stage.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "end-to-end tests need root and a kernel with namespaces, cgroup v2 and eBPF:", err)
		os.Exit(1)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chaperone-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// A planner of any user runs it.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(dir, "chaperone")
	if err := stage.Build(context.Background(), binary, stage.Program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// world is a stage with a running daemon.
type world struct {
	*stage.Stage
	t      *testing.T
	daemon *stage.Daemon
	log    *stage.Log
}

// setUp starts a stage and its daemon. Tests of this package don't run side
// by side: the stage has one address and one port.
func setUp(t *testing.T, options stage.Options) *world {
	t.Helper()
	w := setStage(t, options)
	w.up()
	return w
}

func setStage(t *testing.T, options stage.Options) *world {
	t.Helper()
	w := &world{t: t, log: &stage.Log{}}
	options.Binary, options.Log = binary, w.log
	var err error
	if w.Stage, err = stage.New(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Close(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("daemon and server said:\n%s", w.log)
		}
	})
	return w
}

// in is the world for a part of its test: what fails there fails that part.
func (w *world) in(t *testing.T) *world {
	in := *w
	in.t = t
	return &in
}

func (w *world) up() {
	w.t.Helper()
	var err error
	if w.daemon, err = w.Up(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// result is what a command came to.
type result struct {
	out  string // standard output and error
	code int
}

// do runs a command to its end, which comes within a minute.
func (w *world) do(cmd *exec.Cmd) result {
	w.t.Helper()
	timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return result{out.String(), cmd.ProcessState.ExitCode()}
}

// planner runs a command as a planner job.
func (w *world) planner(command ...string) result {
	w.t.Helper()
	return w.do(w.Planner(w.t.Context(), "nightly-test", command...))
}

// psql runs SQL in a planner's psql.
func (w *world) psql(sql string, args ...string) result {
	w.t.Helper()
	return w.planner(stage.Psql(append(args, "-At", "-c", sql)...)...)
}

// want fails the test unless the result has the code and the texts.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d; it printed:\n%s", r.code, code, r.out)
	}
	for _, text := range texts {
		if !strings.Contains(r.out, text) {
			t.Fatalf("no %q in:\n%s", text, r.out)
		}
	}
}

// event waits for the first event that fits.
func (w *world) event(kind event.Type, fits func(data map[string]any) bool) map[string]any {
	w.t.Helper()
	var found map[string]any
	w.until(fmt.Sprintf("an event %s that fits", kind), func() bool {
		for _, e := range w.events() {
			if e.Kind() != kind {
				continue
			}
			var data map[string]any
			if err := json.Unmarshal(e.Data, &data); err != nil {
				w.t.Fatal(err)
			}
			if fits == nil || fits(data) {
				found = data
				return true
			}
		}
		return false
	})
	return found
}

// events are all that were published so far.
func (w *world) events() []event.Event {
	w.t.Helper()
	out, err := w.Command(w.t.Context(), "events", "tail", "-o", "json", "-n", "100000").Output()
	if err != nil {
		w.t.Fatalf("events tail: %v", err)
	}
	var events []event.Event
	for line := range bytes.Lines(out) {
		var e event.Event
		if err := json.Unmarshal(line, &e); err != nil {
			w.t.Fatalf("events tail printed %q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

// refusal waits for a refused session with the reason.
func (w *world) refusal(reason string) map[string]any {
	w.t.Helper()
	return w.event(event.TypeSessionRefused, func(data map[string]any) bool { return data["reason"] == reason })
}

// until waits for something that is about to be so.
func (w *world) until(what string, so func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !so() {
		if time.Now().After(deadline) {
			w.t.Fatalf("there never was %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// noRoles waits until no minted role is left at the server.
func (w *world) noRoles() {
	w.t.Helper()
	w.until("a server without minted roles", func() bool {
		roles, err := w.Roles(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		return len(roles) == 0
	})
}

// alive fails the test unless a planner can still work.
func (w *world) alive() {
	w.t.Helper()
	w.psql("SELECT 'alive'").want(w.t, 0, "alive")
}

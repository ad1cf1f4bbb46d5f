package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// Planners in other network namespaces, too, keep their sessions and are served on, and so
// are their questions for names.
func TestUpgradeOfPlannersElsewhere(t *testing.T) {
	w := setUp(t, logged())
	planners := map[string]*remote{
		"the node's namespace": w.remote(home{}, "nightly-here"),
		"a namespace":          w.remote(home{net: newNetns(t, lab.NetnsOptions{Inside: prefixes("10.30.0.2/24"), Outside: prefixes("10.30.0.1/24")})}, "nightly-away"),
		"another":              w.remote(home{net: newNetns(t, lab.NetnsOptions{})}, "nightly-alone"),
	}
	const resolver = "192.0.2.53" // nobody's
	for _, planner := range planners {
		planner.ask("open")
	}
	for range 2 {
		before := w.upgrade()
		for where, planner := range planners {
			t.Log("after an upgrade, in", where)
			for _, how := range []string{"udp", "tcp"} {
				if got := planner.ask("dns", how, resolver, stage.Host); got != "NOERROR "+stage.Address {
					t.Errorf("asked over %s: %s", how, got)
				}
			}
			planner.ask("session")
			planner.ask("close")
			planner.ask("open")
		}
		w.drained(before)
	}
	for _, planner := range planners {
		planner.end()
	}
	w.noRoles()
	w.onlyMinted()
	w.refused() // nothing was, in all that time
}

// refused fails the test if any connection was.
func (w *world) refused() {
	w.t.Helper()
	for _, e := range w.eventsOf(event.TypeSessionRefused) {
		w.t.Errorf("a connection was refused: %v", e)
	}
}

// A daemon that drains for too long ends its sessions, properly, and itself.
func TestDrainTimeout(t *testing.T) {
	w := setStage(t, logged())
	var err error
	w.daemon, err = w.Start(t.Context(), w.Command(context.Background(),
		"up", "--config", w.ConfigDir(), "--state", w.Path("state"), "--drain-timeout", "1s"))
	if err != nil {
		t.Fatal(err)
	}
	session := w.shell()
	session.ask("SELECT 1")
	before := w.upgrade()
	w.drained(before)
	ended := w.event(event.TypeSessionEnded, nil)
	if ended["reason"] == string(event.ReasonTruncated) {
		t.Errorf("the session's end: %v", ended)
	}
	session.kill()
	w.noRoles()
	w.alive()
}

// With a NATS server elsewhere a daemon that drains goes on publishing, and the next one is
// no different.
func TestUpgradeWithNATSElsewhere(t *testing.T) {
	options := logged()
	options.Documents = map[string]string{
		"node.yaml": strings.TrimRight(stage.Documents()["node.yaml"], "\n") + `
  nats: {url: "` + natsURL + `", nkeyFile: "{{dir}}/node.nk", caFile: "{{dir}}/nats-ca.pem"}
`,
	}
	w := setStage(t, options)
	build := func(pkg string) string {
		path := filepath.Join(filepath.Dir(binary), filepath.Base(pkg))
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", pkg, err, out)
		}
		return path
	}
	w.startNATS(build("github.com/nats-io/nats-server/v2"))
	w.do(w.Command(t.Context(), "nats", "setup", "--nats", natsURL, "--nkey", w.Path("admin.nk"), "--ca", w.Path("nats-ca.pem"))).want(t, 0)
	events := w.subscribe()
	chaperoned := build("chaperone.dev/chaperone/cmd/chaperoned")
	start := func(more ...string) *stage.Daemon {
		t.Helper()
		d, err := w.Start(t.Context(), exec.Command(chaperoned, append([]string{"--config", w.ConfigDir(), "--state", w.Path("state")}, more...)...))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	before := start()
	w.startSink(build("chaperone.dev/chaperone/cmd/chaperone-sink"), w.recordingKey(events))
	session := w.shell()
	session.ask("SELECT 'before'")
	w.daemon = start("--take-over")
	session.ask("SELECT 'drained'")
	// The old one publishes while it drains.
	w.event(event.TypeCommand, func(data map[string]any) bool { return strings.Contains(data["text"].(string), "drained") })
	w.alive()
	session.close()
	w.drained(before)
	w.until("two recordings that verify", func() bool {
		ended := w.eventsOf(event.TypeSessionEnded)
		for _, e := range ended {
			if w.do(w.Command(t.Context(), "sessions", "verify", e["session"].(string))).code != 0 {
				return false
			}
		}
		return len(ended) == 2
	})
	w.until("one journal", func() bool {
		_, err := os.Stat(w.Path("state", "journal"))
		return os.IsNotExist(err)
	})
	w.noRoles()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.daemon.Stop(ctx); err != nil {
		t.Error(err)
	}
}

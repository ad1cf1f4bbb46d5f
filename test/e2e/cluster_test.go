package e2e

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

const (
	natsAddress = "127.0.0.1:4333"
	natsURL     = "tls://localhost:4333"
)

// The daemon alone, a NATS server of its own with the TLS and the permissions
// that deploy/ gives each role, and the sink as its own process.
func TestDaemonWithNATSAndSinkOfTheirOwn(t *testing.T) {
	w := setStage(t, stage.Options{Documents: map[string]string{
		"node.yaml": strings.TrimRight(stage.Documents()["node.yaml"], "\n") + `
  nats: {url: "` + natsURL + `", nkeyFile: "{{dir}}/node.nk", caFile: "{{dir}}/nats-ca.pem"}
`,
	}})
	build := func(pkg string) string {
		path := filepath.Join(filepath.Dir(binary), filepath.Base(pkg))
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", pkg, err, out)
		}
		return path
	}
	w.startNATS(build("github.com/nats-io/nats-server/v2"))
	setup := []string{"nats", "setup", "--nats", natsURL, "--nkey", w.Path("admin.nk")}
	w.do(w.Command(t.Context(), setup...)).want(t, 1, "certificate signed by unknown authority")
	setup = append(setup, "--ca", w.Path("nats-ca.pem"))
	w.do(w.Command(t.Context(), setup...)).want(t, 0, "CHAPERONE_EVENTS")
	w.do(w.Command(t.Context(), setup...)).want(t, 0, "CHAPERONE_RECORDINGS") // again changes nothing

	events := w.subscribe()
	daemon := exec.Command(build("chaperone.dev/chaperone/cmd/chaperoned"), "--config", w.ConfigDir(), "--state", w.Path("state"))
	var err error
	if w.daemon, err = w.Start(t.Context(), daemon); err != nil {
		t.Fatal(err)
	}
	w.psql("SELECT card_number FROM customers WHERE id = 1").want(t, 0, "************1111")
	w.psql("DROP TABLE customers").want(t, 1, "schema changes go through migrations")
	w.noRoles()

	w.startSink(build("chaperone.dev/chaperone/cmd/chaperone-sink"), w.recordingKey(events))
	ended := w.event(event.TypeSessionEnded, func(data map[string]any) bool { return data["denied"] == 1.0 })
	w.until("a verified recording at the sink", func() bool {
		r := w.do(w.Command(t.Context(), "sessions", "verify", ended["session"].(string)))
		return r.code == 0 && strings.Contains(r.out, "verified")
	})
}

// startNATS starts the server with the configuration of deploy/.
func (w *world) startNATS(server string) {
	w.t.Helper()
	text, err := os.ReadFile("../../deploy/nats/nats-server.conf")
	if err != nil {
		w.t.Fatal(err)
	}
	config := w.Path("nats.conf")
	if err := os.WriteFile(config, []byte(strings.NewReplacer("CLUSTER.NODE", "default.stage", "recording.CLUSTER", "recording.default").Replace(string(text))), 0o644); err != nil {
		w.t.Fatal(err)
	}
	ca, err := lab.NewCA()
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := ca.Issue("localhost")
	if err != nil {
		w.t.Fatal(err)
	}
	for name, content := range map[string][]byte{"nats-ca.pem": ca.PEM(), "nats-cert.pem": pair.CertPEM, "nats-key.pem": pair.KeyPEM} {
		if err := os.WriteFile(w.Path(name), content, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	env := append(os.Environ(), "NATS_LISTEN="+natsAddress, "NATS_STORE="+w.Path("nats"),
		"NATS_CERT="+w.Path("nats-cert.pem"), "NATS_KEY="+w.Path("nats-key.pem"))
	for _, role := range []string{"admin", "node", "sink", "auditor"} {
		pair, err := nkeys.CreateUser()
		if err != nil {
			w.t.Fatal(err)
		}
		seed, err := pair.Seed()
		if err != nil {
			w.t.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(w.Path(role+".nk"), seed, 0o600); err != nil {
			w.t.Fatal(err)
		}
		env = append(env, strings.ToUpper(role)+"_NKEY="+public)
	}
	w.background(exec.Command(server, "-c", config), env)
	w.until("a NATS server", func() bool { return answers("tcp", natsAddress) })
}

// startSink starts the sink, which trusts one key for the node.
func (w *world) startSink(sink, key string) {
	w.t.Helper()
	keys := w.Path("keys")
	if err := os.MkdirAll(keys, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(keys, "stage.pub"), []byte(key+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
	socket := filepath.Join(w.RunDir(), "sink.sock")
	w.background(exec.Command(sink, "--nats", natsURL, "--ca", w.Path("nats-ca.pem"), "--nkey", w.Path("sink.nk"),
		"--keys", keys, "--dir", w.Path("sink"), "--socket", socket), os.Environ())
	w.until("a sink", func() bool { return answers("unix", socket) })
}

// subscribe is what a security team does: it needs nothing of Chaperone's.
func (w *world) subscribe() *nats.Subscription {
	w.t.Helper()
	key, err := nats.NkeyOptionFromSeed(w.Path("auditor.nk"))
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := nats.Connect(natsURL, key, nats.RootCAs(w.Path("nats-ca.pem")))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(conn.Close)
	sub, err := conn.SubscribeSync("chaperone.event.>")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		w.t.Fatal(err)
	}
	return sub
}

// recordingKey is the node's, as its node.started event tells it.
func (w *world) recordingKey(sub *nats.Subscription) string {
	w.t.Helper()
	for {
		msg, err := sub.NextMsg(30 * time.Second)
		if err != nil {
			w.t.Fatalf("no node.started: %v", err)
		}
		e, err := event.Decode(msg.Data)
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Kind() != event.TypeNodeStarted {
			continue
		}
		var started event.NodeStarted
		if err := json.Unmarshal(e.Data, &started); err != nil {
			w.t.Fatal(err)
		}
		return started.RecordingKey
	}
}

// background runs a process until the test ends.
func (w *world) background(cmd *exec.Cmd, env []string) {
	w.t.Helper()
	cmd.Env, cmd.Stdout, cmd.Stderr = env, w.log, w.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			w.t.Error(err)
		}
		cmd.Wait()
	})
}

func answers(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

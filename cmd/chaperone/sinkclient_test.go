package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/event"
)

var nodeKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, ed25519.SeedSize))

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// recorded starts a sink that holds one session and returns its folder.
func recorded(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	server, err := bus.Embedded(t.Context(), bus.Options{Dir: dir, Cluster: "c1", Node: "n1", Log: zerolog.Nop()})
	ok(t, err)
	stream := func(r bus.Role) jetstream.JetStream {
		nc, err := server.Connect(r)
		ok(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		ok(t, err)
		return js
	}
	s, err := sink.Open(t.Context(), sink.Options{Dir: filepath.Join(dir, "sink"), JetStream: stream(bus.RoleSink), Log: zerolog.Nop(),
		Keys: map[string]ed25519.PublicKey{"n1": nodeKey.Public().(ed25519.PublicKey)}})
	ok(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	socket := filepath.Join(dir, "sink.sock")
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := s.Serve(ctx, socket); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		ok(t, s.Close())
		server.Shutdown()
	})

	j, err := journal.Open(journal.Options{Dir: filepath.Join(dir, "journal"), Cluster: "c1", Node: "n1", Key: nodeKey, Log: zerolog.Nop()})
	ok(t, err)
	r := j.Session("s-1", event.Origin{Target: "orders-db"}, false)
	ok(t, r.Started(event.SessionStarted{Principal: event.Principal{Subject: "ann", Issuer: "local"}, Workload: event.Workload{Name: "nightly"},
		Target: event.Target{Name: "orders-db", Address: "10.0.0.1:5432"}, Credential: "chaperone_1"}))
	c := &event.Command{Session: "s-1", Seq: 1, Text: "SELECT card_number\nFROM customers -- \x1b[2J\u202e", Decision: "allow", Policy: "orders", Rule: "read"}
	ok(t, r.Command(c))
	ok(t, r.Masked(event.MaskApplied{Seq: 1, Columns: []event.MaskColumn{{Column: "card_number", Rule: "people: *", Count: 3}}}))
	c.Rows, c.Duration = 3, 1200*time.Microsecond
	ok(t, r.Outcome(c))
	ok(t, r.Command(&event.Command{Session: "s-1", Seq: 2, Text: "DROP TABLE customers", Decision: "deny", Policy: "orders", Rule: "no-ddl", Message: "not today", SQLState: "42501", Error: "not today"}))
	ok(t, r.Ended(event.SessionEnded{Reason: event.ReasonClientClosed, Commands: 2, Denied: 1, Rows: 3}))
	run, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	js := stream(bus.RoleNode)
	go func() { done <- j.Run(run, js) }()
	stop()
	ok(t, <-done)
	ok(t, j.Close())
	client := sink.NewClient(socket)
	for tick := time.NewTicker(2 * time.Millisecond); ; <-tick.C {
		if got, err := client.Session(t.Context(), "s-1"); err == nil && got.State == sink.StateVerified {
			tick.Stop()
			return dir
		}
		if t.Context().Err() != nil {
			t.Fatal("the session did not arrive")
		}
	}
}

func command(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	root := &cobra.Command{Use: "chaperone", SilenceUsage: true, SilenceErrors: true}
	addSinkCommands(root, &dir)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestSinkCommands(t *testing.T) {
	dir := recorded(t)
	for _, c := range []struct {
		args string
		want []string
	}{
		{"sessions list", []string{"SESSION", "s-1", "ann@local", "nightly", "orders-db", "client_closed", "verified"}},
		{"sessions list --principal ann --target orders-db --since 1h", []string{"s-1"}},
		{"sessions show s-1", []string{"chaperone_1", "2, of them 1 denied", "3 rows", "verified, 1 blocks"}},
		{"sessions replay s-1", []string{
			`SELECT card_number\nFROM customers -- \x1b[2J\u202e → allow (orders/read), 3 rows, masked card_number×3, 1.2ms`,
			"DROP TABLE customers → deny (orders/no-ddl): not today\n",
			"session ended, client_closed", "recording verified", "node n1",
		}},
		{"sessions verify s-1", []string{"recording verified: 1 blocks, 6 frames"}},
		{"sessions verify s-1 --key " + base64.StdEncoding.EncodeToString(nodeKey[32:]), []string{"recording verified"}},
		{"events tail", []string{"session.started", "DROP TABLE", "session.ended", "card_number×3"}},
		{"events tail --filter command", []string{"→ deny (orders/no-ddl): not today"}},
		{"events tail --filter /orders-db -n 1", []string{"session.ended"}},
	} {
		out, err := command(t, dir, strings.Fields(c.args)...)
		ok(t, err)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("chaperone %s: no %q in\n%s", c.args, want, out)
			}
		}
		if i := strings.IndexFunc(out, func(r rune) bool { return r != '\n' && (r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e) }); i >= 0 {
			t.Errorf("chaperone %s: control character in %q", c.args, out)
		}
	}
	out, err := command(t, dir, "sessions", "list", "-o", "json")
	ok(t, err)
	var list []sink.Session
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].ID != "s-1" {
		t.Errorf("%v in %s", err, out)
	}
	out, err = command(t, dir, "events", "tail", "-o", "json", "-n", "2")
	ok(t, err)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 2 || !strings.Contains(lines[1], "session.ended") {
		t.Errorf("%s", out)
	}
}

func TestVerifySaysWhatIsWrong(t *testing.T) {
	dir := recorded(t)
	files, err := filepath.Glob(filepath.Join(dir, "sink", "recordings", "*", "*", "s-1.rec"))
	ok(t, err)
	good, err := os.ReadFile(files[0])
	ok(t, err)
	key := base64.StdEncoding.EncodeToString(nodeKey[32:])
	other := base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(make([]byte, 32))[32:])
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		data []byte
		key  string
		want string
	}{
		"good":        {good, key, ""},
		"changed":     {flipped, key, "block 0 was changed"},
		"another key": {good, other, "block 0 is not signed by the node"},
		"empty":       {nil, key, "not closed"},
		"cut":         {good[:len(good)-9], key, "recording is cut"},
		"twice":       {append(bytes.Clone(good), good...), key, "block 0 was added behind the recording's end"},
	} {
		path := filepath.Join(t.TempDir(), "x.rec")
		ok(t, os.WriteFile(path, c.data, 0o600))
		_, err := command(t, dir, "sessions", "verify", "--file", path, "--key", c.key)
		if got := fmt.Sprint(err); (err == nil) != (c.want == "") || err != nil && !strings.Contains(got, c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// What the sink itself keeps is checked too.
	ok(t, os.WriteFile(files[0], flipped, 0o600))
	for _, args := range [][]string{{"sessions", "verify", "s-1"}, {"sessions", "replay", "s-1"}} {
		if _, err := command(t, dir, args...); err == nil || !strings.Contains(err.Error(), "block 0 was changed") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, err := command(t, dir, "sessions", "verify", "none"); err == nil || !strings.Contains(err.Error(), "no session none") {
		t.Errorf("unknown session: %v", err)
	}
}

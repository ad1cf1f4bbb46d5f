package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/event"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A node's recording, over a NATS that listens, ends in a sink of its own.
func TestSinkOverNATS(t *testing.T) {
	dir := t.TempDir()
	server, err := bus.Embedded(t.Context(), bus.Options{Dir: dir, Cluster: "c1", Node: "n1", Listen: "127.0.0.1:0", Log: zerolog.Nop()})
	ok(t, err)
	defer server.Shutdown()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	keys := t.TempDir()
	ok(t, os.WriteFile(filepath.Join(keys, "n1.pub"), []byte(base64.StdEncoding.EncodeToString(key[32:])+"\n"), 0o600))

	ctx, cancel := context.WithCancel(t.Context())
	socket := filepath.Join(dir, "sink.sock")
	root := rootCommand()
	root.SetArgs([]string{"--nats", server.URL(), "--nkey", bus.SeedFile(dir, bus.RoleSink), "--keys", keys, "--dir", filepath.Join(dir, "sink"), "--socket", socket})
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()

	nc, err := server.Connect(bus.RoleNode)
	ok(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	ok(t, err)
	j, err := journal.Open(journal.Options{Dir: filepath.Join(dir, "journal"), Cluster: "c1", Node: "n1", Key: key, Log: zerolog.Nop()})
	ok(t, err)
	r := j.Session("s-1", event.Origin{Target: "db"}, true)
	ok(t, r.Started(event.SessionStarted{}))
	ok(t, r.Ended(event.SessionEnded{Reason: event.ReasonClientClosed}))
	publishing, stop := context.WithCancel(t.Context())
	published := make(chan error, 1)
	go func() { published <- j.Run(publishing, js) }()
	stop()
	ok(t, <-published)
	ok(t, j.Close())

	client := sink.NewClient(socket)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if s, err := client.Session(t.Context(), "s-1"); err == nil && s.State == sink.StateVerified && s.Node == "n1" {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("the sink ended: %v", err)
		case <-tick.C:
		}
	}
	cancel()
	ok(t, <-done)
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	if _, err := readKeys(dir); err == nil || !strings.Contains(err.Error(), "no <node>.pub") {
		t.Errorf("empty folder: %v", err)
	}
	ok(t, os.WriteFile(filepath.Join(dir, "n1.pub"), []byte("bm90IGEga2V5"), 0o600))
	if _, err := readKeys(dir); err == nil || !strings.Contains(err.Error(), "n1.pub") {
		t.Errorf("short key: %v", err)
	}
}

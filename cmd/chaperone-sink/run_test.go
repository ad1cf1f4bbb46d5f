package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/desk/client"
	"chaperone.dev/chaperone/internal/journal"
	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
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

// With a Sink document people can log in, and the key that "key" prints is the
// one that signs what they decide.
func TestSinkWithDesk(t *testing.T) {
	dir := t.TempDir()
	server, err := bus.Embedded(t.Context(), bus.Options{Dir: dir, Cluster: "c1", Node: "n1", Listen: "127.0.0.1:0", Log: zerolog.Nop()})
	ok(t, err)
	defer server.Shutdown()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	keys, config := t.TempDir(), t.TempDir()
	ok(t, os.WriteFile(filepath.Join(keys, "n1.pub"), []byte(base64.StdEncoding.EncodeToString(key[32:])+"\n"), 0o600))
	port, err := lab.FreePort(t.Context())
	ok(t, err)
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	ok(t, os.WriteFile(filepath.Join(config, "sink.yaml"), fmt.Appendf(nil, `apiVersion: chaperone.dev/v1alpha1
kind: Sink
metadata: {name: sink}
spec:
  listen: 127.0.0.1:%d
  url: %s
  login: {issuer: corp, clientID: page, cliClientID: cli}
---
apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp}
spec: {issuer: "https://idp.example", audiences: [page, cli]}
`, port, url), 0o600))

	kept := filepath.Join(dir, "sink")
	var printed bytes.Buffer
	root := rootCommand()
	root.SetOut(&printed)
	root.SetArgs([]string{"key", "--dir", kept})
	ok(t, root.ExecuteContext(t.Context()))

	ctx, cancel := context.WithCancel(t.Context())
	socket := filepath.Join(dir, "sink.sock")
	root = rootCommand()
	root.SetArgs([]string{"--nats", server.URL(), "--nkey", bus.SeedFile(dir, bus.RoleSink), "--keys", keys, "--dir", kept, "--socket", socket, "--config", config})
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()

	remote, err := client.New(client.Options{URL: url})
	ok(t, err)
	defer remote.Close()
	local, err := client.New(client.Options{Socket: socket})
	ok(t, err)
	defer local.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := remote.Login(t.Context())
		if _, failed := local.WhoAmI(t.Context()); err == nil && failed == nil {
			if info.ClientID != "cli" || info.Issuer != "https://idp.example" {
				t.Errorf("people log in at %+v", info)
			}
			break
		}
		select {
		case err := <-done:
			t.Fatalf("the sink ended: %v", err)
		case <-tick.C:
		}
	}
	public, err := authority.ParseKeys([]string{strings.TrimSpace(printed.String())})
	ok(t, err)
	nc, err := server.Connect(bus.RoleSink)
	ok(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	ok(t, err)
	bucket, err := bus.BucketsOf(js).Locks.KV(t.Context())
	ok(t, err)
	if who, err := local.WhoAmI(t.Context()); err != nil || !who.Admin {
		t.Skipf("only root may lock on the socket: %+v, %v", who, err)
	}
	locked, err := local.Lock(t.Context(), api.LockRequest{Target: "orders-db", For: policy.Duration(time.Hour)})
	ok(t, err)
	all, err := lock.All(t.Context(), bucket, public)
	ok(t, err)
	if len(all) != 1 || all[0].Lock.ID != locked.Lock.ID {
		t.Errorf("by the printed key there are %d locks", len(all))
	}
	cancel()
	ok(t, <-done)
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	ok(t, os.WriteFile(filepath.Join(dir, "idp.yaml"), []byte("apiVersion: chaperone.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {name: corp}\nspec: {issuer: \"https://idp.example\", audiences: [a]}\n"), 0o600))
	if _, err := readSettings(dir); err == nil || !strings.Contains(err.Error(), "no Sink document") {
		t.Errorf("no Sink document: %v", err)
	}
	ok(t, os.WriteFile(filepath.Join(dir, "sink.yaml"), []byte("apiVersion: chaperone.dev/v1alpha1\nkind: Sink\nmetadata: {name: s}\nspec: {listen: \"127.0.0.1:1\", url: \"http://127.0.0.1:1\", login: {issuer: corp, clientID: a}}\n"), 0o600))
	if _, err := readSettings(dir); err != nil {
		t.Error(err)
	}
	ok(t, os.WriteFile(filepath.Join(dir, "mask.yaml"), []byte("apiVersion: chaperone.dev/v1alpha1\nkind: Node\nmetadata: {name: n1}\nspec: {cluster: c1}\n"), 0o600))
	if _, err := readSettings(dir); err == nil || !strings.Contains(err.Error(), "documents of a node") {
		t.Errorf("a node's document: %v", err)
	}
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

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/sink"
)

func TestRecordedCommands(t *testing.T) {
	dir := recorded(t)
	client := sink.NewClient(filepath.Join(dir, "sink.sock"))
	started, commands, err := recordedCommands(t.Context(), client, "s-1")
	ok(t, err)
	if started.Session != "s-1" || started.Principal.Subject != "ann" || started.Workload.Name != "nightly" || started.Target.Name != "orders-db" {
		t.Errorf("session %+v", started)
	}
	if len(commands) != 2 {
		t.Fatalf("%d commands: %+v", len(commands), commands)
	}
	read, drop := commands[0], commands[1]
	if !strings.HasPrefix(read.Command.Text, "SELECT card_number\n") || read.Command.Rule != "read" || read.Command.Rows != 3 || !read.Over {
		t.Errorf("first command %+v", read)
	}
	if drop.Command.Text != "DROP TABLE customers" || drop.Command.Decision != "deny" || !drop.Over || time.Since(drop.At) > time.Hour || drop.At.Before(read.At) {
		t.Errorf("second command %+v", drop)
	}

	if _, _, err := recordedCommands(t.Context(), client, "none"); err == nil || !strings.Contains(err.Error(), "no session none") {
		t.Errorf("unknown session: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "sink", "recordings", "*", "*", "s-1.rec"))
	ok(t, err)
	good, err := os.ReadFile(files[0])
	ok(t, err)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	ok(t, os.WriteFile(files[0], flipped, 0o600))
	if _, _, err := recordedCommands(t.Context(), client, "s-1"); err == nil || !strings.Contains(err.Error(), "block 0 was changed") {
		t.Errorf("changed recording: %v", err)
	}
}

// Package masking tries to read masked columns through the whole product, and
// makes sure that whoever has nothing masked notices nothing of it.
//
// corpus.sql holds the attempts, each with what must come of it, and
// ordinary.sql what ordinary clients send. Both are run over the raw protocol,
// so that every byte that a client receives is looked at. The package knows
// nothing of how masks are made: it has two databases that differ in nothing
// but their secrets, and compares what can be told about them from outside.
package masking

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
)

// A target without any mask, at an address of its own of the same server.
const (
	plainHost    = "plain.db.internal"
	plainAddress = "10.20.0.6"
)

// chaperone is the chaperone binary that the tests are about.
var chaperone string

func TestMain(m *testing.M) {
	if path := os.Getenv(relayVariable); path != "" {
		if err := relay(path); err != nil {
			fmt.Fprintln(os.Stderr, "relay:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	err := lab.Isolate(lab.Namespace{Hosts: map[string]string{stage.Host: stage.Address, plainHost: plainAddress}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "these tests need root and a kernel with namespaces, cgroup v2 and eBPF:", err)
		os.Exit(1)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chaperone-masking-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	chaperone = filepath.Join(dir, "chaperone")
	if err := stage.Build(context.Background(), chaperone, stage.Program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

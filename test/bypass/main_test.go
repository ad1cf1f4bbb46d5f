// Package bypass attacks the interception, from where a planner sits and with all
// of root's capabilities, and judges by what arrives at the target.
//
// Each row of the matrix is one attempt. It runs twice: as a control, against a
// twin of the target and outside the ancestor cgroup, to show that the attempt
// works where nothing is enforced; and in a planner's cgroup, against the target.
// The judge counts packets at the target, whatever sent them; since the daemon
// here answers diverted connections itself and never calls the target, one is
// too many.
//
// The package knows the interception by its exported methods only.
package bypass

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"chaperone.dev/chaperone/internal/lab"
)

var update = flag.Bool("update", false, "write the table of docs/security.md")

// TestMain runs the tests in network and mount namespaces of their own. The binary is
// also the daemon, and each planner.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if role, ok := roles()[os.Args[1]]; ok {
			if err := role(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	flag.Parse()
	if err := lab.Isolate(lab.Namespace{}); err != nil {
		fmt.Fprintln(os.Stderr, "these tests need root, to make namespaces and cgroups and to load kernel programs:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func roles() map[string]func([]string) error {
	return map[string]func([]string) error{
		"daemon":  daemonMain,
		"probe":   probeMain,
		"planner": plannerMain,
	}
}

package node

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps secrets in this process's memory: it leaves no core file, and
// no other process of the same user may read its memory or descriptors
// (prctl(2), PR_SET_DUMPABLE).
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switching core files off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("switching dumps off: %w", err)
	}
	return nil
}

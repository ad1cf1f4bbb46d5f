package node

import (
	"fmt"
	"os"
	"runtime/debug"

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

// gcPercent lets the heap grow to five times what is live between collections.
// That is memory that this daemon's bounded buffers leave, and collections at
// 100 % were about a twentieth of the processor time of a query.
const gcPercent = 400

// tune trades memory for processor time, unless the environment says how.
func tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

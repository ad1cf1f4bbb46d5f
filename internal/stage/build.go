package stage

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"sync"
)

// Build builds a program of this module, or of one that it depends on, into a file.
func Build(ctx context.Context, file, pkg string) error {
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", file, pkg).CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Program is the package of the chaperone binary.
const Program = "chaperone.dev/chaperone/cmd/chaperone"

// Log keeps what is written to it. It may be read while others write.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is all that was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

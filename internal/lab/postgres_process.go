package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is the server's first process.
type process struct {
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when it is over
	err  error         // why, valid after done
}

// startProcess starts "postgres -D". The goroutine that waits for it is also
// the one that started it, on a thread of its own: the parent-death signal is
// sent when the *thread* that forked is gone (prctl(2), PR_SET_PDEATHSIG), not
// the process.
func startProcess(in installation, dir string, log io.Writer) (*process, error) {
	p := &process{log: &tail{next: log}, done: make(chan struct{})}
	p.cmd = in.command(context.Background(), "postgres", "-D", filepath.Join(dir, "data"))
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // immediate shutdown
	p.cmd.SysProcAttr.Setpgid = true              // Ctrl-C is for us to handle
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.WaitDelay = 5 * time.Second

	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return p, nil
}

// stop asks for a fast shutdown (sessions are cut off, data is written) and,
// when ctx ends first, kills the server.
func (p *process) stop(ctx context.Context) error {
	// The error is that the process is over already, which done says too.
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-p.done:
		case <-time.After(2 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
		return fmt.Errorf("PostgreSQL had to be killed: %w", ctx.Err())
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		return fmt.Errorf("PostgreSQL's end: %w", p.err)
	}
	return nil
}

// tail passes a log on and keeps the end of it for error messages.
type tail struct {
	mu   sync.Mutex
	next io.Writer
	kept []byte
}

const maxTail = 8 << 10

// Write implements io.Writer. It never fails: the server's log must not be
// able to stop the server.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next != nil {
		_, _ = t.next.Write(b)
	}
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - maxTail; over > 0 {
		t.kept = bytes.Clone(t.kept[over:])
	}
	return len(b), nil
}

// String is the kept part.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}

func (t *tail) saw(what string) bool { return strings.Contains(t.String(), what) }

package stage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Daemon is a running "chaperone up".
type Daemon struct {
	cmd     *exec.Cmd
	stopped chan struct{} // closed when it has ended
	err     error         // how, then
}

// startTimeout and stopTimeout bound a daemon's start and stop.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 60 * time.Second
)

// Up starts "chaperone up" and returns when it enforces. The stage has one
// daemon at a time.
func (s *Stage) Up(ctx context.Context) (*Daemon, error) {
	// Not the caller's context: a daemon is stopped by Stop or Kill only.
	return s.Start(ctx, s.Command(context.Background(), "up", "--config", s.ConfigDir(), "--state", s.Path("state")))
}

// Upgrade starts another "chaperone up" that takes over from the running one. The stage's
// daemon is the new one then, and the old one the caller's to wait for.
func (s *Stage) Upgrade(ctx context.Context, args ...string) (*Daemon, error) {
	before := s.daemon
	args = append([]string{"up", "--config", s.ConfigDir(), "--state", s.Path("state"), "--take-over"}, args...)
	d, err := s.Start(ctx, s.Command(context.Background(), args...))
	if err != nil {
		s.daemon = before
	}
	return d, err
}

// Wait waits until the daemon has ended by itself, and says how.
func (d *Daemon) Wait(ctx context.Context) error {
	select {
	case <-d.stopped:
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start starts a daemon that tells by its first line of output that it
// enforces.
func (s *Stage) Start(ctx context.Context, cmd *exec.Cmd) (*Daemon, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var complaint head
	cmd.Stderr = io.MultiWriter(s.options.Log, &complaint)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	d := &Daemon{cmd: cmd, stopped: make(chan struct{})}
	s.daemon = d
	ready := make(chan struct{})
	go func() {
		defer close(d.stopped)
		lines := bufio.NewScanner(stdout)
		for first := true; lines.Scan(); first = false {
			if first {
				close(ready)
			}
			fmt.Fprintln(s.options.Log, lines.Text())
		}
		d.err = cmd.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-ready:
		return d, nil
	case <-d.stopped:
		return nil, fmt.Errorf("the daemon did not start: %w\n%s", d.err, complaint.String())
	case <-ctx.Done():
		err := d.Kill()
		return nil, errors.Join(fmt.Errorf("the daemon did not become ready\n%s", complaint.String()), err)
	}
}

// PID is the daemon's process id.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Reload has the daemon read its documents again.
func (d *Daemon) Reload() error { return d.cmd.Process.Signal(syscall.SIGHUP) }

// Stop ends the daemon as systemd would, and waits for it. One that has ended
// already is no error.
func (d *Daemon) Stop(ctx context.Context) error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-d.stopped:
		var status *exec.ExitError
		if errors.As(d.err, &status) && status.Sys().(syscall.WaitStatus).Signaled() {
			return nil // killed before
		}
		return d.err
	case <-ctx.Done():
		return errors.Join(errors.New("the daemon did not stop in time"), d.Kill())
	}
}

// Kill ends the daemon as kill -9 does, and waits for it.
func (d *Daemon) Kill() error {
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.stopped
	return nil
}

// head keeps the first of what is written to it.
type head struct{ text strings.Builder }

const maxHead = 8 << 10

func (t *head) Write(p []byte) (int, error) {
	if t.text.Len() < maxHead {
		t.text.Write(p[:min(len(p), maxHead-t.text.Len())])
	}
	return len(p), nil
}

func (t *head) String() string { return t.text.String() }

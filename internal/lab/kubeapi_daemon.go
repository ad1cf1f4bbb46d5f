package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// findKube is the folder that tools/kube.sh built into: in the project that the
// working directory is in, for the version that its module names.
func findKube() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("kube-apiserver: %w", err)
	}
	for {
		module, err := os.ReadFile(filepath.Join(dir, "tools", "kube", "go.mod"))
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return "", fmt.Errorf("kube-apiserver is only found from within the project's folder: %w", err)
		}
		version := regexp.MustCompile(`(?m)\sk8s\.io/kubernetes (v[0-9.]+)`).FindSubmatch(module)
		if version == nil {
			return "", fmt.Errorf("%s/tools/kube/go.mod names no version of k8s.io/kubernetes", dir)
		}
		bin := filepath.Join(dir, "bin", "kube", string(version[1]))
		if _, err := exec.LookPath(filepath.Join(bin, "kube-apiserver")); err != nil {
			return "", fmt.Errorf("kube-apiserver isn't built; run tools/kube.sh: %w", err)
		}
		return bin, nil
	}
}

// daemon is a server's process.
type daemon struct {
	name string
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when it is over
	err  error         // why, valid after done
}

// startDaemon starts a program that is killed when this process is gone. See
// startProcess for why its goroutine keeps a thread.
func startDaemon(name, dir string, log io.Writer, program string, arguments ...string) (*daemon, error) {
	d := &daemon{name: name, log: &tail{next: log}, done: make(chan struct{})}
	d.cmd = exec.Command(program, arguments...)
	d.cmd.Dir = dir
	d.cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.WaitDelay = 5 * time.Second

	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := d.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return d, nil
}

// ready asks the server until it says that it is.
func (d *daemon) ready(ctx context.Context, transport *http.Transport, url, token string) error {
	const pause = 50 * time.Millisecond
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	defer transport.CloseIdleConnections()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := client.Do(request)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(answer.Status)
		}
		select {
		case <-d.done:
			return fmt.Errorf("%s ended at its start: %w\n%s", d.name, d.err, d.log.String())
		case <-ctx.Done():
			return fmt.Errorf("%s isn't ready: %w\n%s", d.name, err, d.log.String())
		case <-time.After(pause):
		}
	}
}

// kill ends the server at once.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // it may be over already
	<-d.done
}

// stop asks the server to end, and kills it when ctx ends first.
func (d *daemon) stop(ctx context.Context) error {
	// The error is that the process is over already, which done says too.
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
		return nil
	case <-ctx.Done():
		d.kill()
		return fmt.Errorf("%s had to be killed: %w", d.name, ctx.Err())
	}
}

package masking

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/stage"
)

// With this variable the test binary is a program that a planner might be: it
// passes on what comes in at the unix socket of that name. So a planner's
// connections are the kernel's to divert, and the tests' to read.
const relayVariable = "CHAPERONE_MASKING_RELAY"

// relay serves until its standard input ends. The first line of a connection
// says where it goes.
func relay(path string) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	var connections sync.WaitGroup
	served := make(chan error, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				served <- err
				return
			}
			connections.Go(func() {
				if err := pass(conn); err != nil {
					fmt.Fprintln(os.Stderr, "relay:", err)
				}
			})
		}
	}()
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	listener.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		return err
	}
	connections.Wait()
	return nil
}

func pass(client net.Conn) error {
	defer client.Close()
	in := bufio.NewReader(client)
	address, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	server, err := net.DialTimeout("tcp", strings.TrimSpace(address), 10*time.Second)
	if err != nil {
		return err
	}
	defer server.Close()
	back := make(chan error, 1)
	go func() {
		_, err := io.Copy(client, server)
		client.(*net.UnixConn).CloseWrite()
		back <- err
	}()
	_, err = io.Copy(server, in)
	server.(*net.TCPConn).CloseWrite()
	return errors.Join(err, <-back)
}

// planner is a job whose connections the tests hold.
type planner struct{ socket string }

// startPlanner starts the relay as a planner job, until the test's end.
func startPlanner(t *testing.T, s *stage.Stage) *planner {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &planner{socket: filepath.Join(s.Dir, "relay.sock")}
	cmd := s.Planner(context.Background(), "nightly-masking", self)
	cmd.Env = append(cmd.Env, relayVariable+"="+p.socket)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endPlanner(t, cmd, stdin) })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("the planner said %q: %v", line, err)
	}
	return p
}

func endPlanner(t *testing.T, cmd *exec.Cmd, stdin io.Closer) {
	stdin.Close()
	timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the planner: %v", err)
	}
}

// dial connects from within the job.
func (p *planner) dial(ctx context.Context, _, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", p.socket)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, address+"\n"); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/stage"
)

// connectTitle is its title in the report.
const connectTitle = "connect(2) to a port that is no target's"

// connectResult are the medians of connect(2) to a port that is no target's.
type connectResult struct {
	without, with []time.Duration // the median of each run
}

// Short runs in turn, many of them: what else happens on the machine lasts
// longer than one.
const (
	connectsPerRun   = 5_000
	connectsPerRound = 8 // runs of each kind, per round
)

// measureConnect compares connect(2) in a planner's cgroup with the same
// outside, where no program is attached.
func (w *world) measureConnect(ctx context.Context, o options) (_ *connectResult, err error) {
	listener, err := listenNarrow(ctx)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	accepting, stop := context.WithCancel(ctx)
	drained := make(chan error, 1)
	go func() { drained <- drain(accepting, listener) }()
	defer func() {
		stop()
		err = errors.Join(err, <-drained)
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{clientWord, "connect", listener.Addr().String(), strconv.Itoa(connectsPerRun)}
	run := func(cmd *exec.Cmd) (time.Duration, error) {
		out, err := program(cmd)
		if err != nil {
			return 0, err
		}
		var nanoseconds int64
		if _, err := fmt.Sscan(out, &nanoseconds); err != nil {
			return 0, fmt.Errorf("the client printed %q: %w", out, err)
		}
		return time.Duration(nanoseconds), nil
	}
	var r connectResult
	for round := range connectsPerRound * o.rounds {
		order := []*[]time.Duration{&r.without, &r.with}
		if round%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		for _, into := range order {
			cmd := exec.CommandContext(ctx, self, args...)
			if into == &r.with {
				cmd = w.stage.Planner(ctx, "nightly-connect", append([]string{self}, args...)...)
			}
			took, err := run(cmd)
			if err != nil {
				return nil, err
			}
			*into = append(*into, took)
		}
	}
	fmt.Fprintf(os.Stderr, "%s: %v without, %v with\n", connectTitle, median(r.without), median(r.with))
	return &r, nil
}

// drain accepts by looking, not by waiting: so no connect(2) pays for waking
// it, which costs as much as the programs do.
func drain(ctx context.Context, listener *net.TCPListener) error {
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		err := raw.Control(func(fd uintptr) {
			for {
				conn, _, err := unix.Accept4(int(fd), unix.SOCK_CLOEXEC)
				if err != nil {
					return // nobody is there
				}
				unix.Close(conn)
			}
		})
		if err != nil {
			return err
		}
	}
}

// listenNarrow listens on loopback, without MPTCP, which Go's listeners have.
func listenNarrow(ctx context.Context) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(stage.Elsewhere, "9999"))
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// connectClient connects again and again, by the system call alone, and
// prints the median in nanoseconds.
func connectClient(_ context.Context, address, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Port: port, Addr: [4]byte(net.ParseIP(host).To4())}
	took := make([]time.Duration, 0, n)
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		// Closed with a reset, so that no port is left in TIME_WAIT.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
		started := time.Now()
		err = unix.Connect(fd, to)
		for err == syscall.EINTR {
			err = unix.Connect(fd, to)
		}
		took = append(took, time.Since(started))
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	fmt.Println(median(took).Nanoseconds())
	return nil
}

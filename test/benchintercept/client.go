package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// request is what the client is to do, in the cgroup that it has been moved to.
type request struct {
	Do      string // connect, send, ask
	To      netip.AddrPort
	Count   int
	Netns   string // a network namespace to do it in, or ""
	Clients int    // of ask: how many at once; Count is of each
	// Of ask: whether the socket is connected, as glibc's are, or not, as musl's.
	Connected bool
}

// reply is how long each call took, in ns.
type reply struct {
	P50, P99 float64
	Error    string `json:",omitempty"`
}

// serveRequests is the client: it does what it reads, one after the other.
func serveRequests(in io.Reader, out io.Writer) error {
	runtime.LockOSThread() // a thread that has another's caches would be another client
	requests, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var r request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		took, err := doIn(r)
		var a reply
		if err != nil {
			a.Error = err.Error()
		} else {
			slices.Sort(took)
			a = reply{P50: float64(took[len(took)/2]), P99: float64(took[len(took)*99/100])}
		}
		if err := replies.Encode(a); err != nil {
			return err
		}
	}
}

func doIn(r request) ([]time.Duration, error) {
	if r.Netns == "" {
		return do(r)
	}
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	there, err := os.Open(r.Netns)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	took, err := do(r)
	return took, errors.Join(err, unix.Setns(int(home.Fd()), unix.CLONE_NEWNET))
}

func do(r request) ([]time.Duration, error) {
	switch r.Do {
	case "connect":
		return connects(r.To, r.Count)
	case "send":
		return sends(r.To, r.Count)
	case "ask":
		return asks(r)
	}
	return nil, fmt.Errorf("no request %q", r.Do)
}

func rawAddress(to netip.AddrPort) unix.RawSockaddrInet4 {
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Port: to.Port()<<8 | to.Port()>>8, Addr: to.Addr().As4()}
}

// connects connects again and again, by the system calls alone: Go's scheduler is told
// of none.
func connects(to netip.AddrPort, count int) ([]time.Duration, error) {
	address, reset := rawAddress(to), unix.Linger{Onoff: 1}
	took := make([]time.Duration, 0, count)
	for range count {
		fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if errno != 0 {
			return nil, fmt.Errorf("socket: %w", errno)
		}
		// Closed with a reset, so that no port is left in TIME_WAIT.
		_, _, errno = unix.RawSyscall6(unix.SYS_SETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_LINGER,
			uintptr(unsafe.Pointer(&reset)), unsafe.Sizeof(reset), 0)
		if errno != 0 {
			return nil, fmt.Errorf("linger: %w", errno)
		}
		started := time.Now()
		_, _, errno = unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address))
		took = append(took, time.Since(started))
		unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		if errno != 0 {
			return nil, fmt.Errorf("connect to %s: %w", to, errno)
		}
	}
	return took, nil
}

// sends sends datagrams that have an address of their own by one socket.
func sends(to netip.AddrPort, count int) ([]time.Duration, error) {
	address, payload := rawAddress(to), [64]byte{}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	took := make([]time.Duration, 0, count)
	for range count {
		started := time.Now()
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&payload)), unsafe.Sizeof(payload), 0,
			uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address))
		took = append(took, time.Since(started))
		if errno != 0 {
			return nil, fmt.Errorf("send to %s: %w", to, errno)
		}
	}
	return took, nil
}

// asks asks for a name, by several clients at once.
func asks(r request) ([]time.Duration, error) {
	// A thread of its own for each, that waits in the kernel like any C program's.
	before := runtime.GOMAXPROCS(r.Clients + runtime.NumCPU())
	defer runtime.GOMAXPROCS(before)
	type result struct {
		took []time.Duration
		err  error
	}
	results, start := make(chan result, r.Clients), make(chan struct{})
	for range r.Clients {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-start
			a := result{took: make([]time.Duration, 0, r.Count)}
			for n := 0; n < r.Count && a.err == nil; n++ {
				started := time.Now()
				a.err = ask(r.To, r.Connected, uint16(n))
				a.took = append(a.took, time.Since(started))
			}
			results <- a
		}()
	}
	close(start)
	var took []time.Duration
	var errs []error
	for range r.Clients {
		a := <-results
		took, errs = append(took, a.took...), append(errs, a.err)
	}
	return took, errors.Join(errs...)
}

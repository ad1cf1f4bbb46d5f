package intercept

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A daemon that is killed while it changes what is captured, allowed and enrolled, wherever in
// that, never lets through what was captured before and is to be after, nor
// what is allowed neither before nor after.
func TestKilledInTheMiddleOfUpdates(t *testing.T) {
	w := newWorld(t)
	two := filepath.Join(w.jobs, "two")
	if err := os.Mkdir(two, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := w.i.EnrollAs(two, churnProfile); err != nil {
		t.Fatal(err)
	}
	w.capture(alwaysCaptured()...)
	if err := w.i.Egress(map[uint32][]Destination{churnProfile: nil}, false); err != nil {
		t.Fatal(err)
	}
	w.stop()

	captured := w.knock(w.job, at(target4, capturedPort))
	mapped := w.knock(w.job, at(target6, capturedPort))
	unlisted := w.knock(two, at(target4, otherPort))
	for range 12 {
		w.churnAndKill()
	}
	for name, stop := range map[string]func() answer{"captured": captured, "captured, by IPv6": mapped, "not allowed": unlisted} {
		a := stop()
		through, tries := 0, 0
		for said, n := range a.Counts {
			tries += n
			if said == "REAL" {
				through = n
			}
		}
		if through > 0 {
			t.Errorf("%s: %d of %d connections got through", name, through, tries)
		}
		if tries < 100 {
			t.Errorf("%s: only %d connections were tried", name, tries)
		}
		t.Logf("%s: %v", name, a.Counts)
	}
	w.start()
}

const churnProfile = 7

func alwaysCaptured() []Capture {
	return []Capture{
		{Addr: netip.MustParseAddr(target4), Port: capturedPort, Action: Redirect},
		{Addr: netip.MustParseAddr(target6), Port: capturedPort, Action: Redirect},
	}
}

// churnAndKill starts a daemon that changes everything all the time, and kills it somewhere in that.
func (w *world) churnAndKill() {
	w.t.Helper()
	cmd := exec.Command("/proc/self/exe", "churn", w.options.Ancestor, w.options.PinDir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	_, err = io.ReadFull(out, make([]byte, 1)) // it has begun
	time.Sleep(time.Duration(rand.IntN(40_000)) * time.Microsecond)
	cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		w.t.Fatalf("the daemon never began: %v", err)
	}
}

// churn is such a daemon.
func churn(args []string) (answer, error) {
	i, err := Open(context.Background(), Options{
		Ancestor: args[0], PinDir: args[1], Port: listenerPort, Probe: []string{"/proc/self/exe", "probe"},
	})
	if err != nil {
		return answer{}, err
	}
	listeners, err := i.Listen(context.Background(), Namespace{})
	if err != nil {
		return answer{}, err
	}
	for _, l := range listeners {
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(conn, "PROXY")
				conn.Close()
			}
		}()
	}
	fmt.Print("!")
	extra := filepath.Join(args[0], "jobs", "extra")
	if err := os.MkdirAll(extra, 0o755); err != nil {
		return answer{}, err
	}
	for n := 0; ; n++ {
		captures := alwaysCaptured()
		var addrs []netip.Addr
		var allowed []Destination
		for k := range n % 8 {
			addr := netip.AddrFrom4([4]byte{10, 99, byte(n), byte(k)})
			captures = append(captures, Capture{Addr: addr, Port: uint16(1000 + k), Action: Redirect})
			addrs = append(addrs, addr)
			allowed = append(allowed, Destination{Prefix: netip.PrefixFrom(addr, 24).Masked(), Port: uint16(2000 + k)})
		}
		if n%3 == 0 { // the same destinations, captured otherwise
			captures = append(captures, Capture{Port: capturedPort, Action: Deny})
		}
		id, err := i.EnrollAs(extra, uint32(n%2)*churnProfile)
		err = errors.Join(err, i.Capture(captures), i.Protect(addrs),
			i.Egress(map[uint32][]Destination{churnProfile: allowed}, n%2 == 0), i.Allow(churnProfile, allowed), i.Withdraw(id))
		if err != nil {
			return answer{}, err
		}
	}
}

// knock connects from a cgroup, again and again, until what it returns is called.
func (w *world) knock(cgroup, to string) (stop func() answer) {
	w.t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		w.t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe", "knock", to)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { cmd.Process.Kill() }) // if the test fails before
	return func() answer {
		w.t.Helper()
		in.Close()
		var a answer
		err := json.NewDecoder(out).Decode(&a)
		if err := errors.Join(err, cmd.Wait()); err != nil {
			w.t.Fatalf("knocking at %s: %v", to, err)
		}
		return a
	}
}

// knock counts what connections come to until its input ends: "address".
func knock(args []string) (answer, error) {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	a := answer{Counts: map[string]int{}}
	for {
		select {
		case <-ended:
			return a, nil
		default:
		}
		family, sa := sockaddr(netip.MustParseAddrPort(args[0]))
		fd, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP)
		if err != nil {
			return a, err
		}
		got, err := connectAndHear(fd, sa)
		unix.Close(fd)
		time.Sleep(100 * time.Microsecond) // else it would leave the daemon no processor
		errno := unix.Errno(0)
		switch {
		case errors.As(err, &errno):
			a.Counts[unix.ErrnoName(errno)]++
		case err != nil:
			return a, err
		case len(got.Said) >= 4 && got.Said[:4] == "REAL":
			a.Counts["REAL"]++
		default:
			a.Counts["PROXY or closed"]++
		}
	}
}

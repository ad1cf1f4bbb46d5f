package intercept

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reports collects what the kernel reports until the test ends.
type reports struct {
	all chan Bypass
}

func (w *world) watch() *reports {
	r := &reports{all: make(chan Bypass, 1024)}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	i := w.i
	watching.Go(func() {
		if err := i.Bypasses(ctx, func(b Bypass) { r.all <- b }); err != nil {
			w.t.Errorf("reports: %v", err)
		}
	})
	w.t.Cleanup(func() { cancel(); watching.Wait() })
	return r
}

// next returns the next report of an outcome.
func (r *reports) next(t *testing.T, want Outcome) Bypass {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case b := <-r.all:
			if b.Outcome == want {
				return b
			}
		case <-timeout:
			t.Fatalf("no report of %s came", want)
		}
	}
}

// nextDrop returns the next report of a packet.
func (r *reports) nextDrop(t *testing.T) Bypass {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case b := <-r.all:
			if b.Outcome == DroppedTarget || b.Outcome == DroppedUnreadable {
				return b
			}
		case <-timeout:
			t.Fatal("no report of a dropped packet came")
		}
	}
}

// What can't be diverted is refused, and reported with who tried.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.capture(
		Capture{Addr: netip.MustParseAddr(target4), Port: capturedPort, Action: Redirect},
		Capture{Addr: netip.MustParseAddr(target6), Port: capturedPort, Action: Redirect},
		Capture{Addr: netip.MustParseAddr(alias4), Port: capturedPort, Action: Deny},
	)
	r := w.watch()
	captured4, captured6 := at(target4, capturedPort), at(target6, capturedPort)
	for _, c := range []struct {
		name    string
		cgroup  string
		action  []string
		outcome Outcome
		hook    string
		socket  string
		to      string
	}{
		{"UDP", w.job, []string{"udp", captured4}, RefusedProtocol, "sendmsg", "udp", captured4},
		{"UDP, IPv6", w.job, []string{"udp", captured6}, RefusedProtocol, "sendmsg", "udp", captured6},
		{"UDP, unspecified", w.job, []string{"udp", "[::ffff:10.77.0.1]:5999"}, RefusedProtocol, "sendmsg", "udp", captured4},
		{"connected UDP", w.job, []string{"udpconnect", captured4}, RefusedProtocol, "connect", "udp", captured4},
		{"connected UDP, IPv6", w.job, []string{"udpconnect", captured6}, RefusedProtocol, "connect", "udp", captured6},
		{"denied target", w.job, []string{"tcp", at(alias4, capturedPort)}, RefusedTarget, "connect", "tcp", at(alias4, capturedPort)},
		{"stranger", w.stranger, []string{"tcp", captured4}, RefusedStranger, "connect", "tcp", captured4},
		{"stranger, IPv6", w.stranger, []string{"tcp", captured6}, RefusedStranger, "connect", "tcp", captured6},
		{"stranger, UDP", w.stranger, []string{"udp", captured4}, RefusedStranger, "sendmsg", "udp", captured4},
		{"listener", w.job, []string{"tcp", at("127.0.0.1", listenerPort)}, RefusedListener, "connect", "tcp", at("127.0.0.1", listenerPort)},
		{"listener, IPv6", w.job, []string{"tcp", at("::1", listenerPort)}, RefusedListener, "connect", "tcp", at("::1", listenerPort)},
		{"listener, IPv4 in IPv6", w.job, []string{"mapped", at("127.0.0.1", listenerPort)}, RefusedListener, "connect", "tcp", at("127.0.0.1", listenerPort)},
		{"listener, unspecified", w.job, []string{"tcp", at("0.0.0.0", listenerPort)}, RefusedListener, "connect", "tcp", at("127.0.0.1", listenerPort)},
		{"listener, by a stranger", w.stranger, []string{"tcp", at("127.0.0.1", listenerPort)}, RefusedListener, "connect", "tcp", at("127.0.0.1", listenerPort)},
		{"listener's port", w.job, []string{"bind", at("127.0.0.9", listenerPort)}, RefusedBind, "bind", "tcp", at("127.0.0.9", listenerPort)},
		{"listener's port, IPv6", w.job, []string{"bind", at("::", listenerPort)}, RefusedBind, "bind", "tcp", at("::", listenerPort)},
		{"MPTCP", w.job, []string{"mptcp", captured4}, RefusedSocket, "sock_create", "mptcp", ""},
		{"raw socket", w.job, []string{"socket", "2", "3", "255"}, RefusedSocket, "sock_create", "raw", ""},
		{"raw socket, IPv6", w.job, []string{"socket", "10", "3", "17"}, RefusedSocket, "sock_create", "raw", ""},
		{"UDP-Lite", w.job, []string{"socket", "2", "2", "136"}, RefusedSocket, "sock_create", "udplite", ""},
		{"ping", w.job, []string{"socket", "2", "2", "1"}, RefusedSocket, "sock_create", "icmp", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, run := w.client(c.cgroup, c.action...)
			got := run()
			if got.Error == "EPROTONOSUPPORT" || got.Error == "EACCES" {
				t.Fatalf("the kernel has no such socket (%s), so this shows nothing", got.Error)
			}
			wantError(t, got, "EPERM")
			b := r.next(t, c.outcome)
			want := Bypass{Netns: netnsCookie(t), At: b.At, Outcome: c.outcome, Hook: c.hook, Socket: c.socket, Workload: w.jobID, Process: b.Process}
			if c.to != "" {
				want.Destination = netip.MustParseAddrPort(c.to)
			} else {
				want.Netns = 0
			}
			if c.cgroup == w.stranger {
				want.Workload = 0
			}
			cg, err := stat(c.cgroup)
			if err != nil {
				t.Fatal(err)
			}
			want.Cgroup = cg.id
			if b != want {
				t.Errorf("report\n%+v, want\n%+v", b, want)
			}
			if b.Process.PID != uint32(cmd.Process.Pid) || b.Process.Comm != "exe" {
				t.Errorf("process %+v, want %d", b.Process, cmd.Process.Pid)
			}
		})
	}
	if n := w.target.datagrams.Load(); n != 0 {
		t.Errorf("%d datagrams reached the target", n)
	}
}

// netnsCookie is that of the tests' own network namespace.
func netnsCookie(t *testing.T) uint64 {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}

// A connection that was not diverted has no origin, and an origin is taken once.
func TestOriginOnce(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	for _, l := range w.proxy {
		l.SetDeadline(w.lastMoment())
	}
	w.serving.Wait()
	listener := w.proxy[0]
	listener.SetDeadline(time.Time{})

	var client sync.WaitGroup
	client.Go(func() { w.run(w.job, "tcp", at(target4, capturedPort)) })
	conn, err := listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	takers := make(chan error, 8)
	for range cap(takers) {
		go func() { _, err := w.i.Origin(conn); takers <- err }()
	}
	taken := 0
	for range cap(takers) {
		if err := <-takers; err == nil {
			taken++
		} else if !errors.Is(err, ErrNotDiverted) {
			t.Errorf("origin: %v, want ErrNotDiverted", err)
		}
	}
	if taken != 1 {
		t.Errorf("%d callers took the origin, want 1", taken)
	}
	conn.Close()
	client.Wait()

	client.Go(func() { w.run(w.outside, "tcp", at("127.0.0.1", listenerPort)) })
	conn, err = listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.i.Origin(conn); !errors.Is(err, ErrNotDiverted) {
		t.Errorf("origin of a connection from outside: %v, want ErrNotDiverted", err)
	}
	conn.Close()
	client.Wait()
}

// Sockets that were made before their process became a planner's are diverted or
// dropped all the same.
func TestSocketsFromBefore(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	to := at(target4, capturedPort)
	wantSaid(t, w.run(w.stranger, "premade", w.job, "tcp", to), "PROXY "+to)
	wantError(t, w.run(w.stranger, "premade", w.job, "udp", to), "EPERM")
	wantError(t, w.run(w.stranger, "premade", w.job, "raw", to), "EPERM")
	if n := w.target.datagrams.Load(); n != 0 {
		t.Errorf("%d datagrams reached the target", n)
	}
}

// runLate runs the action "late", and between whatever comes between its socket and
// its packet.
func (w *world) runLate(cgroup, to, kind string, between func()) answer {
	w.t.Helper()
	cmd, _ := w.client(cgroup, "late", to, kind)
	cmd.Stdout = nil
	stdin, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "ready" {
		w.t.Fatalf("client said %q, want to be ready", lines.Text())
	}
	between()
	if _, err := stdin.Write([]byte("\n")); err != nil {
		w.t.Fatal(err)
	}
	var got answer
	lines.Scan()
	if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		w.t.Fatal(err)
	}
	return got
}

// A socket that was connected before its destination was captured sends no more.
func TestConnectedBeforeCapture(t *testing.T) {
	w := newWorld(t)
	r := w.watch()
	to := at(target4, capturedPort)
	wantError(t, w.runLate(w.job, to, "udp", w.captureTarget), "EPERM")
	b := r.next(t, DroppedTarget)
	if b.Workload != w.jobID || b.Hook != "egress" || b.Socket != "udp" || b.Destination != netip.MustParseAddrPort(to) {
		t.Errorf("report %+v, want a UDP packet of the planner to the target", b)
	}
	if n := w.target.datagrams.Load(); n != 0 {
		t.Errorf("%d datagrams reached the target", n)
	}
}

// Of a planner no packet passes whose port can't be told, when any could be captured.
func TestPlannersUnreadablePackets(t *testing.T) {
	w := newWorld(t)
	w.capture(Capture{Port: capturedPort, Action: Redirect})
	for _, kind := range []string{"fragment", "options", "unknown"} {
		if err := w.i.Withdraw(w.jobID); err != nil {
			t.Fatal(err)
		}
		got := w.runLate(w.job, at(alias4, otherPort), kind, func() {
			if _, err := w.i.Enroll(w.job); err != nil {
				t.Fatal(err)
			}
		})
		wantError(t, got, "EPERM")
	}
	if n := w.stats()[DroppedUnreadable]; n != 3 {
		t.Errorf("%d unreadable packets were dropped, want 3", n)
	}
}

// Packets that are made by hand get no further, and what has nothing to do with a
// target does. Strangers make them here, since planners get no raw socket.
func TestBelt(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	for _, c := range []struct{ name, to, kind, want string }{
		{"to the target", at(target4, capturedPort), "plain", "EPERM"},
		{"to another port", at(target4, otherPort), "plain", ""},
		{"to another address", at(alias4, capturedPort), "plain", ""},
		{"a later fragment to the target", at(target4, otherPort), "fragment", "EPERM"},
		{"a later fragment to another address", at(alias4, otherPort), "fragment", ""},
		{"with options, to the target", at(target4, otherPort), "options", "EPERM"},
		{"of an unknown protocol, to the target", at(target4, otherPort), "unknown", "EPERM"},
		{"of an unknown protocol, to another address", at(alias4, otherPort), "unknown", ""},
		{"IPv6, to the target", at(target6, capturedPort), "plain", "EPERM"},
		{"IPv6, to another port", at(target6, otherPort), "plain", ""},
		{"IPv6 with options, to the target", at(target6, capturedPort), "options", "EPERM"},
		{"IPv6 with options, to another port", at(target6, otherPort), "options", ""},
		{"IPv6, a later fragment to the target", at(target6, otherPort), "fragment", "EPERM"},
		{"IPv6 with a routing header, to the target", at(target6, otherPort), "routing", "EPERM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantError(t, w.run(w.stranger, "raw", c.to, c.kind), c.want)
		})
	}
	// With a port captured on all addresses an unknown cgroup may be a planner's that
	// hides it; of a bystander's other traffic nothing is lost.
	w.capture(Capture{Port: capturedPort, Action: Redirect})
	wantError(t, w.run(w.stranger, "raw", at(alias4, capturedPort), "plain"), "EPERM")
	for _, kind := range []string{"fragment", "unknown", "options"} {
		wantError(t, w.run(w.stranger, "raw", at(alias4, otherPort), kind), "EPERM")
	}
	if _, err := w.i.Pass(w.stranger); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"fragment", "unknown", "options"} {
		wantError(t, w.run(w.stranger, "raw", at(alias4, otherPort), kind), "")
	}
}

// A flood is counted to the last attempt, and reported at a bounded rate.
func TestReportsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	before := w.stats()
	const attempts = 2000
	got := w.run(w.stranger, "hold", at(target4, capturedPort), "2000")
	if got.Counts["refused"] != attempts {
		t.Fatalf("client: %v, want %d refused", got.Counts, attempts)
	}
	after := w.stats()
	if n := after[RefusedStranger] - before[RefusedStranger]; n != attempts {
		t.Errorf("%d refusals were counted, want %d", n, attempts)
	}
	if n := after[Unreported] - before[Unreported]; n == 0 {
		t.Errorf("all %d refusals were reported, want some not to be", attempts)
	}
}

// Namespaces other than the daemon's have listeners of their own.
func TestListenInNamespace(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	path := newNamespace(t)
	to := at(target4, capturedPort)
	wantError(t, w.run(w.job, "netns", path, "tcp", to), "ECONNREFUSED")
	listeners, err := w.i.Listen(context.Background(), Namespace{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		w.serve(l)
		w.proxy = append(w.proxy, l)
	}
	wantSaid(t, w.run(w.job, "netns", path, "tcp", to), "PROXY "+to)
	wantSaid(t, w.run(w.job, "netns", path, "tcp", at(target6, capturedPort)), "PROXY "+at(target6, capturedPort))
	wantSaid(t, w.run(w.job, "tcp", to), "PROXY "+to)
	checkBridgeEmpty(t, w)
	if _, err := w.i.Listen(context.Background(), Namespace{Path: "/nowhere"}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("listening in a namespace that is none: %v, want ENOENT", err)
	}
}

// The listeners speak plain TCP, and are found on loopback only.
func TestListeners(t *testing.T) {
	w := newWorld(t)
	if len(w.proxy) != 2 {
		t.Fatalf("%d listeners, want one for IPv4 and one for IPv6", len(w.proxy))
	}
	for n, want := range []string{"127.0.0.1:15999", "[::1]:15999"} {
		if got := w.proxy[n].Addr().String(); got != want {
			t.Errorf("listener on %s, want %s", got, want)
		}
		raw, err := w.proxy[n].SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := control(raw, func(fd int) error {
			protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
			if protocol != unix.IPPROTO_TCP {
				t.Errorf("listener's protocol is %d, want TCP", protocol)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.i.Listen(context.Background(), Namespace{}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("listening twice: %v, want EADDRINUSE", err)
	}
	var operr *net.OpError
	if _, err := w.i.Listen(context.Background(), Namespace{}); !errors.As(err, &operr) || !strings.Contains(err.Error(), "15999") {
		t.Errorf("the error %q doesn't name the port", err)
	}
}

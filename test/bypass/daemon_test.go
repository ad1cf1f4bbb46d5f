package bypass

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/intercept"
)

// The suite's daemon: a process of its own, so that it can be killed. It does with
// package intercept what the real one does, answers diverted connections itself
// and dials nobody.

// daemonSetup is the daemon's argument.
type daemonSetup struct {
	Ancestor, Pins string
	Namespaces     []string // beside its own
	Uplinks        []string // interfaces to guard
	NodeBelt       bool
	BeltCgroup     string
}

// order is a line on the daemon's stdin; to each there is one reply on stdout.
type order struct {
	Op       string // enroll, guard, withdraw, capture, mark, tell
	Path     string // of enroll the cgroup, of guard its network namespace
	ID       uint64
	Captures []intercept.Capture
	Marks    int // of tell: wait until more markers than these were reported
}

type reply struct {
	Error    string `json:",omitempty"`
	ID       uint64
	Missing  []string // of the first: optional programs that are not in force
	Marks    int      // of mark: the markers that were reported
	Late     bool
	Seen     []sighting
	Sessions []session
}

// sighting is a reported attempt, session a connection that came to the listener.
type sighting struct {
	Outcome, Hook string
	Workload      uint64
	Destination   netip.AddrPort
}

type session struct {
	Diverted    bool
	Workload    uint64
	Destination netip.AddrPort
}

// marker is a captured destination that is nobody's. A datagram to it is
// reported after all that was reported before.
var marker = netip.MustParseAddrPort("203.0.113.200:4000")

const tellTimeout = 3 * time.Second

// server is the state of the daemon process.
type server struct {
	i        *intercept.Interceptor
	mu       sync.Mutex
	changed  *sync.Cond
	marks    int
	seen     []sighting
	sessions []session
}

func daemonMain(args []string) error {
	var setup daemonSetup
	if err := json.Unmarshal([]byte(args[0]), &setup); err != nil {
		return err
	}
	ctx := context.Background()
	i, err := intercept.Open(ctx, intercept.Options{
		Ancestor: setup.Ancestor,
		PinDir:   setup.Pins,
		Port:     listenerPort,
		Probe:    []string{"/proc/self/exe", "probe"},
		NodeBelt: setup.NodeBelt, BeltCgroup: setup.BeltCgroup,
		Log: zerolog.New(os.Stderr).Level(zerolog.ErrorLevel),
	})
	if err != nil {
		return err
	}
	s := &server{i: i}
	s.changed = sync.NewCond(&s.mu)
	for _, path := range append([]string{""}, setup.Namespaces...) {
		listeners, err := i.Listen(ctx, intercept.Namespace{Path: path})
		if err != nil {
			return err
		}
		for _, l := range listeners {
			go s.serve(l)
		}
	}
	for _, name := range setup.Uplinks {
		index, err := deviceIndex(name)
		if err != nil {
			return err
		}
		if err := i.GuardUplink(index); err != nil {
			return err
		}
	}
	go func() {
		if err := i.Bypasses(ctx, s.see); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	return s.obey(os.Stdin, os.Stdout)
}

func probeMain(args []string) error {
	return intercept.Probe(context.Background(), os.Stdout, args[0])
}

// serve tells each client where it was going, or that it was sent by nobody.
func (s *server) serve(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return
		}
		o, err := s.i.Origin(conn)
		s.mu.Lock()
		s.sessions = append(s.sessions, session{Diverted: err == nil, Workload: o.Workload, Destination: o.Destination})
		s.mu.Unlock()
		go func() {
			defer conn.Close()
			if err != nil {
				io.WriteString(conn, "NO ORIGIN")
			} else {
				fmt.Fprintf(conn, "PROXY %s", o.Destination)
			}
			conn.CloseWrite()
			conn.SetReadDeadline(time.Now().Add(time.Second))
			io.Copy(io.Discard, io.LimitReader(conn, 1<<16)) // what a Fast Open brought
		}()
	}
}

func (s *server) see(b intercept.Bypass) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.Destination == marker {
		s.marks++
		s.changed.Broadcast()
		return
	}
	s.seen = append(s.seen, sighting{string(b.Outcome), b.Hook, b.Workload, b.Destination})
}

func (s *server) obey(from io.Reader, to io.Writer) error {
	answers := json.NewEncoder(to)
	var ready reply
	for _, m := range s.i.Missing() {
		ready.Missing = append(ready.Missing, m.Program)
	}
	if err := answers.Encode(ready); err != nil {
		return err
	}
	orders := json.NewDecoder(from)
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return s.i.Close()
		} else if err != nil {
			return err
		}
		var (
			r   reply
			err error
		)
		switch o.Op {
		case "enroll":
			r.ID, err = s.i.Enroll(o.Path)
		case "guard":
			_, err = s.i.GuardPlanner(intercept.Namespace{Path: o.Path}, o.ID)
		case "withdraw":
			err = s.i.Withdraw(o.ID)
		case "capture":
			err = errors.Join(s.i.Capture(o.Captures), s.i.Protect([]netip.Addr{target.V4, target.V6}))
		case "mark":
			s.mu.Lock()
			r.Marks = s.marks
			s.mu.Unlock()
		case "tell":
			r = s.tell(o.Marks)
		default:
			err = fmt.Errorf("unknown order %q", o.Op)
		}
		if err != nil {
			r.Error = err.Error()
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
}

// tell hands over what was seen since the last time, once all of it has come.
func (s *server) tell(marks int) reply {
	gaveUp := false
	timeout := time.AfterFunc(tellTimeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		gaveUp = true
		s.changed.Broadcast()
	})
	defer timeout.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.marks <= marks && !gaveUp {
		s.changed.Wait()
	}
	r := reply{Late: gaveUp, Seen: s.seen, Sessions: s.sessions}
	s.seen, s.sessions = nil, nil
	return r
}

// daemon is the tests' end of the process.
type daemon struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
	lines  *json.Decoder
	ready  reply
}

func startDaemon(t testing.TB, setup daemonSetup) *daemon {
	t.Helper()
	arg, err := json.Marshal(setup)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{cmd: exec.Command("/proc/self/exe", "daemon", string(arg))}
	d.cmd.Stderr = os.Stderr
	if d.orders, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start the daemon: %v", err)
	}
	d.lines = json.NewDecoder(bufio.NewReader(stdout))
	if err := d.lines.Decode(&d.ready); err != nil {
		t.Fatalf("the daemon did not start: %v, %v", err, d.cmd.Wait())
	}
	return d
}

func (d *daemon) do(t testing.TB, o order) reply {
	t.Helper()
	if err := json.NewEncoder(d.orders).Encode(o); err != nil {
		t.Fatalf("daemon, %s: %v", o.Op, err)
	}
	var r reply
	if err := d.lines.Decode(&r); err != nil {
		t.Fatalf("daemon, %s: %v", o.Op, err)
	}
	if r.Error != "" {
		t.Fatalf("daemon, %s: %s", o.Op, r.Error)
	}
	return r
}

// stumble starts a daemon and kills it after a while, wherever it is by then.
func (w *world) stumble(t testing.TB, after time.Duration) {
	t.Helper()
	arg, err := json.Marshal(w.setup)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), after)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "daemon", string(arg))
	orders, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer orders.Close()
	cmd.Run() // says that it was killed, by the context
}

// stop lets the daemon end in order, kill doesn't.
func (d *daemon) stop(t testing.TB) {
	t.Helper()
	d.orders.Close()
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("the daemon stopped with %v", err)
	}
}

func (d *daemon) kill(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Errorf("kill the daemon: %v", err)
	}
	d.cmd.Wait() // says that it was killed
	d.orders.Close()
}

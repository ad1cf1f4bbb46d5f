package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/lab"
)

// Addresses in the tests' own namespace.
const (
	realServer = "10.78.0.1:53" // a Knot DNS, for all tests
	stranger   = "10.78.0.2"    // a server that a planner may choose
)

// TestMain runs the tests in namespaces of their own: port 53 is theirs, and
// /etc/resolv.conf names 127.0.0.1, where the test of programs listens. An IPv6 address
// makes programs ask for those.
func TestMain(m *testing.M) {
	if lab.Isolated() { // a fuzzing worker, in the namespaces of who started it
		os.Exit(m.Run())
	}
	if err := lab.Isolate(lab.Namespace{Addresses: []string{"10.78.0.1", stranger, "fd78::1"}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chaperone-resolver-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	conf := filepath.Join(dir, "client-resolv.conf")
	err = errors.Join(
		os.WriteFile(conf, []byte("search elsewhere.test example.test\nnameserver 127.0.0.1\n"), 0o644),
		unix.Mount(conf, "/etc/resolv.conf", "", unix.MS_BIND, ""))
	if err != nil {
		fmt.Fprintln(os.Stderr, "can't put a resolv.conf in place:", err)
		return 1
	}
	stop, err := startKnot(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "these tests need Debian's package knot:", err)
		return 1
	}
	defer stop()
	return m.Run()
}

const knotConf = `
server:
    rundir: "%[1]s"
    listen: 10.78.0.1@53
    user: root
log:
  - target: stderr
    any: warning
database:
    storage: "%[1]s"
template:
  - id: default
    storage: "%[1]s"
zone:
  - domain: example.test
  - domain: signed.test
    dnssec-signing: on
  - domain: 10.in-addr.arpa
`

var zones = map[string]string{
	"example.test.zone": `$ORIGIN example.test.
$TTL 300
@     SOA ns hostmaster 1 3600 600 86400 60
@     NS  ns
ns    A   10.78.0.1
db    A   10.1.0.1
db    A   10.1.0.2
db    60 AAAA fd00::1
www   200 CNAME app
app   100 CNAME db
mapped AAAA ::ffff:10.1.0.9
old   DNAME new
host.new A 10.1.0.7
mx    MX  10 db
svc   HTTPS 1 . alpn=h2 ipv4hint=10.1.0.3 ipv6hint=fd00::3
_8443._https.api HTTPS 1 pool alpn=h2 ipv4hint=10.1.0.4
pool  A   10.1.0.5
note  TXT "no address"
*.wild A  10.1.0.8
` + manyAddresses("many", 40) + manyAddresses("huge", 2000),
	"signed.test.zone": `$ORIGIN signed.test.
$TTL 300
@     SOA ns hostmaster 1 3600 600 86400 60
@     NS  ns
ns    A   10.78.0.1
db    A   10.2.0.1
`,
	"10.in-addr.arpa.zone": `$ORIGIN 10.in-addr.arpa.
$TTL 300
@     SOA ns.example.test. hostmaster.example.test. 1 3600 600 86400 60
@     NS  ns.example.test.
1.0.1 PTR db.example.test.
`,
}

func manyAddresses(name string, n int) (lines string) {
	for i := range n {
		lines += fmt.Sprintf("%s A 10.9.%d.%d\n", name, i/250, i%250)
	}
	return lines
}

// startKnot starts the server and returns when it answers.
func startKnot(dir string) (stop func(), err error) {
	for name, text := range zones {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	conf := filepath.Join(dir, "knot.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, knotConf, dir), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("knotd", "-c", conf)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, over := make(chan error), make(chan error, 1)
	go func() {
		// The parent-death signal follows the thread that forked.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			over <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-over:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-over
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		ready := true
		for _, name := range []string{"example.test.", "signed.test.", "10.in-addr.arpa."} {
			m := new(dns.Msg).SetQuestion(name, dns.TypeSOA)
			m.SetEdns0(1232, true)
			answer, err := dns.ExchangeContext(ctx, m, realServer)
			signed := err == nil && (name != "signed.test." || len(answer.Answer) == 2)
			ready = ready && err == nil && answer.Rcode == dns.RcodeSuccess && signed
		}
		if ready {
			return stop, nil
		}
		select {
		case err := <-over:
			return nil, fmt.Errorf("knotd ended: %w", err)
		case <-ctx.Done():
			stop()
			return nil, errors.New("knotd doesn't answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// listenUDP and listenTCP are the daemon's sockets.
func listenUDP(tb testing.TB, at string) *net.UDPConn {
	tb.Helper()
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func listenTCP(tb testing.TB, at string) net.Listener {
	tb.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

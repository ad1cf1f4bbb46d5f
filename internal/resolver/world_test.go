package resolver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// planner is the workload of all senders, unless a test says otherwise.
const planner = 7

// watcher notes what it is told.
type watcher struct {
	deny string // a name that is not admitted
	fail error
	// onLearned is called first, if there.
	onLearned func(ctx context.Context, workload uint64, name string)

	mu      sync.Mutex
	learned map[string]string // "addresses ttl" by name
	asked   []string
}

func (w *watcher) Admit(workload uint64, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, name)
	return w.deny == "" || name != w.deny
}

func (w *watcher) Learned(ctx context.Context, workload uint64, name string, addrs []netip.Addr, ttl time.Duration) error {
	if w.onLearned != nil {
		w.onLearned(ctx, workload, name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.learned == nil {
		w.learned = map[string]string{}
	}
	var text []string
	for _, addr := range addrs {
		text = append(text, addr.String())
	}
	w.learned[name] = strings.Join(append(text, ttl.String()), " ")
	return w.fail
}

// taught returns what was learned since it was last called.
func (w *watcher) taught() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	learned := w.learned
	w.learned = nil
	return learned
}

// served is a resolver that is asked at addr over UDP and TCP.
type served struct {
	*Resolver
	*watcher
	addr  string
	hosts string // its files
	conf  string
}

// serve starts a resolver that asks the real server. change may change its options.
func serve(tb testing.TB, w *watcher, change func(*Options)) served {
	tb.Helper()
	dir := tb.TempDir()
	s := served{watcher: w, hosts: filepath.Join(dir, "hosts"), conf: filepath.Join(dir, "resolv.conf")}
	write(tb, s.hosts, "")
	write(tb, s.conf, "nameserver 10.78.0.1\n")
	opts := Options{Watcher: w, HostsFile: s.hosts, ResolvConf: s.conf}
	if change != nil {
		change(&opts)
	}
	r, err := New(opts)
	if err != nil {
		tb.Fatal(err)
	}
	s.Resolver = r
	s.addr = serveAt(tb, r, "127.0.0.1:0", func(netip.AddrPort) (uint64, bool) { return planner, true })
	return s
}

// serveAt serves both transports at one address until the test ends.
func serveAt(tb testing.TB, r *Resolver, at string, who func(netip.AddrPort) (uint64, bool)) string {
	tb.Helper()
	listener := listenTCP(tb, at)
	conn := listenUDP(tb, listener.Addr().String())
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := r.ServeUDP(ctx, conn, who); err != nil {
			tb.Error(err)
		}
	})
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			workload, _ := who(c.RemoteAddr().(*net.TCPAddr).AddrPort())
			serving.Go(func() { r.ServeTCP(ctx, c, workload) })
		}
	})
	tb.Cleanup(func() {
		cancel()
		listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}

func question(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype)
}

func edns(m *dns.Msg, size uint16, do bool) *dns.Msg { return m.SetEdns0(size, do) }

// ask sends one query over "udp" or "tcp" and returns the answer.
func (s served) ask(tb testing.TB, network string, m *dns.Msg) *dns.Msg {
	tb.Helper()
	return exchange(tb, network, s.addr, m)
}

func exchange(tb testing.TB, network, addr string, m *dns.Msg) *dns.Msg {
	tb.Helper()
	c := dns.Client{Net: network, Timeout: 20 * time.Second, UDPSize: dns.MaxMsgSize}
	answer, _, err := c.Exchange(m, addr)
	if err != nil {
		tb.Fatalf("%s over %s: %v", m.Question[0].Name, network, err)
	}
	return answer
}

// addresses are those of an answer's A and AAAA records.
func addresses(m *dns.Msg) (addrs []string) {
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			addrs = append(addrs, rr.A.String())
		case *dns.AAAA:
			addrs = append(addrs, rr.AAAA.String())
		}
	}
	slices.Sort(addrs)
	return addrs
}

// eventually waits for the counters; they are counted after the answer is sent.
func (s served) eventually(tb testing.TB, want Counters) {
	tb.Helper()
	eventually(tb, func() string {
		if got := s.Counters(); got != want {
			return fmt.Sprintf("counters are %+v, want %+v", got, want)
		}
		return ""
	})
}

// eventually waits until check has no complaint.
func eventually(tb testing.TB, check func() string) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		complaint := check()
		if complaint == "" {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatal(complaint)
		}
	}
}

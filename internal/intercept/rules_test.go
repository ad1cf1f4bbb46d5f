package intercept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const dnsPort = 5353

// answerDatagrams serves a planner's diverted datagrams: each is told for whom.
func (w *world) answerDatagrams(ns Namespace, workload uint64) *Datagrams {
	w.t.Helper()
	d, err := w.i.ListenDatagrams(context.Background(), ns, workload)
	if err != nil {
		w.t.Fatal(err)
	}
	var serving sync.WaitGroup
	for _, conn := range d.Conns {
		serving.Go(func() {
			buf := make([]byte, 512)
			for {
				n, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				fmt.Fprintf(&replier{conn, from}, "RESOLVER of %d: %s", workload, buf[:n])
			}
		})
	}
	w.t.Cleanup(func() { d.Close(); serving.Wait() })
	return d
}

type replier struct {
	net.PacketConn
	to net.Addr
}

func (r *replier) Write(p []byte) (int, error) { return r.WriteTo(p, r.to) }

// Datagrams are diverted where a capture says so, each to the socket of its own
// planner, and the answer looks like what was asked.
func TestDatagramsAreDiverted(t *testing.T) {
	w := newWorld(t)
	w.capture(Capture{Port: dnsPort, Action: Redirect, Datagrams: true})
	asked := at("192.0.2.53", dnsPort)
	wantError(t, w.run(w.job, "ask", asked, "unconnected"), "ECONNREFUSED")
	wantError(t, w.run(w.job, "ask", asked, "connected"), "ECONNREFUSED")

	other := filepath.Join(w.jobs, "two")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	otherID, err := w.i.Enroll(other)
	if err != nil {
		t.Fatal(err)
	}
	first, second := w.answerDatagrams(Namespace{}, w.jobID), w.answerDatagrams(Namespace{}, otherID)
	for _, c := range []struct {
		cgroup string
		id     uint64
		to     string
	}{
		{w.job, w.jobID, asked}, {other, otherID, asked},
		{w.job, w.jobID, at("2001:db8::53", dnsPort)}, {other, otherID, at("2001:db8::53", dnsPort)},
		{w.job, w.jobID, at("127.0.0.53", dnsPort)}, {w.job, w.jobID, at("::1", dnsPort)},
		{w.job, w.jobID, "[::ffff:192.0.2.53]:5353"},
	} {
		for _, how := range []string{"connected", "unconnected"} {
			got := w.run(c.cgroup, "ask", c.to, how)
			wantSaid(t, got, fmt.Sprintf("RESOLVER of %d: who?", c.id))
			if got.Peer != c.to {
				t.Errorf("%s, %s: the answer looks like one of %s", c.to, how, got.Peer)
			}
		}
	}

	// Nobody is let to a resolver's socket but by diversion, not even its own planner.
	direct := first.Conns[0].LocalAddr().String()
	for _, cgroup := range []string{w.job, other, w.stranger} {
		wantError(t, w.run(cgroup, "ask", direct, "unconnected"), "EPERM")
		wantError(t, w.run(cgroup, "ask", direct, "connected"), "EPERM")
	}
	wantError(t, w.run(w.stranger, "ask", asked, "unconnected"), "EPERM")

	// What is closed refuses, and whoever takes the port is not spoken to.
	port := second.Conns[0].LocalAddr().(*net.UDPAddr).Port
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	squatter, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	wantError(t, w.run(other, "ask", asked, "unconnected"), "ECONNREFUSED")
	wantSaid(t, w.run(w.job, "ask", asked, "unconnected"), "RESOLVER")
}

// Who is known to be no planner goes its way; who is not known doesn't.
func TestBystanders(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	to := at(target4, capturedPort)
	wantError(t, w.run(w.stranger, "tcp", to), "EPERM")
	id, err := w.i.Pass(w.stranger)
	if err != nil {
		t.Fatal(err)
	}
	wantSaid(t, w.run(w.stranger, "tcp", to), "REAL")
	wantError(t, w.run(w.stranger, "udp", to), "")
	wantError(t, w.run(w.stranger, "raw", to, "plain"), "")
	wantError(t, w.run(w.stranger, "raw", at(target4, otherPort), "fragment"), "")
	inner := filepath.Join(w.stranger, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	wantSaid(t, w.run(inner, "tcp", to), "REAL")
	if _, err := w.i.Enroll(inner); !errors.Is(err, ErrCgroup) {
		t.Errorf("enroll inside a bystander: %v, want ErrCgroup", err)
	}
	// To be a planner after all, it is enrolled, with all that is inside, whatever that
	// was known for.
	within := filepath.Join(w.jobs, "within", "bystander")
	if err := os.MkdirAll(within, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := w.i.Pass(within); err != nil {
		t.Fatal(err)
	}
	wantSaid(t, w.run(within, "tcp", to), "REAL")
	if _, err := w.i.Enroll(filepath.Dir(within)); err != nil {
		t.Fatal(err)
	}
	wantSaid(t, w.run(within, "tcp", to), "PROXY")
	if again, err := w.i.Enroll(w.stranger); err != nil || again != id {
		t.Fatalf("enroll: %d, %v, want %d", again, err, id)
	}
	wantSaid(t, w.run(w.stranger, "tcp", to), "PROXY")
	if err := w.i.Withdraw(id); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.run(inner, "tcp", to), "EPERM")
}

// A planner with a profile reaches what that lists, loopback, and nothing else.
func TestEgressProfiles(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	r := w.watch()
	allowed := []Destination{
		{netip.MustParsePrefix(target4 + "/32"), otherPort},
		{netip.MustParsePrefix("fd77::/64"), otherPort},
	}
	if err := w.i.Egress(map[uint32][]Destination{7: allowed, 8: nil}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.i.EnrollAs(w.job, 7); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ action, to, said, errno string }{
		{"tcp", at(target4, otherPort), "REAL", ""},
		{"tcp", at(target6, otherPort), "REAL", ""},
		{"mapped", "[::ffff:10.77.0.1]:5998", "REAL", ""},
		{"tcp", at("127.0.0.1", otherPort), "REAL", ""},
		{"tcp", at("::1", otherPort), "REAL", ""},
		{"tcp", at(target4, capturedPort), "PROXY", ""},
		{"tcp", at(alias4, otherPort), "", "EPERM"},
		{"mapped", "[::ffff:10.77.0.2]:5998", "", "EPERM"},
		{"tcp", at(target4, 4000), "", "EPERM"},
		{"tfo", at(alias4, otherPort), "", "EPERM"},
		{"udp", at(target4, otherPort), "", ""},
		{"udp", at(alias4, otherPort), "", "EPERM"},
		{"udpconnect", at(alias4, otherPort), "", "EPERM"},
	} {
		got := w.run(w.job, c.action, c.to)
		if c.errno != "" || c.said == "" {
			wantError(t, got, c.errno)
		} else {
			wantSaid(t, got, c.said)
		}
	}
	if b := r.next(t, RefusedEgress); b.Workload != w.jobID || b.Destination.Addr() != netip.MustParseAddr(alias4) {
		t.Errorf("report %+v, want one of %s", b, alias4)
	}
	// Others have no profile, or another one.
	wantSaid(t, w.run(w.stranger, "tcp", at(alias4, otherPort)), "REAL")
	if _, err := w.i.EnrollAs(w.job, 8); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.run(w.job, "tcp", at(target4, otherPort)), "EPERM")
	if err := w.i.Allow(8, []Destination{{netip.MustParsePrefix("10.77.0.0/16"), otherPort}}); err != nil {
		t.Fatal(err)
	}
	wantSaid(t, w.run(w.job, "tcp", at(alias4, otherPort)), "REAL")

	// A socket that was ready before is dropped at its packet.
	if err := w.i.Egress(map[uint32][]Destination{8: nil}, false); err != nil {
		t.Fatal(err)
	}
	free := filepath.Join(w.jobs, "free")
	if err := os.Mkdir(free, 0o755); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.runLate(free, at(alias4, otherPort), "udp", func() {
		if _, err := w.i.EnrollAs(free, 8); err != nil {
			t.Fatal(err)
		}
	}), "EPERM")
	if b := r.next(t, DroppedEgress); b.Hook != "egress" || b.Process.Comm != "exe" {
		t.Errorf("report %+v, want a packet and who sent it", b)
	}
	for _, bad := range []Destination{{}, {Prefix: netip.MustParsePrefix("10.0.0.0/8")}, {Port: 1}} {
		if err := w.i.Allow(8, []Destination{bad}); !errors.Is(err, ErrDestination) {
			t.Errorf("allow %+v: %v, want ErrDestination", bad, err)
		}
	}
	if err := w.i.Allow(0, allowed); !errors.Is(err, ErrDestination) {
		t.Errorf("allow by no profile: %v, want ErrDestination", err)
	}
}

// Where planners are restricted, whoever may be one waits until it is known.
func TestUnknownIsHeld(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	elsewhere := at(alias4, otherPort)
	wantSaid(t, w.run(w.stranger, "tcp", elsewhere), "REAL")
	if err := w.i.Egress(nil, true); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.run(w.stranger, "tcp", elsewhere), "EPERM")
	wantError(t, w.run(w.stranger, "udp", elsewhere), "EPERM")
	wantError(t, w.run(w.stranger, "raw", elsewhere, "fragment"), "EPERM")
	wantSaid(t, w.run(w.stranger, "tcp", at("127.0.0.1", otherPort)), "REAL")
	wantSaid(t, w.run(w.job, "tcp", elsewhere), "REAL")
	if _, err := w.i.Pass(w.stranger); err != nil {
		t.Fatal(err)
	}
	wantSaid(t, w.run(w.stranger, "tcp", elsewhere), "REAL")
}

// connectNamespace gives a namespace a veth to the tests' own, and both ends addresses.
func connectNamespace(t *testing.T, path string) (host netlink.Link) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	name := "pod" + strings.TrimPrefix(filepath.Base(path), "fd")
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(fd)}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatalf("add a veth: %v", err)
	}
	t.Cleanup(func() { netlink.LinkDel(veth) })
	host, err = netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	configure := func(l netlink.Link, addresses ...string) error {
		var errs []error
		for _, a := range addresses {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			errs = append(errs, netlink.AddrAdd(l, addr))
		}
		return errors.Join(append(errs, netlink.LinkSetUp(l))...)
	}
	if err := configure(host, "10.78.0.1/24", "fd78::1/64"); err != nil {
		t.Fatal(err)
	}
	err = Namespace{Path: path}.do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := configure(l, "10.78.0.2/24", "fd78::2/64"); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP("10.78.0.1")})
	})
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// What a planner's own namespace sends by whatever means is stopped at its end.
func TestGuardedNamespace(t *testing.T) {
	w := newWorld(t)
	path := newNamespace(t)
	host := connectNamespace(t, path)
	ns := Namespace{Path: path}
	frame := func(to, kind, protocol string) {
		t.Helper()
		// Whose socket it is doesn't matter there, and planners may be refused such sockets.
		wantError(t, w.run(w.outside, "netns", path, "packet", "eth0", to, kind, protocol), "")
	}
	// Nothing is guarded yet: the test would else show nothing.
	captured := at(target4, capturedPort)
	frame(captured, "plain", "0x0800")
	w.waitForDatagrams(1)

	w.captureTarget()
	r := w.watch()
	indices, err := w.i.GuardPlanner(ns, w.jobID)
	if err != nil || len(indices) != 1 || indices[0] != host.Attrs().Index {
		t.Fatalf("guarded %v, %v, want %d", indices, err, host.Attrs().Index)
	}
	for _, kind := range []string{"plain", "fragment", "options", "unknown"} {
		frame(captured, kind, "0x0800")
		b := r.nextDrop(t)
		if b.Hook != "interface" || b.Workload != w.jobID || b.Destination.Addr() != netip.MustParseAddr(target4) {
			t.Errorf("%s: report %+v, want the planner's frame to the target", kind, b)
		}
	}
	// The frame's own word counts, not what the socket says it is.
	frame(captured, "plain", "0x88b5")
	r.nextDrop(t)
	// What is no target's goes on, and so does what the namespace needs to live.
	frame(at(target4, otherPort), "plain", "0x0800")
	w.waitForDatagrams(2)
	wantSaid(t, w.run(w.job, "netns", path, "tcp", at(target4, otherPort)), "REAL")
	wantSaid(t, w.run(w.job, "netns", path, "tcp", at("fd78::1", otherPort)), "REAL")

	// It stays with the daemon gone, and is taken over.
	w.stop()
	frame(captured, "plain", "0x0800")
	w.start()
	if _, err := w.i.GuardPlanner(ns, w.jobID); err != nil {
		t.Fatal(err)
	}
	frame(captured, "plain", "0x0800")
	frame(at(target4, otherPort), "plain", "0x0800")
	w.waitForDatagrams(3)
	if err := w.i.Unguard(host.Attrs().Index); err != nil {
		t.Fatal(err)
	}
	frame(captured, "plain", "0x0800")
	w.waitForDatagrams(4)
}

// A packet socket's frames are stopped at the node's uplink as well.
func TestGuardedUplink(t *testing.T) {
	w := newWorld(t)
	path := newNamespace(t)
	uplink := connectNamespace(t, path).Attrs()
	w.capture(Capture{Port: capturedPort, Action: Redirect})
	r := w.watch()
	if err := w.i.GuardUplink(uplink.Index); err != nil {
		t.Fatal(err)
	}
	to := at("10.78.0.2", capturedPort)
	sender, id := w.job, w.jobID
	if !w.lacks("create_socket") {
		// Planners get no such socket, so it takes somebody who may be one.
		wantError(t, w.run(w.job, "packet", uplink.Name, to, "plain", "0x0800"), "EPERM")
		sender, id = w.stranger, 0
	}
	for _, protocol := range []string{"0x0800", "0x86dd", "0x88b5"} {
		wantError(t, w.run(sender, "packet", uplink.Name, to, "plain", protocol), "ENOBUFS")
		if b := r.nextDrop(t); b.Hook != "interface" || b.Workload != id || b.Destination != netip.MustParseAddrPort(to) {
			t.Errorf("report %+v, want the frame", b)
		}
	}
	wantError(t, w.run(w.stranger, "packet", uplink.Name, to, "plain", "0x0800"), "ENOBUFS")
	wantError(t, w.run(w.outside, "packet", uplink.Name, to, "plain", "0x0800"), "")
	wantError(t, w.run(sender, "packet", uplink.Name, at("10.78.0.2", otherPort), "plain", "0x0800"), "")
}

package bypass

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The network: the namespace that the tests run in is the node's. The database's
// and a pod's hang on it by veth pairs, and it routes between them.
//
//	pod pod0 --- n-pod node n-db --- db0 database
//
// The target and its twin are addresses of the same host.

const (
	listenerPort = 15432
	freePort     = 6000 // on the same addresses, and nobody's secret
)

// place is the target, or its twin for the controls.
type place struct {
	Port              uint16 // the database's, also of the one on the node itself
	V4, V6            netip.Addr
	Alias4, Alias6    netip.Addr // not listed with the daemon
	Compatible, NAT64 netip.Addr // spellings of V4 in IPv6 that a gateway translates
	Unix, Abstract    string     // sockets of the database on the node
	Vsock             uint32     // port of the same, by AF_VSOCK
	LinkLocal         netip.Addr
}

var (
	target = place{
		Port: 5432, V4: addr("198.51.100.2"), V6: addr("fd00:51::2"),
		Alias4: addr("198.51.100.3"), Alias6: addr("fd00:51::3"),
		Compatible: addr("::198.51.100.2"), NAT64: addr("64:ff9b::198.51.100.2"),
		LinkLocal: addr("fe80::51:2"),
	}
	twin = place{
		Port: 5433, V4: addr("198.51.100.12"), V6: addr("fd00:51::12"),
		Alias4: addr("198.51.100.13"), Alias6: addr("fd00:51::13"),
		Compatible: addr("::198.51.100.12"), NAT64: addr("64:ff9b::198.51.100.12"),
		LinkLocal: addr("fe80::51:12"),
	}
	node4, node6 = addr("198.51.100.1"), addr("fd00:51::1")
	hop4, hop6   = addr("198.51.100.9"), addr("fd00:51::9") // of the database's host, and not the database
	nobody4      = addr("198.51.100.77")
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func (p place) addresses() []netip.Addr {
	return []netip.Addr{p.V4, p.V6, p.Alias4, p.Alias6, p.Compatible, p.NAT64, p.LinkLocal}
}

// newNamespace makes a network namespace that lives as long as the file.
func newNamespace() (*os.File, error) {
	type made struct {
		f   *os.File
		err error
	}
	result := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		result <- made{f, err}
	}()
	m := <-result
	return m.f, m.err
}

// inside calls f on a thread in a network namespace.
func inside(ns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- func() error {
			if err := enterNet(ns); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}

// enterNet moves the calling thread, which the caller has locked.
func enterNet(ns string) error {
	fd, err := unix.Open(ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", ns, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", ns, err)
	}
	return nil
}

var macs = map[string]net.HardwareAddr{
	"n-db": {2, 0, 0, 0, 1, 1}, "db0": {2, 0, 0, 0, 1, 2},
	"n-pod": {2, 0, 0, 0, 2, 1}, "pod0": {2, 0, 0, 0, 2, 2},
}

func buildNetwork(db, pod *os.File) error {
	if err := pair("n-db", "db0", db); err != nil {
		return err
	}
	if err := pair("n-pod", "pod0", pod); err != nil {
		return err
	}
	if err := sysctls(map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/n-db/rp_filter": "0", "ipv4/conf/n-pod/rp_filter": "0",
		"ipv4/ping_group_range": "0 2147483647",
	}); err != nil {
		return err
	}
	if err := end("n-db", "198.51.100.1/24", "fd00:51::1/64"); err != nil {
		return err
	}
	if err := end("n-pod", "198.51.101.1/24", "fd00:52::1/64"); err != nil {
		return err
	}
	for _, p := range []place{target, twin} {
		for _, a := range []netip.Addr{p.NAT64, p.Compatible} {
			if err := route("n-db", a, 128, p.V6); err != nil {
				return err
			}
		}
	}
	if err := neighbours("n-db", macs["db0"], append(append(target.addresses(), twin.addresses()...),
		hop4, hop6)...); err != nil {
		return err
	}
	if err := neighbours("n-pod", macs["pod0"], addr("198.51.101.2"), addr("fd00:52::2")); err != nil {
		return err
	}
	if err := inside(path(db), buildDatabase); err != nil {
		return fmt.Errorf("the database's namespace: %w", err)
	}
	if err := inside(path(pod), buildPod); err != nil {
		return fmt.Errorf("the pod's namespace: %w", err)
	}
	return nil
}

// removeNetwork removes both pairs at once, where the end of a namespace takes its time.
func removeNetwork() error {
	var errs []error
	for _, name := range []string{"n-db", "n-pod"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkDel(link)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func path(ns *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()) }

func pair(here, there string, ns *os.File) error {
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: here, HardwareAddr: macs[here]},
		PeerName:         there,
		PeerHardwareAddr: macs[there],
		PeerNamespace:    netlink.NsFd(int(ns.Fd())),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s: %w", here, err)
	}
	return nil
}

func buildDatabase() error {
	// A worst case: this host follows source routes, and answers whoever calls.
	if err := sysctls(map[string]string{
		"ipv4/conf/all/accept_source_route": "1", "ipv4/conf/db0/accept_source_route": "1",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/db0/rp_filter": "0",
		"ipv4/icmp_echo_ignore_broadcasts": "0",
	}); err != nil {
		return err
	}
	all := []string{"198.51.100.9/24", "fd00:51::9/64"}
	for _, p := range []place{target, twin} {
		all = append(all, p.V4.String()+"/24", p.Alias4.String()+"/24", p.V6.String()+"/64", p.Alias6.String()+"/64",
			p.NAT64.String()+"/128", p.Compatible.String()+"/128", p.LinkLocal.String()+"/64")
	}
	if err := end("db0", all...); err != nil {
		return err
	}
	if err := neighbours("db0", macs["n-db"], node4, node6); err != nil {
		return err
	}
	if err := route("db0", addr("0.0.0.0"), 0, node4); err != nil {
		return err
	}
	return route("db0", addr("::"), 0, node6)
}

func buildPod() error {
	if err := end("pod0", "198.51.101.2/24", "fd00:52::2/64"); err != nil {
		return err
	}
	if err := neighbours("pod0", macs["n-pod"], addr("198.51.101.1"), addr("fd00:52::1")); err != nil {
		return err
	}
	if err := route("pod0", addr("0.0.0.0"), 0, addr("198.51.101.1")); err != nil {
		return err
	}
	return route("pod0", addr("::"), 0, addr("fd00:52::1"))
}

// end sets an interface up, and lo with it.
func end(name string, addresses ...string) error {
	if err := linkUp("lo"); err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, a := range addresses {
		address, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if address.IP.To4() == nil {
			address.Flags = unix.IFA_F_NODAD // usable at once
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return fmt.Errorf("add %s to %s: %w", a, name, err)
		}
	}
	return linkUp(name)
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	return nil
}

func route(device string, to netip.Addr, bits int, via netip.Addr) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	err = netlink.RouteAdd(&netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(bits, to.BitLen())},
		Gw:        via.AsSlice(),
	})
	if err != nil {
		return fmt.Errorf("route to %s by %s: %w", to, via, err)
	}
	return nil
}

// neighbours are fixed, so that the kernel itself never asks for them: the judge
// would count its question.
func neighbours(device string, mac net.HardwareAddr, all ...netip.Addr) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	for _, a := range all {
		err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac,
		})
		if err != nil {
			return fmt.Errorf("neighbour %s: %w", a, err)
		}
	}
	return nil
}

// sysctls are those of the thread's network namespace.
func sysctls(values map[string]string) error {
	for name, value := range values {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s: %w", name, err)
		}
	}
	return nil
}

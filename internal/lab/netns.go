package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NetnsOptions say what network namespace to make. The zero value makes one
// with loopback only.
type NetnsOptions struct {
	// Inside are the addresses of the namespace's end of a pair of interfaces,
	// and Outside those of the end that stays in the caller's namespace. Both
	// have their networks' lengths. Without any there is no pair.
	Inside, Outside []netip.Prefix
	// Gateways are where all that leaves the namespace is routed. Without any it
	// reaches the networks of Inside only.
	Gateways []netip.Addr
	// NoIPv6 takes IPv6 from it, that of loopback too.
	NoIPv6 bool
}

// Netns is a network namespace beside the caller's. It lives as long as it is
// held, or a process or a socket is in it, and its pair of interfaces with it.
type Netns struct {
	file *os.File
	link string // the end of the pair that is outside, or ""
}

// NewNetns makes a network namespace. Root is needed.
func NewNetns(options NetnsOptions) (*Netns, error) {
	file, err := makeNetns(options.NoIPv6)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	n := &Netns{file: file}
	if len(options.Inside)+len(options.Outside) == 0 {
		return n, nil
	}
	if err := n.connect(options); err != nil {
		return nil, errors.Join(fmt.Errorf("network namespace: %w", err), n.Close())
	}
	return n, nil
}

// makeNetns makes the namespace on another thread.
func makeNetns(noIPv6 bool) (file *os.File, err error) {
	err = elsewhere(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		if noIPv6 {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
				return err
			}
		}
		if err := bringUp("lo"); err != nil {
			return err
		}
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return file, err
}

// elsewhere has a thread enter another network namespace, calls f there, and brings the
// thread back. It must not end: what it ever started would be told that its
// parent is dead (prctl(2), PR_SET_PDEATHSIG).
func elsewhere(enter, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		if err := enter(); err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, back) // and the thread, still locked, ends after all
		} else {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func bringUp(name string) error {
	device, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return netlink.LinkSetUp(device)
}

// insideLink is the name of the pair's end in the namespace.
const insideLink = "eth0"

// connect makes the pair of interfaces.
func (n *Netns) connect(options NetnsOptions) error {
	name := "lab" + rand.Text()[:10]
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: insideLink,
		PeerNamespace: netlink.NsFd(int(n.file.Fd())),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("pair of interfaces: %w", err)
	}
	n.link = name
	if err := furnish(name, options.Outside, nil); err != nil {
		return err
	}
	return n.Do(func() error { return furnish(insideLink, options.Inside, options.Gateways) })
}

// furnish gives an interface of the calling thread's namespace its addresses and routes.
func furnish(name string, prefixes []netip.Prefix, gateways []netip.Addr) error {
	device, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, prefix := range prefixes {
		if err := netlink.AddrAdd(device, linkAddress(prefix)); err != nil {
			return fmt.Errorf("add %s to %s: %w", prefix, name, err)
		}
	}
	if err := netlink.LinkSetUp(device); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, gateway := range gateways {
		route := &netlink.Route{LinkIndex: device.Attrs().Index, Gw: gateway.AsSlice()}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route by %s: %w", gateway, err)
		}
	}
	return nil
}

func linkAddress(prefix netip.Prefix) *netlink.Addr {
	addr := prefix.Addr()
	address := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(prefix.Bits(), addr.BitLen())}}
	if addr.Is6() {
		address.Flags = unix.IFA_F_NODAD // usable at once
	}
	return address
}

// Path leads to the namespace from any process, as long as it is held: for
// nsenter --net and setns(2).
func (n *Netns) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// Interface is the name of the end of its pair that is outside. It is there as
// long as the namespace is.
func (n *Netns) Interface() string { return n.link }

// Do calls f in the namespace. Sockets that f makes belong there for good.
func (n *Netns) Do(f func() error) error {
	return elsewhere(func() error { return unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET) }, f)
}

// Release lets go of the namespace, which is gone as soon as nobody else is in it.
func (n *Netns) Release() error {
	if err := n.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("network namespace: %w", err)
	}
	return nil
}

// Close removes the pair of interfaces and lets go of the namespace.
func (n *Netns) Close() error {
	var errs []error
	if device, err := netlink.LinkByName(n.link); n.link != "" && err == nil {
		errs = append(errs, netlink.LinkDel(device))
	}
	return errors.Join(append(errs, n.Release())...)
}

// AddAddress gives loopback of the calling thread's network namespace a further
// address, until undo is called.
func AddAddress(addr netip.Addr) (undo func() error, err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("lo: %w", err)
	}
	address := linkAddress(netip.PrefixFrom(addr, addr.BitLen()))
	if err := netlink.AddrAdd(lo, address); err != nil {
		return nil, fmt.Errorf("add %s to lo: %w", addr, err)
	}
	return func() error { return netlink.AddrDel(lo, address) }, nil
}

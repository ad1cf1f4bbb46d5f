package lab

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// enter furnishes the namespaces that this process was started in.
func enter(ns Namespace) error {
	// Private first: mounts made below must not reach the machine.
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("isolate: make mounts private: %w", err)
	}
	if err := addresses(ns); err != nil {
		return err
	}
	if err := hostsFile(ns.Hosts); err != nil {
		return fmt.Errorf("isolate: %w", err)
	}
	const bpffs = "/sys/fs/bpf"
	if err := unix.Mount("none", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("isolate: mount bpffs at %s: %w", bpffs, err)
	}
	if err := os.Unsetenv(envNamespace); err != nil {
		return fmt.Errorf("isolate: %w", err)
	}
	return os.Setenv(envIsolated, networkNamespace())
}

// addresses brings lo up with all of them.
func addresses(ns Namespace) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("isolate: lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("isolate: lo: %w", err)
	}
	all := slices.Concat(ns.Addresses, slices.Collect(maps.Values(ns.Hosts)))
	slices.Sort(all)
	for _, address := range slices.Compact(all) {
		ip := net.ParseIP(address)
		if ip == nil {
			return fmt.Errorf("isolate: %q is no IP address", address)
		}
		if ip.IsLoopback() { // there since lo is up
			continue
		}
		bits := 128
		if v4 := ip.To4(); v4 != nil {
			ip, bits = v4, 32
		}
		add := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}}
		if bits == 128 {
			add.Flags = unix.IFA_F_NODAD // usable at once
		}
		if err := netlink.AddrAdd(lo, add); err != nil {
			return fmt.Errorf("isolate: add %s to lo: %w", address, err)
		}
	}
	return nil
}

// hostsFile covers /etc/hosts by one of our own.
func hostsFile(hosts map[string]string) error {
	text := "127.0.0.1 localhost\n::1 localhost\n"
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		text += hosts[name] + " " + strings.ToLower(name) + "\n"
	}
	_, err := CoverFile("/etc/hosts", text)
	return err
}

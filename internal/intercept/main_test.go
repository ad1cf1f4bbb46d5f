package intercept

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// roleVar tells a process that was started from the test binary what it is.
const roleVar = "CHAPERONE_INTERCEPT_TEST"

// Addresses of the "real targets", on loopback of the tests' own namespace.
const (
	target4 = "10.77.0.1"
	alias4  = "10.77.0.2"
	target6 = "fd77::1"
)

// TestMain runs the tests in network and mount namespaces of their own, so that
// ports, addresses and mounts are theirs alone.
func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "":
		os.Exit(reexec())
	case "tests":
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "can't set up the tests' namespaces:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case "client":
		os.Exit(clientMain())
	}
	os.Exit(2)
}

func reexec() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVar+"=tests")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "these tests need root, to make namespaces and cgroups and to load kernel programs:", err)
		return 1
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		return 1
	}
	return 0
}

func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set up lo: %w", err)
	}
	for _, a := range []string{target4 + "/32", alias4 + "/32", target6 + "/128"} {
		p := netip.MustParsePrefix(a)
		addr, err := netlink.ParseAddr(p.String())
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrReplace(lo, addr); err != nil {
			return fmt.Errorf("add %s to lo: %w", a, err)
		}
	}
	// Else nobody has a ping socket, and it would show nothing that a planner hasn't.
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
}

package intercept

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// That a program is attached doesn't say that it works: a lookup that always
// misses lets everything through, and nothing looks wrong. So a process in a
// planner's cgroup connects to an address that nobody has, and must get here.

const (
	canaryPort    = 9 // discard
	canaryTimeout = 15 * time.Second
)

// canaryAddresses are reserved for documentation (RFC 5737, RFC 3849).
func canaryAddresses() (v4, v6 netip.Addr) {
	return netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
}

// isCanary tells whether a destination is that of the canary, which tries a datagram too.
func isCanary(to netip.AddrPort) bool {
	v4, v6 := canaryAddresses()
	return to.Port() == canaryPort && (to.Addr() == v4 || to.Addr() == v6)
}

// prove runs the canary, in a network namespace of its own: nothing but the canary
// arrives at the listeners there, and those that planners wait at are left alone.
func (i *Interceptor) prove(ctx context.Context, probe []string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, canaryTimeout)
	defer cancel()
	i.capturing.Lock()
	defer i.capturing.Unlock()

	before, err := i.captures()
	if err != nil {
		return err
	}
	during := maps.Clone(before)
	v4, v6 := canaryAddresses()
	for _, addr := range []netip.Addr{v4, v6} {
		key, value, err := Capture{Addr: addr, Port: canaryPort, Action: Redirect}.kernel(i.port)
		if err != nil {
			return err
		}
		during[key] = value
	}
	if err := i.replaceCaptures(during); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.replaceCaptures(before)) }()

	path := filepath.Join(i.ancestor.path, "canary")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make the canary's cgroup: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	id, err := i.Enroll(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Withdraw(id)) }()

	return apart(func() error {
		listeners, err := i.Listen(ctx, Namespace{})
		if err != nil {
			return err
		}
		for n, l := range listeners {
			to := netip.AddrPortFrom([]netip.Addr{v4, v6}[n], canaryPort)
			if perr := i.proveOne(ctx, l, probe, path, id, to); perr != nil {
				err = errors.Join(err, fmt.Errorf("canary to %s: %w", to, perr))
			}
			err = errors.Join(err, l.Close())
		}
		return err
	})
}

// apart calls f in a new network namespace that has nothing but loopback. The sockets that f
// opens and the processes that it starts are in there.
func apart(f func() error) error {
	return onLostThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			return fmt.Errorf("set up loopback in a new network namespace: %w", err)
		}
		return f()
	})
}

// proveOne starts the probe and serves it. Whatever it is that the probe reaches
// must be this process, and must know who asked for what.
func (i *Interceptor) proveOne(ctx context.Context, l *net.TCPListener, probe []string, path string, id uint64, to netip.AddrPort) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	argv := append(append([]string(nil), probe[1:]...), to.String())
	cmd := exec.CommandContext(ctx, probe[0], argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the probe: %w", err)
	}
	exited := make(chan error, 1)
	go func() {
		exited <- cmd.Wait()
		// Whether the probe was served or failed before, nothing more will come.
		l.SetDeadline(time.Unix(1, 0))
	}()
	nonce := rand.Text()
	serr := i.serveProbe(l, nonce, id, uint32(cmd.Process.Pid), to)
	if err := <-exited; err != nil {
		return fmt.Errorf("%w: %s (%w)", err, bytes.TrimSpace(complaint.Bytes()), errors.Join(serr))
	}
	if serr != nil {
		return serr
	}
	if out.String() != nonce {
		return errors.New("the probe reached something else than this daemon")
	}
	return nil
}

func (i *Interceptor) serveProbe(l *net.TCPListener, nonce string, id uint64, pid uint32, to netip.AddrPort) error {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return fmt.Errorf("no connection of the probe arrived: %w", err)
		}
		origin, err := i.Origin(conn)
		if err != nil || origin.Workload != id {
			conn.Close()
			continue
		}
		if origin.Destination != to || origin.Process.PID != pid {
			return errors.Join(fmt.Errorf("process %d asked for %s, and the kernel told of %d and %s", pid, to, origin.Process.PID, origin.Destination), conn.Close())
		}
		_, err = io.WriteString(conn, nonce)
		return errors.Join(err, conn.Close())
	}
}

// Probe is the other side of [Open]'s proof, to be called by the command that
// [Options] name. It connects to address and copies what it is told to w. It fails
// if the peer doesn't look like address or if a datagram to it is let through.
func Probe(ctx context.Context, w io.Writer, address string) error {
	ctx, cancel := context.WithTimeout(ctx, canaryTimeout)
	defer cancel()
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := io.Copy(w, io.LimitReader(conn, 64)); err != nil {
		return err
	}
	if peer := conn.RemoteAddr().(*net.TCPAddr).AddrPort(); peer != to {
		return fmt.Errorf("the peer of a connection to %s looks like %s", to, peer)
	}
	return probeDatagram(ctx, to)
}

func probeDatagram(ctx context.Context, to netip.AddrPort) error {
	var config net.ListenConfig
	conn, err := config.ListenPacket(ctx, "udp", ":0")
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.WriteTo([]byte("probe"), net.UDPAddrFromAddrPort(to))
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("a datagram to %s was not refused (error: %v)", to, err)
	}
	return nil
}

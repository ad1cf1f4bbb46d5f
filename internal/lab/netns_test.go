package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
)

func TestNamespacesNamesAndFiles(t *testing.T) {
	cmd := isolatedProgram("network")
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Fatalf("exit code %d (%v), want the child's 7\n%s", code, err, out)
	}
}

// network checks, from inside, what only an isolated program can.
func network() error {
	return errors.Join(pair(), noIPv6(), nameServer(), covered())
}

// pair talks to a namespace over its pair of interfaces, until that is gone.
func pair() error {
	ns, err := lab.NewNetns(lab.NetnsOptions{
		Inside:   []netip.Prefix{netip.MustParsePrefix("10.40.0.2/24"), netip.MustParsePrefix("fd40::2/64")},
		Outside:  []netip.Prefix{netip.MustParsePrefix("10.40.0.1/24"), netip.MustParsePrefix("fd40::1/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.40.0.1")},
	})
	if err != nil {
		return err
	}
	defer ns.Close()
	for _, host := range []string{"10.40.0.1", "fd40::1", "10.20.0.6"} { // the last is behind the gateway
		if err := talk(ns, host); err != nil {
			return err
		}
	}
	if err := ns.Release(); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := net.InterfaceByName(ns.Interface()); err != nil {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("a namespace that nobody is in is still there")
		}
	}
}

// talk connects from the namespace to a host outside of it.
func talk(ns *lab.Netns, host string) error {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return err
	}
	defer l.Close()
	var conn net.Conn
	if err := ns.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		return err
	}); err != nil {
		return err
	}
	defer conn.Close()
	accepted, err := l.Accept()
	if err != nil {
		return err
	}
	fmt.Fprint(accepted, "hello")
	accepted.Close()
	if word, err := io.ReadAll(conn); err != nil || string(word) != "hello" {
		return fmt.Errorf("%s says %q, %v", host, word, err)
	}
	return nil
}

func noIPv6() error {
	ns, err := lab.NewNetns(lab.NetnsOptions{NoIPv6: true})
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
			l.Close()
			return errors.New("there is IPv6 where there should be none")
		}
		return nil
	})
}

// nameServer asks one whose records change.
func nameServer() error {
	const address = "10.20.0.9"
	remove, err := lab.AddAddress(netip.MustParseAddr(address))
	if err != nil {
		return err
	}
	defer remove()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	server, err := lab.StartDNS(ctx, lab.DNSOptions{Listen: []string{address}, Zone: "internal", Records: []string{"db A 10.1.0.1"}})
	if err != nil {
		return err
	}
	defer server.Stop(ctx)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, net.JoinHostPort(address, "53"))
	}}
	for n := range 5 {
		want := fmt.Sprintf("10.1.0.%d", n+1)
		if err := server.Set(ctx, "db A "+want); err != nil {
			return err
		}
		if got, err := resolver.LookupHost(ctx, "db.internal."); err != nil || !slices.Equal(got, []string{want}) {
			return fmt.Errorf("db.internal is %v (%v), want %s", got, err, want)
		}
	}
	if err := server.Set(ctx, "db A nonsense"); err == nil {
		return errors.New("a zone that can't be read was taken")
	}
	return nil
}

// covered looks at a file that was covered twice.
func covered() error {
	const path = "/etc/hosts"
	original, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var undo []func() error
	for _, text := range []string{"first\n", "second\n"} {
		one, err := lab.CoverFile(path, text)
		if err != nil {
			return err
		}
		undo = append(undo, one)
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			return fmt.Errorf("%s holds %q (%v), want %q", path, got, err, text)
		}
	}
	for _, one := range slices.Backward(undo) {
		if err := one(); err != nil {
			return err
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(original) {
		return fmt.Errorf("%s holds %q (%v), want what it was", path, got, err)
	}
	return nil
}

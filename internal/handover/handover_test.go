package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/netns"
)

// meet makes a daemon's socket and the two ends of a conversation on it.
func meet(t *testing.T, daemon func(c *Conn, h Hello) error) (path string, done func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), SocketName)
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	result := make(chan error, 1)
	go func() {
		conn, err := l.AcceptUnix()
		if err != nil {
			result <- err
			return
		}
		defer conn.Close()
		c, h, err := Greet(conn)
		if err == nil {
			err = daemon(c, h)
		}
		result <- err
	}()
	return path, func() error { return <-result }
}

func listener(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func datagrams(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// All sockets arrive, what waits at them too, and they stay good on both sides.
func TestSocketsArrive(t *testing.T) {
	ns := netns.ID{Device: 4, Inode: 4026531840}
	first := listener(t)
	given := []netns.Handover{{Namespace: ns, Listeners: []*net.TCPListener{first, listener(t)}}}
	for n := range 150 { // several packets
		given = append(given, netns.Handover{
			Namespace: ns, Workload: uint64(n + 1), Cgroup: fmt.Sprintf("/sys/fs/cgroup/jobs/%d", n),
			Interfaces: []int{n}, Datagrams: []*net.UDPConn{datagrams(t)},
		})
	}
	want := Released{Cgroup: 7, Jobs: []string{"nightly-1"}, Sessions: 3}
	path, done := meet(t, func(c *Conn, h Hello) error {
		if h.Node != "n1" || h.Protocol != Protocol {
			return fmt.Errorf("hello %+v", h)
		}
		return errors.Join(c.Release(given, want), c.WaitReady(t.Context()))
	})
	waiting, err := net.Dial("tcp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	conn, got, released, err := TakeOver(t.Context(), path, Hello{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, h := range got {
		defer h.Close()
	}
	if fmt.Sprint(released) != fmt.Sprint(want) {
		t.Errorf("released %+v, want %+v", released, want)
	}
	if len(got) != len(given) {
		t.Fatalf("%d came, want %d", len(got), len(given))
	}
	for n, h := range got {
		g := given[n]
		if h.Namespace != g.Namespace || h.Workload != g.Workload || h.Cgroup != g.Cgroup || len(h.Interfaces) != len(g.Interfaces) ||
			len(h.Listeners) != len(g.Listeners) || len(h.Datagrams) != len(g.Datagrams) {
			t.Fatalf("%d is %+v, want %+v", n, h, g)
		}
		if h.Workload != 0 && h.Datagrams[0].LocalAddr().String() != g.Datagrams[0].LocalAddr().String() {
			t.Fatalf("%d is at %s, want %s", n, h.Datagrams[0].LocalAddr(), g.Datagrams[0].LocalAddr())
		}
	}
	accepted, err := got[0].Listeners[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted.Close()
	if err := conn.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := done(); err != nil {
		t.Errorf("the daemon: %v", err)
	}
	if !conn.WaitEnd(t.Context()) {
		t.Error("the daemon's end was not noticed")
	}
	again, err := net.Dial("tcp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if conn, err := first.Accept(); err != nil {
		t.Errorf("the daemon's own listener: %v", err)
	} else {
		conn.Close()
	}
}

func TestRefusals(t *testing.T) {
	if _, _, _, err := TakeOver(t.Context(), filepath.Join(t.TempDir(), SocketName), Hello{}); !errors.Is(err, ErrNobody) {
		t.Errorf("where nobody runs: %v", err)
	}
	path, done := meet(t, func(c *Conn, _ Hello) error { return c.Refuse(errors.New("another layout of maps")) })
	_, _, _, err := TakeOver(t.Context(), path, Hello{})
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "another layout of maps") {
		t.Errorf("refused: %v", err)
	}
	if err := done(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// A daemon that dies, and a successor that does.
	path, _ = meet(t, func(*Conn, Hello) error { return nil })
	if _, _, _, err := TakeOver(t.Context(), path, Hello{}); err == nil || errors.Is(err, ErrNobody) {
		t.Errorf("a daemon that died: %v", err)
	}
	path, done = meet(t, func(c *Conn, _ Hello) error {
		return errors.Join(c.Release(nil, Released{}), c.WaitReady(t.Context()))
	})
	conn, _, _, err := TakeOver(t.Context(), path, Hello{})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := done(); err == nil {
		t.Error("a successor that died was taken for a ready one")
	}
	// One that is silent.
	path, done = meet(t, func(c *Conn, _ Hello) error {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return errors.Join(c.Release(nil, Released{}), c.WaitReady(ctx))
	})
	conn, _, _, err = TakeOver(t.Context(), path, Hello{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := done(); !errors.Is(err, context.Canceled) {
		t.Errorf("a silent successor: %v", err)
	}
}

// FuzzReceive reads whatever a peer may send; the sockets that come with it are never leaked
// to who asked for something else.
func FuzzReceive(f *testing.F) {
	for _, m := range []message{
		{Hello: &Hello{Node: "n1"}}, {Refusal: "no"}, {Ready: true}, {Released: &Released{Jobs: []string{"a"}}},
		{Sockets: []socket{{Count: 1}, {Workload: 1, Count: -1}, {Count: 1 << 40}}},
	} {
		body, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, true)
	}
	f.Add([]byte("{"), false)
	f.Fuzz(func(t *testing.T, body []byte, withSocket bool) {
		if len(body) == 0 || len(body) > maxMessage {
			t.Skip()
		}
		path := filepath.Join(t.TempDir(), SocketName)
		l, err := Listen(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		peer, err := net.Dial("unixpacket", path)
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		conn, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		c := &Conn{unix: conn}
		defer c.Close()
		var sockets []rawSocket
		if withSocket {
			raw, err := listener(t).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			sockets = append(sockets, raw)
		}
		if err := sendRaw(peer.(*net.UnixConn), body, sockets); err != nil {
			t.Fatal(err)
		}
		m, files, err := c.receive()
		if err != nil {
			return
		}
		got, err := open(m.Sockets, files)
		if err == nil && withSocket && len(files) > 0 {
			count := 0
			for _, h := range got {
				count += len(h.Listeners) + len(h.Datagrams)
			}
			if count != 1 {
				t.Errorf("%d sockets of one", count)
			}
		}
		for _, h := range got {
			h.Close()
		}
	})
}

package netns

import (
	"errors"
	"net"
	"testing"
)

// What connects to a gate that is shut waits, and is accepted when it opens.
func TestGate(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(l.(*net.TCPListener))
	accepted := make(chan error, 10)
	go func() {
		for {
			conn, err := g.Accept()
			accepted <- err
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	dial := func() {
		t.Helper()
		conn, err := net.Dial("tcp4", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	dial()
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	for range 3 {
		g.shut()
		g.shut() // again is no error
		dial()
		dial()
		select {
		case err := <-accepted:
			t.Fatalf("accepted through a gate that is shut (%v)", err)
		default:
		}
		g.open()
		g.open()
		for range 2 {
			if err := <-accepted; err != nil {
				t.Fatal(err)
			}
		}
	}
	g.shut()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed gate: %v", err)
	}
	g.open() // of one that is closed
	if err := g.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
}

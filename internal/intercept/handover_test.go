package intercept

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that takes over finds what waited at the listeners, and where it was going.
func TestHandOver(t *testing.T) {
	w := newWorld(t)
	w.captureTarget()
	to := at(target4, capturedPort)
	inherited := duplicate(t, w.proxy[0])
	for _, l := range w.proxy {
		l.Close()
	}
	w.serving.Wait()

	// It is asked for while nobody accepts.
	answered := make(chan answer, 1)
	_, run := w.client(w.job, "tcp", to)
	go func() { answered <- run() }()
	before := w.i
	if err := before.Release(); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.i, err = Open(context.Background(), w.options); err != nil {
		t.Fatal(err)
	}
	if err := before.Reclaim(); !errors.Is(err, ErrRunning) {
		t.Errorf("reclaimed beside another daemon: %v", err)
	}
	if err := w.i.Inherit(inherited); err != nil {
		t.Fatal(err)
	}
	w.proxy = []*net.TCPListener{inherited}
	w.serve(inherited)
	wantSaid(t, <-answered, "PROXY "+to)
	if o := w.lastOrigin(); o.Workload != w.jobID || o.Protocol != 7 {
		t.Errorf("origin %+v", o)
	}

	// The other one ends, and this one goes on.
	w.stop()
	w.i = before
	wantError(t, w.run(w.job, "tcp", to), "ECONNREFUSED")
	if err := w.i.Reclaim(); err != nil {
		t.Fatal(err)
	}
	if w.proxy, err = w.i.Listen(context.Background(), Namespace{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range w.proxy {
		w.serve(l)
	}
	wantSaid(t, w.run(w.job, "tcp", to), "PROXY "+to)
}

// duplicate gives a listener away as SCM_RIGHTS does: another descriptor of the same socket.
func duplicate(t *testing.T, l *net.TCPListener) *net.TCPListener {
	t.Helper()
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if err := control(raw, func(old int) (err error) { fd, err = unix.Dup(old); return err }); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	again, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return again.(*net.TCPListener)
}

// Only a listener of ours is taken over.
func TestInheritsOnlyItsOwn(t *testing.T) {
	w := newWorld(t)
	for _, address := range []string{"127.0.0.1:0", target4 + ":0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := w.i.Inherit(l.(*net.TCPListener)); !errors.Is(err, ErrInherited) {
			t.Errorf("%s: %v, want ErrInherited", address, err)
		}
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(target4)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.i.InheritDatagrams(w.jobID, []*net.UDPConn{conn}); !errors.Is(err, ErrInherited) {
		t.Errorf("datagrams: %v, want ErrInherited", err)
	}
}

// However often a thread is lost to another namespace, the process stays where it is.
func TestLostThreads(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := apart(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/proc/self/ns/net", "/proc/thread-self/ns/net"} {
			if now, err := os.Readlink(path); err != nil || now != before {
				t.Fatalf("%s is %s (%v), was %s", path, now, err, before)
			}
		}
	}
}

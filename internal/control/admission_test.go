package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// waiting is a daemon that has something to wait for.
func waiting() *daemon {
	return &daemon{known: make(chan struct{}), asked: make(chan Peer, 2*maxWaiting)}
}

// Admit answers when known is closed.
func (d *daemon) Admit(ctx context.Context, peer Peer) (AdmissionReply, error) {
	if d.asked != nil {
		d.asked <- peer
	}
	select {
	case <-d.known:
		return AdmissionReply{Planner: true, Job: "job-1", Workload: "units", Cgroup: "/planner.service"}, d.fail
	case <-ctx.Done():
		return AdmissionReply{}, errors.Join(errors.New("it is not known"), ctx.Err())
	}
}

func TestAdmitWaitsUntilTheProcessIsKnown(t *testing.T) {
	d := waiting()
	path := serve(t, d)
	admitted := make(chan error, 1)
	go func() {
		reply, err := Admit(t.Context(), path, AdmissionRequest{WaitMillis: time.Minute.Milliseconds()})
		if want := (AdmissionReply{Planner: true, Job: "job-1", Workload: "units", Cgroup: "/planner.service"}); err == nil && reply != want {
			t.Errorf("got %+v", reply)
		}
		admitted <- err
	}()
	if peer := <-d.asked; peer.PID != os.Getpid() || int(peer.UID) != os.Getuid() {
		t.Errorf("the kernel says %+v", peer)
	}
	select {
	case err := <-admitted:
		t.Fatalf("admitted before it was known: %v", err)
	default:
	}
	close(d.known)
	if err := <-admitted; err != nil {
		t.Error(err)
	}
}

func TestAdmitSaysWhyNot(t *testing.T) {
	refusing := waiting()
	close(refusing.known)
	refusing.fail = errors.New("not below the ancestor")
	tests := []struct {
		name   string
		daemon *daemon
		wait   time.Duration
		want   string
	}{
		{"it can't be", refusing, time.Minute, "not below the ancestor"},
		{"it was not known in time", waiting(), time.Millisecond, "it is not known"},
		{"no wait", waiting(), 0, "between 1 and 300000 milliseconds"},
		{"too long a wait", waiting(), MaxAdmissionWait + time.Second, "between 1 and 300000 milliseconds"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Admit(t.Context(), serve(t, test.daemon), AdmissionRequest{WaitMillis: test.wait.Milliseconds()})
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrAway) {
				t.Errorf("got %v", err)
			}
		})
	}
	_, err := Admit(t.Context(), filepath.Join(t.TempDir(), SocketName), AdmissionRequest{WaitMillis: 1})
	if !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "no daemon at") {
		t.Errorf("without a daemon: %v", err)
	}
}

// Who waits must neither keep a daemon from stopping nor take all of its places.
func TestAdmissionIsBounded(t *testing.T) {
	d := waiting()
	path := filepath.Join(t.TempDir(), SocketName)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, path, d) }()
	// Enough of them to fill all places, once the socket is there.
	answers := make(chan error, maxWaiting)
	var clients sync.WaitGroup
	for range maxWaiting {
		clients.Go(func() {
			for {
				_, err := Admit(t.Context(), path, AdmissionRequest{WaitMillis: time.Minute.Milliseconds()})
				if err != nil && strings.Contains(err.Error(), "no daemon at") {
					continue
				}
				answers <- err
				return
			}
		})
	}
	for range maxWaiting {
		<-d.asked
	}
	if _, err := Admit(t.Context(), path, AdmissionRequest{WaitMillis: 1}); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "wait for admission already") {
		t.Errorf("one too many: %v", err)
	}
	stop()
	for range maxWaiting {
		if err := <-answers; !errors.Is(err, ErrAway) {
			t.Fatalf("when the daemon stops: %v", err)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	clients.Wait()
}

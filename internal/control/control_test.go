package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// daemon answers as a daemon does, and remembers who asked.
type daemon struct {
	fail error
	peer Peer
	req  JobRequest

	asked chan Peer     // who asks for admission
	known chan struct{} // closed when they are to be answered
}

func (d *daemon) StartJob(_ context.Context, peer Peer, req JobRequest) (JobReply, error) {
	d.peer, d.req = peer, req
	return JobReply{Job: "job-1", Environment: map[string]string{"A": "b"}}, d.fail
}

// serve starts the daemon's socket and returns its path.
func serve(t *testing.T, d *daemon) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", SocketName)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, path, d) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return path
		}
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
	}
}

func TestStartJobTellsWhoAsks(t *testing.T) {
	d := &daemon{}
	path := serve(t, d)
	reply, err := StartJob(context.Background(), path, JobRequest{Name: "nightly", TokenFile: "/run/token"})
	if err != nil || reply.Job != "job-1" || reply.Environment["A"] != "b" {
		t.Fatalf("%+v, %v", reply, err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) != len(d.peer.Groups) {
		t.Errorf("the kernel says groups %d, not %d", d.peer.Groups, groups)
	}
	for i, group := range groups {
		if uint32(group) != d.peer.Groups[i] {
			t.Errorf("the kernel says groups %d, not %d", d.peer.Groups, groups)
		}
	}
	if d.peer.PID != os.Getpid() || int(d.peer.UID) != os.Getuid() || int(d.peer.GID) != os.Getgid() {
		t.Errorf("the kernel says %+v", d.peer)
	}
	if d.req != (JobRequest{Name: "nightly", TokenFile: "/run/token"}) {
		t.Errorf("asked %+v", d.req)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v: any user may ask", info.Mode(), err)
	}
}

func TestStartJobTellsTheReason(t *testing.T) {
	path := serve(t, &daemon{fail: errors.New("no Workload document selects it")})
	if _, err := StartJob(context.Background(), path, JobRequest{Name: "x"}); err == nil || err.Error() != "no Workload document selects it" {
		t.Errorf("error %v", err)
	}
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	if _, err := StartJob(context.Background(), filepath.Join(dir, "none.sock"), JobRequest{}); err == nil || !strings.Contains(err.Error(), "chaperone up") {
		t.Errorf("no socket: %v", err)
	}
	dead := filepath.Join(dir, "dead.sock")
	listener, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	listener.Close()
	if _, err := StartJob(context.Background(), dead, JobRequest{}); err == nil || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("dead socket: %v", err)
	}
	// A daemon that starts takes the dead one's place, not a living one's.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Serve(ctx, dead, &daemon{}); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("in a dead daemon's place: %v", err)
	}
	living := serve(t, &daemon{})
	if err := Serve(context.Background(), living, &daemon{}); err == nil || !strings.Contains(err.Error(), "another daemon answers") {
		t.Errorf("beside a living daemon: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	d := &daemon{}
	path := serve(t, d)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	for name, body := range map[string]string{
		"no JSON":          "{",
		"an unknown field": `{"name":"x","uid":0}`,
		"too long":         `{"name":"` + strings.Repeat("x", maxRequest) + `"}`,
	} {
		response, err := client.Post("http://daemon/v1/jobs", "application/json", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		answer, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest || !strings.Contains(string(answer), "can't be read") {
			t.Errorf("%s: %s %s", name, response.Status, answer)
		}
	}
	if d.req.Name != "" {
		t.Errorf("a bad request was taken: %+v", d.req)
	}
}

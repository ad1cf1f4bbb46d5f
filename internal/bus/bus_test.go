package bus_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

func embedded(t testing.TB, o bus.Options) *bus.Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Cluster, o.Node, o.Log = "c1", "n1", zerolog.Nop()
	s, err := bus.Embedded(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t testing.TB, s *bus.Server, r bus.Role) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := s.Connect(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func BenchmarkPublish(b *testing.B) {
	s := embedded(b, bus.Options{})
	_, js := connect(b, s, bus.RoleNode)
	body := make([]byte, 600)
	var futs []jetstream.PubAckFuture
	for i := 0; b.Loop(); i++ {
		f, err := js.PublishMsgAsync(&nats.Msg{Subject: "chaperone.event.c1.n1.db.command", Data: body, Header: nats.Header{"Nats-Msg-Id": []string{"0197b0c2-7a51-7000-8000-3f6d8f6c1e55/" + strconv.Itoa(i)}}})
		if err != nil {
			b.Fatal(err)
		}
		futs = append(futs, f)
		if len(futs) == 1000 {
			for _, f := range futs {
				select {
				case <-f.Ok():
				case err := <-f.Err():
					b.Fatal(err)
				}
			}
			futs = futs[:0]
		}
	}
}

func TestRolesCanDoTheirWorkAndNoMore(t *testing.T) {
	s := embedded(t, bus.Options{})
	ctx := t.Context()
	_, node := connect(t, s, bus.RoleNode)
	_, sink := connect(t, s, bus.RoleSink)
	auditor, _ := connect(t, s, bus.RoleAuditor)

	heard, err := auditor.SubscribeSync("chaperone.event.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := auditor.Flush(); err != nil {
		t.Fatal(err)
	}
	publish := func(js jetstream.JetStream, subject, id string) error {
		ack, err := js.PublishAsync(subject, []byte("x"), jetstream.WithMsgID(id))
		if err != nil {
			return err
		}
		select {
		case <-ack.Ok():
			return nil
		case err := <-ack.Err():
			return err
		}
	}
	if err := publish(node, "chaperone.event.c1.n1.db.command", "e-1"); err != nil {
		t.Fatalf("node publishes an event: %v", err)
	}
	if err := publish(node, event.RecordingSubject("c1", "s-1"), "s-1/0"); err != nil {
		t.Fatalf("node publishes a block: %v", err)
	}
	if _, err := heard.NextMsgWithContext(ctx); err != nil {
		t.Fatalf("auditor hears it: %v", err)
	}
	for _, stream := range []string{bus.StreamEvents, bus.StreamRecordings} {
		c, err := sink.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
		if err != nil {
			t.Fatalf("sink consumes %s: %v", stream, err)
		}
		m, err := c.Next()
		if err != nil {
			t.Fatalf("sink reads %s: %v", stream, err)
		}
		if err := m.DoubleAck(ctx); err != nil {
			t.Fatalf("sink acknowledges %s: %v", stream, err)
		}
	}

	for name, c := range map[string]struct {
		role    bus.Role
		subject string
		listen  bool
	}{
		"node publishes as another node":     {bus.RoleNode, "chaperone.event.c1.n2.db.command", false},
		"node publishes for another cluster": {bus.RoleNode, "chaperone.recording.c2.s-1", false},
		"node deletes a stream":              {bus.RoleNode, "$JS.API.STREAM.DELETE." + bus.StreamEvents, false},
		"node reads events":                  {bus.RoleNode, "chaperone.event.>", true},
		"node listens to the sink's inbox":   {bus.RoleNode, "_INBOX_sink.>", true},
		"sink publishes an event":            {bus.RoleSink, "chaperone.event.c1.n1.db.command", false},
		"sink purges a stream":               {bus.RoleSink, "$JS.API.STREAM.PURGE." + bus.StreamEvents, false},
		"auditor publishes":                  {bus.RoleAuditor, "chaperone.event.c1.n1.db.command", false},
		"auditor reads recordings":           {bus.RoleAuditor, "chaperone.recording.>", true},
	} {
		t.Run(name, func(t *testing.T) {
			nc, _ := connect(t, s, c.role)
			refused := make(chan error, 1)
			nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err })
			if c.listen {
				_, err = nc.SubscribeSync(c.subject)
			} else {
				err = nc.Publish(c.subject, []byte("x"))
			}
			if err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-refused:
				if !errors.Is(err, nats.ErrPermissionViolation) {
					t.Fatal(err)
				}
			case <-ctx.Done():
				t.Fatal("allowed")
			}
		})
	}
}

func TestNobodyWithoutAKey(t *testing.T) {
	dir := t.TempDir()
	s := embedded(t, bus.Options{Dir: dir, Listen: "127.0.0.1:0"})
	if _, err := nats.Connect(s.URL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without a key: %v", err)
	}
	for _, r := range []bus.Role{bus.RoleNode, bus.RoleSink, bus.RoleAuditor} {
		file := filepath.Join(dir, "nats", string(r)+".nk")
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
		nc, err := bus.Connect(bus.Remote{URL: s.URL(), Role: r, SeedFile: file})
		if err != nil || !nc.IsConnected() {
			t.Errorf("%s: %v", r, err)
			continue
		}
		nc.Close()
	}
	if _, err := os.Stat(filepath.Join(dir, "nats", "admin.nk")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the admin's key is on the disk")
	}
}

// Who runs a daemon or a sink is told why there is no connection: once, not at
// each attempt, and when there is one.
func TestConnectTellsWhy(t *testing.T) {
	dir := t.TempDir()
	first := embedded(t, bus.Options{Dir: dir, Listen: "127.0.0.1:0"})
	url, key := first.URL(), filepath.Join(dir, "nats", "node.nk")
	first.Shutdown()
	if _, err := bus.Connect(bus.Remote{URL: url, Role: bus.RoleNode, SeedFile: key, Once: true}); !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, nats.ErrNoServers) {
		t.Errorf("once: %v", err)
	}
	type news struct {
		connected bool
		err       error
	}
	told := make(chan news, 100)
	nc, err := bus.Connect(bus.Remote{URL: url, Role: bus.RoleNode, SeedFile: key,
		Changed: func(connected bool, err error) { told <- news{connected, err} }})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	// The client's first word is that there are no servers; the cause comes
	// with the next attempt.
	for n := (news{}); n.err == nil || !strings.Contains(n.err.Error(), "connection refused"); {
		if n = <-told; n.connected {
			t.Fatal("told of a connection while the server is away")
		}
	}
	again := embedded(t, bus.Options{Dir: dir, Listen: strings.TrimPrefix(url, "nats://")})
	if n := <-told; !n.connected {
		t.Errorf("when it is back: %+v", n)
	}
	again.Shutdown()
	if n := <-told; n.connected {
		t.Errorf("when it is gone: %+v", n)
	}
}

func TestMessagesOutliveARestart(t *testing.T) {
	dir := t.TempDir()
	s := embedded(t, bus.Options{Dir: dir})
	_, js := connect(t, s, bus.RoleNode)
	ack, err := js.PublishAsync("chaperone.event.c1.n1._.node.started", []byte("x"), jetstream.WithMsgID("1"))
	if err != nil {
		t.Fatal(err)
	}
	<-ack.Ok()
	s.Shutdown()
	again := embedded(t, bus.Options{Dir: dir})
	_, sink := connect(t, again, bus.RoleSink)
	stream, err := sink.Stream(t.Context(), bus.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d messages", n)
	}
}

package bus_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/bus"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// strict fails the test for everything that the server refuses.
func strict(t *testing.T, nc *nats.Conn) {
	t.Helper()
	nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Errorf("refused: %v", err) })
}

// follow sends what a follower is told: keys with their values, and "current".
func follow(t *testing.T, b *bus.Bucket, key string) <-chan string {
	t.Helper()
	told := make(chan string, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Follow(ctx, key, bus.Follower{
			Value: func(e jetstream.KeyValueEntry) {
				if e.Operation() == jetstream.KeyValuePut {
					told <- e.Key() + "=" + string(e.Value())
				} else {
					told <- e.Key() + " gone"
				}
			},
			Current: func() { told <- "current" },
			Lost:    func(error) { told <- "lost" },
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return told
}

func next(t *testing.T, told <-chan string, want string) {
	t.Helper()
	select {
	case got := <-told:
		if got != want {
			t.Fatalf("told %q, want %q", got, want)
		}
	case <-t.Context().Done():
		t.Fatalf("never told %q", want)
	}
}

// What each role needs of the buckets, it may: nothing of it is refused.
func TestBucketsOfRoles(t *testing.T) {
	s := embedded(t, bus.Options{})
	ctx := t.Context()
	nodeConn, nodeJS := connect(t, s, bus.RoleNode)
	sinkConn, sinkJS := connect(t, s, bus.RoleSink)
	strict(t, nodeConn)
	strict(t, sinkConn)
	node, sink := bus.BucketsOf(nodeJS), bus.BucketsOf(sinkJS)

	put := func(b *bus.Bucket, key, value string) {
		t.Helper()
		kv, err := b.KV(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(ctx, key, []byte(value)); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	votes, locks, documents := follow(t, node.Approvals, "votes.c1.n1.*"), follow(t, node.Locks, ">"), follow(t, node.Documents, "bundle")
	all := follow(t, sink.Approvals, ">")
	for _, told := range []<-chan string{votes, locks, documents, all} {
		next(t, told, "current")
	}
	put(node.Approvals, "request.c1.n1.a-1", "q")
	next(t, all, "request.c1.n1.a-1=q")
	kv, err := sink.Approvals.KV(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(ctx, "request.c1.n1.a-1"); err != nil || string(e.Value()) != "q" {
		t.Fatalf("the sink gets a request: %v, %v", e, err)
	}
	revision, err := kv.Create(ctx, "votes.c1.n1.a-1", []byte("v"))
	if err != nil {
		t.Fatal(err)
	}
	next(t, votes, "votes.c1.n1.a-1=v")
	if _, err := kv.Update(ctx, "votes.c1.n1.a-1", []byte("w"), revision); err != nil {
		t.Fatal(err)
	}
	next(t, votes, "votes.c1.n1.a-1=w")
	if _, err := kv.Update(ctx, "votes.c1.n1.a-1", []byte("x"), revision); !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		t.Errorf("a second update of one revision: %v", err)
	}
	put(sink.Approvals, "votes.c1.n2.a-2", "another node's")
	put(sink.Locks, "l-1", "l")
	next(t, locks, "l-1=l")
	put(sink.Documents, "bundle", "d")
	next(t, documents, "bundle=d")
	if kv, err = sink.Locks.KV(ctx); err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(ctx, "l-1"); err != nil {
		t.Fatal(err)
	}
	next(t, locks, "l-1 gone")
	if _, err = node.Documents.KV(ctx); err != nil {
		t.Fatal(err)
	}
	if err := sinkConn.Publish("chaperone.event.c1.sink._.approval.rejected", []byte("{}")); err != nil {
		t.Error(err)
	}
	if err := errors.Join(nodeConn.Flush(), sinkConn.Flush()); err != nil {
		t.Error(err)
	}
	if len(votes) > 0 {
		t.Errorf("the node is told %q", <-votes)
	}
}

// And no more than that.
func TestBucketsAreRefused(t *testing.T) {
	s := embedded(t, bus.Options{})
	const approvals = "KV_CHAPERONE_APPROVALS"
	consumer := func(stream, filter string) string {
		return `{"stream_name":"` + stream + `","config":{"name":"x","deliver_subject":"_INBOX_node.x","ack_policy":"none","filter_subject":"` + filter + `"}}`
	}
	for name, c := range map[string]struct {
		role          bus.Role
		subject, body string
	}{
		"node writes another node's request": {bus.RoleNode, "$KV.CHAPERONE_APPROVALS.request.c1.n2.a-1", "x"},
		"node writes another cluster's":      {bus.RoleNode, "$KV.CHAPERONE_APPROVALS.request.c2.n1.a-1", "x"},
		"node votes":                         {bus.RoleNode, "$KV.CHAPERONE_APPROVALS.votes.c1.n1.a-1", "x"},
		"node locks":                         {bus.RoleNode, "$KV.CHAPERONE_LOCKS.l-1", "x"},
		"node publishes documents":           {bus.RoleNode, "$KV.CHAPERONE_DOCUMENTS.bundle", "x"},
		"node reads any message":             {bus.RoleNode, "$JS.API.DIRECT.GET." + approvals, `{"seq":1}`},
		"node gets a request":                {bus.RoleNode, "$JS.API.DIRECT.GET." + approvals + ".$KV.CHAPERONE_APPROVALS.request.c1.n1.a-1", ""},
		"node gets a message":                {bus.RoleNode, "$JS.API.STREAM.MSG.GET." + approvals, `{"seq":1}`},
		"node follows all requests":          {bus.RoleNode, "$JS.API.CONSUMER.CREATE." + approvals + ".x.$KV.CHAPERONE_APPROVALS.request.>", consumer(approvals, "$KV.CHAPERONE_APPROVALS.request.>")},
		"node follows another's votes":       {bus.RoleNode, "$JS.API.CONSUMER.CREATE." + approvals + ".x.$KV.CHAPERONE_APPROVALS.votes.c1.n2.*", consumer(approvals, "$KV.CHAPERONE_APPROVALS.votes.c1.n2.*")},
		"node follows everything":            {bus.RoleNode, "$JS.API.CONSUMER.CREATE." + approvals + ".x", consumer(approvals, "")},
		"node makes a durable consumer":      {bus.RoleNode, "$JS.API.CONSUMER.DURABLE.CREATE." + approvals + ".x", consumer(approvals, "")},
		"node purges":                        {bus.RoleNode, "$JS.API.STREAM.PURGE." + approvals, ""},
		"node removes the bucket":            {bus.RoleNode, "$JS.API.STREAM.DELETE." + approvals, ""},
		"sink writes a request":              {bus.RoleSink, "$KV.CHAPERONE_APPROVALS.request.c1.n1.a-1", "x"},
		"sink publishes a node's event":      {bus.RoleSink, "chaperone.event.c1.n1._.approval.decided", "x"},
		"sink publishes other documents":     {bus.RoleSink, "$KV.CHAPERONE_DOCUMENTS.other", "x"},
		"sink removes the bucket":            {bus.RoleSink, "$JS.API.STREAM.DELETE." + approvals, ""},
		"sink purges the locks":              {bus.RoleSink, "$JS.API.STREAM.PURGE.KV_CHAPERONE_LOCKS", ""},
		"sink changes the bucket":            {bus.RoleSink, "$JS.API.STREAM.UPDATE." + approvals, "{}"},
		"auditor writes a request":           {bus.RoleAuditor, "$KV.CHAPERONE_APPROVALS.request.c1.n1.a-1", "x"},
		"auditor votes":                      {bus.RoleAuditor, "$KV.CHAPERONE_APPROVALS.votes.c1.n1.a-1", "x"},
		"auditor reads the bucket":           {bus.RoleAuditor, "$JS.API.CONSUMER.CREATE." + approvals + ".x", consumer(approvals, "")},
	} {
		t.Run(name, func(t *testing.T) {
			nc, _ := connect(t, s, c.role)
			refused := make(chan error, 1)
			nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err })
			if err := nc.Publish(c.subject, []byte(c.body)); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-refused:
				if !errors.Is(err, nats.ErrPermissionViolation) {
					t.Fatal(err)
				}
			case <-t.Context().Done():
				t.Fatal("allowed")
			}
		})
	}
}

// Two ways round the permissions, which the server and the bucket's settings close: a
// filter that is not the subject's, and a header that removes what others wrote.
func TestBucketsHaveNoWayRound(t *testing.T) {
	s := embedded(t, bus.Options{})
	ctx := t.Context()
	nc, js := connect(t, s, bus.RoleNode)
	const create = "$JS.API.CONSUMER.CREATE.KV_CHAPERONE_APPROVALS.x.$KV.CHAPERONE_APPROVALS.votes.c1.n1.*"
	for name, filter := range map[string]string{
		"another filter": `"filter_subject":"$KV.CHAPERONE_APPROVALS.>"`,
		"no filter":      `"deliver_policy":"all"`,
		"more filters":   `"filter_subject":"$KV.CHAPERONE_APPROVALS.votes.c1.n1.*","filter_subjects":["$KV.CHAPERONE_APPROVALS.>"]`,
		"filters":        `"filter_subjects":["$KV.CHAPERONE_APPROVALS.>"]`,
	} {
		m, err := nc.RequestWithContext(ctx, create, []byte(`{"stream_name":"KV_CHAPERONE_APPROVALS","config":{"name":"x","deliver_subject":"_INBOX_node.x","ack_policy":"none",`+filter+`}}`))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(m.Data), `"error"`) {
			t.Errorf("%s: %s", name, m.Data)
		}
	}
	_, sinkJS := connect(t, s, bus.RoleSink)
	kv, err := bus.BucketsOf(sinkJS).Approvals.KV(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(ctx, "votes.c1.n2.a-1", []byte("v")); err != nil {
		t.Fatal(err)
	}
	for _, rollup := range []string{"all", "sub"} {
		_, err = js.PublishMsg(ctx, &nats.Msg{Subject: "$KV.CHAPERONE_APPROVALS.request.c1.n1.a-1", Header: nats.Header{"Nats-Rollup": []string{rollup}}})
		if err == nil {
			t.Errorf("a node rolls up %q", rollup)
		}
	}
	if _, err := kv.Get(ctx, "votes.c1.n2.a-1"); err != nil {
		t.Errorf("another node's votes: %v", err)
	}
}

// A follower outlives the server's restart and the bucket's loss, and is then told all again.
func TestFollowComesBack(t *testing.T) {
	dir := t.TempDir()
	first := embedded(t, bus.Options{Dir: dir, Listen: "127.0.0.1:0"})
	address := strings.TrimPrefix(first.URL(), "nats://")
	nc, err := bus.Connect(bus.Remote{URL: first.URL(), Role: bus.RoleNode, SeedFile: bus.SeedFile(dir, bus.RoleNode)})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	put := func(s *bus.Server, value string) {
		t.Helper()
		_, sink := connect(t, s, bus.RoleSink)
		kv, err := bus.BucketsOf(sink).Locks.KV(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(t.Context(), "l-1", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	told := follow(t, bus.BucketsOf(js).Locks, ">")
	next(t, told, "current")
	put(first, "1")
	next(t, told, "l-1=1")
	first.Shutdown()
	second := embedded(t, bus.Options{Dir: dir, Listen: address})
	for {
		got := <-told
		if got == "lost" {
			continue
		}
		if got != "l-1=1" {
			t.Fatalf("told %q", got)
		}
		break
	}
	next(t, told, "current")

	_, admin := connect(t, second, bus.RoleAdmin)
	if err := admin.DeleteStream(t.Context(), "KV_"+bus.BucketLocks); err != nil {
		t.Fatal(err)
	}
	next(t, told, "lost")
	if err := bus.Setup(t.Context(), admin, bus.Limits{}); err != nil {
		t.Fatal(err)
	}
	next(t, told, "current")
	put(second, "2")
	next(t, told, "l-1=2")
}

func TestBucketsLast(t *testing.T) {
	s := embedded(t, bus.Options{})
	_, js := connect(t, s, bus.RoleAdmin)
	for bucket, want := range map[string]struct {
		age     time.Duration
		history int64
	}{
		bus.BucketApprovals: {7 * 24 * time.Hour, 1},
		bus.BucketLocks:     {0, 1},
		bus.BucketDocuments: {0, 10},
	} {
		stream, err := js.Stream(t.Context(), "KV_"+bucket)
		if err != nil {
			t.Fatal(err)
		}
		c := stream.CachedInfo().Config
		if c.MaxAge != want.age || c.MaxMsgsPerSubject != want.history || c.Storage != jetstream.FileStorage || c.MaxBytes <= 0 || c.MaxMsgSize <= 0 {
			t.Errorf("%s: %+v", bucket, c)
		}
	}
	if err := bus.Setup(t.Context(), js, bus.Limits{}); err != nil {
		t.Errorf("a second set-up: %v", err)
	}
}

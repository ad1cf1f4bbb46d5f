package documents_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/documents"
	"chaperone.dev/chaperone/pkg/policy"
)

var ann = approval.Person{Subject: "ann", Issuer: "corp"}

// signer is one of several authorities, by number.
func signer(t testing.TB, number byte) *authority.Signer {
	t.Helper()
	s, err := authority.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{number}, ed25519.SeedSize)))
	ok(t, err)
	return s
}

func keys(t testing.TB) authority.Keys { return authority.Keys{signer(t, 1).Public()} }

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startNATS starts a server with the bucket.
func startNATS(t testing.TB, dir string) (jetstream.JetStream, jetstream.KeyValue, func()) {
	t.Helper()
	s, err := server.NewServer(&server.Options{JetStream: true, StoreDir: dir, DontListen: true, NoSigs: true, NoLog: true})
	ok(t, err)
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	ok(t, err)
	js, err := jetstream.New(nc)
	ok(t, err)
	stop := sync.OnceFunc(func() {
		nc.Close()
		s.Shutdown()
		s.WaitForShutdown()
	})
	t.Cleanup(stop)
	return js, bucket(t, js), stop
}

func bucket(t testing.TB, js jetstream.JetStream) jetstream.KeyValue {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		kv, err := js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: documents.Bucket})
		// The server removes a deleted bucket's files behind its answer, and can't make another one meanwhile.
		var refused *jetstream.APIError
		if errors.As(err, &refused) && refused.ErrorCode == storeNotCreated {
			<-tick.C
			continue
		}
		ok(t, err)
		return kv
	}
}

const storeNotCreated jetstream.ErrorCode = 10049

// target is a Target document.
func target(name string) string {
	return fmt.Sprintf("apiVersion: chaperone.dev/v1alpha1\nkind: Target\nmetadata: {name: %s}\nspec:\n  protocol: postgres\n  hosts: [\"%s.db.example:5432\"]\n"+
		"  credential:\n    postgresRole:\n      adminFrom: {file: /etc/chaperone/admin}\n", name, name)
}

func publish(t testing.TB, kv jetstream.KeyValue, files map[string]string) documents.Bundle {
	t.Helper()
	b, _, err := documents.Publish(t.Context(), kv, signer(t, 1), keys(t), files, ann)
	ok(t, err)
	return b
}

func TestPublish(t *testing.T) {
	_, kv, _ := startNATS(t, t.TempDir())
	if _, err := documents.Read(t.Context(), kv, keys(t)); !errors.Is(err, documents.ErrNone) {
		t.Errorf("reading before anything is published: %v", err)
	}
	files := map[string]string{"orders.yaml": target("orders"), "more.yml": target("users") + "---\n" + target("cards")}
	first, revision, err := documents.Publish(t.Context(), kv, signer(t, 1), keys(t), files, ann)
	ok(t, err)
	alone, err := policy.Parse("all.yaml", []byte(files["orders.yaml"]+"---\n"+files["more.yml"]))
	ok(t, err)
	if revision != alone.Revision {
		t.Errorf("revision %s, want %s", revision, alone.Revision)
	}
	got, err := documents.Read(t.Context(), kv, keys(t))
	ok(t, err)
	if got.Serial != first.Serial || got.By.String() != "ann@corp" || got.Files["orders.yaml"] != files["orders.yaml"] || time.Since(got.At) > time.Minute {
		t.Errorf("read %+v", got)
	}
	if second := publish(t, kv, files); second.Serial <= first.Serial {
		t.Errorf("serial %d after %d", second.Serial, first.Serial)
	}
	if _, err := documents.Read(t.Context(), kv, authority.Keys{signer(t, 2).Public()}); !errors.Is(err, authority.ErrSignature) {
		t.Errorf("with another key: %v", err)
	}
}

// Whatever somebody does to the bucket, what is published next is newer than what any
// node has taken.
func TestPublishNeverGoesBack(t *testing.T) {
	ctx := t.Context()
	js, kv, _ := startNATS(t, t.TempDir())
	publish(t, kv, map[string]string{"a.yaml": target("a")})
	old, err := kv.Get(ctx, documents.Key)
	ok(t, err)
	last := publish(t, kv, map[string]string{"a.yaml": target("b")})
	for name, harm := range map[string]func() error{
		"deleted":  func() error { return kv.Delete(ctx, documents.Key) },
		"purged":   func() error { return kv.Purge(ctx, documents.Key) },
		"replayed": func() error { _, err := kv.Put(ctx, documents.Key, old.Value()); return err },
		"garbage":  func() error { _, err := kv.Put(ctx, documents.Key, []byte("{")); return err },
		"bucket deleted": func() error {
			if err := js.DeleteKeyValue(ctx, documents.Bucket); err != nil {
				return err
			}
			kv = bucket(t, js)
			return nil
		},
	} {
		// The clock is beyond the last serial, where not more than one was given each millisecond.
		for time.Now().UnixMilli() <= int64(last.Serial) {
			runtime.Gosched()
		}
		ok(t, harm())
		next := publish(t, kv, map[string]string{"a.yaml": target("c")})
		if next.Serial <= last.Serial {
			t.Errorf("%s: serial %d after %d", name, next.Serial, last.Serial)
		}
		last = next
	}
}

func TestPublishAtOnce(t *testing.T) {
	_, kv, _ := startNATS(t, t.TempDir())
	const people = 4
	var wg sync.WaitGroup
	serials := make([]uint64, people)
	for i := range people {
		wg.Go(func() {
			b, _, err := documents.Publish(t.Context(), kv, signer(t, 1), keys(t), map[string]string{"a.yaml": target(fmt.Sprintf("t%d", i))}, ann)
			if err != nil {
				t.Error(err)
			}
			serials[i] = b.Serial
		})
	}
	wg.Wait()
	seen := map[uint64]bool{}
	var last uint64
	for _, n := range serials {
		if seen[n] {
			t.Errorf("serial %d twice", n)
		}
		seen[n] = true
		last = max(last, n)
	}
	got, err := documents.Read(t.Context(), kv, keys(t))
	ok(t, err)
	if got.Serial != last {
		t.Errorf("serial %d is published, want the last one, %d", got.Serial, last)
	}
}

func TestPublishRefuses(t *testing.T) {
	_, kv, _ := startNATS(t, t.TempDir())
	const node = "apiVersion: chaperone.dev/v1alpha1\nkind: Node\nspec: {listenPort: 1}\n"
	big := map[string]string{}
	for i := range 2 {
		big[fmt.Sprintf("%d.yaml", i)] = target(fmt.Sprintf("t%d", i)) + "# " + strings.Repeat("x", 500<<10) + "\n"
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing":         {nil, "no policy documents"},
		"no document":     {map[string]string{"a.yaml": "# nothing\n"}, "no policy documents"},
		"a node's":        {map[string]string{"a.yaml": target("a") + "---\n" + node}, `a.yaml: kind: document 2 of the file is a "Node"`},
		"a node's, twice": {map[string]string{"a.yaml": strings.Replace(node, "kind: Node", "kind: Target\nkind: Node", 1)}, "a.yaml"},
		"a sink's":        {map[string]string{"a.yaml": strings.Replace(node, "Node", "Sink", 1)}, `is a "Sink"`},
		"not valid":       {map[string]string{"a.yaml": strings.Replace(target("a"), "postgres\n", "telnet\n", 1)}, "a.yaml:5"},
		"not YAML":        {map[string]string{"a.yaml": "{"}, "a.yaml"},
		"unknown kind":    {map[string]string{"a.yaml": strings.Replace(target("a"), "Target", "Thing", 1)}, `is a "Thing"`},
		"another suffix":  {map[string]string{"a.txt": target("a")}, "a.txt: documents are in files called *.yaml"},
		"a path":          {map[string]string{"../a.yaml": target("a")}, "this is no file's name"},
		"hidden":          {map[string]string{".a.yaml": target("a")}, "documents are in files called"},
		"test cases":      {map[string]string{"a_test.yaml": target("a")}, "test cases"},
		"too large":       {big, "1001 KiB as they are stored, and may take 900"},
	} {
		_, _, err := documents.Publish(t.Context(), kv, signer(t, 1), keys(t), c.files, ann)
		if !errors.Is(err, documents.ErrRefused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %q", name, err, c.want)
		}
	}
	if _, err := documents.Read(t.Context(), kv, keys(t)); !errors.Is(err, documents.ErrNone) {
		t.Errorf("something was published: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := documents.Publish(gone, kv, signer(t, 1), keys(t), map[string]string{"a.yaml": target("a")}, ann); err == nil || errors.Is(err, documents.ErrRefused) {
		t.Errorf("with NATS out of reach: %v, want an error that doesn't blame the documents", err)
	}
}

// A bucket's value comes from whoever may write there.
func FuzzRead(f *testing.F) {
	signed, err := signer(f, 1).Sign(documents.Signed, documents.Bundle{Serial: 7, Files: map[string]string{"a.yaml": target("a")}, By: ann})
	ok(f, err)
	value, err := json.Marshal(signed)
	ok(f, err)
	f.Add(value)
	f.Add([]byte(`{"payload":{},"key":"","signature":""}`))
	trusted := keys(f)
	f.Fuzz(func(t *testing.T, value []byte) {
		b, err := documents.Decode(value, trusted)
		if err == nil && (b.Serial != 7 || b.Files["a.yaml"] != target("a")) {
			t.Fatalf("taken: %+v", b)
		}
	})
}

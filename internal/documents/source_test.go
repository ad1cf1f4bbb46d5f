package documents_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/documents"
	"chaperone.dev/chaperone/pkg/policy"
)

const (
	plainNode     = "apiVersion: chaperone.dev/v1alpha1\nkind: Node\nspec: {cluster: c1}\n"
	publishedNode = "apiVersion: chaperone.dev/v1alpha1\nkind: Node\nspec:\n  cluster: c1\n  documents: {published: true}\n"
)

// world is a source on a real folder, and what it tells.
type world struct {
	t        *testing.T
	dir      string
	state    string
	source   *documents.Source
	refuse   func(*policy.Set) error // by who puts sets in force
	told     chan told
	inForce  string // revision of the last set that was told of
	options  documents.Options
	stopLast func()
}

// told is a call of Changed or Rejected.
type told struct {
	set    *policy.Set
	origin string
	err    error
	kept   string
}

func newWorld(t *testing.T, node string) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "documents"), state: filepath.Join(t.TempDir(), "state"), told: make(chan told, 1000)}
	ok(t, os.Mkdir(w.dir, 0o700))
	w.write("node.yaml", node)
	w.write("a.yaml", target("a"))
	return w
}

// start opens the source and runs it until the test's end, or stop.
func (w *world) start(kv *bus.Bucket, quiet time.Duration) {
	w.t.Helper()
	if w.options.Keys == nil {
		w.options.Keys = keys(w.t)
	}
	o := w.options
	o.Dir, o.State, o.KV, o.Quiet, o.Log = w.dir, w.state, kv, quiet, zerolog.Nop()
	o.Changed = func(_ context.Context, set *policy.Set, origin string) error {
		if w.refuse != nil {
			if err := w.refuse(set); err != nil {
				return err
			}
		}
		w.told <- told{set: set, origin: origin}
		return nil
	}
	o.Rejected = func(err error, kept string) { w.told <- told{err: err, kept: kept} }
	if o.Check == 0 {
		o.Check = 20 * time.Millisecond
	}
	source, err := documents.Open(o)
	ok(w.t, err)
	w.source, w.inForce = source, source.Set().Revision
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx) }()
	w.stopLast = func() {
		cancel()
		if done == nil {
			return
		}
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		done = nil
	}
	w.t.Cleanup(w.stopLast)
}

func (w *world) write(name, text string) {
	w.t.Helper()
	ok(w.t, os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600))
}

// next is what the source tells next.
func (w *world) next() told {
	w.t.Helper()
	select {
	case got := <-w.told:
		if got.set != nil {
			w.inForce = got.set.Revision
		}
		return got
	case <-time.After(20 * time.Second):
		w.t.Fatal("nothing was told")
		return told{}
	}
}

// changed waits for a set with those targets, and nothing else.
func (w *world) changed(origin string, targets ...string) {
	w.t.Helper()
	got := w.next()
	if got.err != nil {
		w.t.Fatalf("refused: %v", got.err)
	}
	if has := names(got.set); !slices.Equal(has, targets) || !strings.Contains(got.origin, origin) {
		w.t.Fatalf("%v from %q, want %v from %q", has, got.origin, targets, origin)
	}
}

// rejected waits for a refusal that keeps what is in force.
func (w *world) rejected(want string) error {
	w.t.Helper()
	got := w.next()
	if got.err == nil {
		w.t.Fatalf("%v in force from %q, want a refusal with %q", names(got.set), got.origin, want)
	}
	if !strings.Contains(got.err.Error(), want) || got.kept != w.inForce {
		w.t.Fatalf("refused: %v, kept %s; want %q, kept %s", got.err, got.kept, want, w.inForce)
	}
	if w.source.Set().Revision != w.inForce {
		w.t.Fatal("the set in force is another one")
	}
	return got.err
}

// settled makes sure that nothing else is told: what is asked for now comes next.
func (w *world) settled(targets ...string) {
	w.t.Helper()
	w.source.Reload()
	w.changed("a request to read them again", targets...)
}

func names(set *policy.Set) []string {
	var all []string
	for _, target := range set.Targets {
		all = append(all, target.Metadata.Name)
	}
	return all
}

// reaches waits for a set with those targets; on the way to it there may be others.
func (w *world) reaches(targets ...string) {
	w.t.Helper()
	for {
		if got := w.next(); got.err == nil && slices.Equal(names(got.set), targets) {
			return
		}
	}
}

func TestFolderChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plainNode)
	elsewhere := filepath.Join(t.TempDir(), "linked.yaml")
	w.start(nil, 50*time.Millisecond)
	for _, step := range []struct {
		name   string
		change func()
		want   []string
	}{
		{"a new file", func() { w.write("b.yaml", target("b")) }, []string{"a", "b"}},
		{"an editor writes beside and renames", func() {
			w.write(".b.yaml.swp", target("c"))
			ok(t, os.Rename(filepath.Join(w.dir, ".b.yaml.swp"), filepath.Join(w.dir, "b.yaml")))
		}, []string{"a", "c"}},
		{"an editor moves the old one away first", func() {
			ok(t, os.Rename(filepath.Join(w.dir, "b.yaml"), filepath.Join(w.dir, "b.yaml~")))
			w.write("b.yaml", target("d"))
		}, []string{"a", "d"}},
		{"a file is removed", func() { ok(t, os.Remove(filepath.Join(w.dir, "b.yaml"))) }, []string{"a"}},
		{"a link to a file", func() {
			ok(t, os.WriteFile(elsewhere, []byte(target("l")), 0o600))
			ok(t, os.Symlink(elsewhere, filepath.Join(w.dir, "l.yaml")))
		}, []string{"a", "l"}},
		{"what the link leads to", func() { ok(t, os.WriteFile(elsewhere, []byte(target("longer")), 0o600)) }, []string{"a", "longer"}},
		{"the folder is replaced", func() {
			other := filepath.Join(filepath.Dir(w.dir), "other")
			ok(t, os.Mkdir(other, 0o700))
			ok(t, os.WriteFile(filepath.Join(other, "all.yaml"), []byte(plainNode+"---\n"+target("z")), 0o600))
			ok(t, os.Rename(w.dir, w.dir+".old"))
			ok(t, os.Rename(other, w.dir))
		}, []string{"z"}},
		{"a file in the new folder", func() { w.write("y.yaml", target("y")) }, []string{"y", "z"}},
	} {
		t.Log(step.name)
		step.change()
		w.reaches(step.want...)
	}
	w.settled("y", "z")
	if got := names(w.source.Set()); !slices.Equal(got, []string{"y", "z"}) {
		t.Errorf("in force: %v", got)
	}
}

// A mounted ConfigMap: the files are links through "..data", which is swapped.
func TestConfigMapIsSwapped(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), state: t.TempDir(), told: make(chan told, 1000)}
	w.options.Check = time.Hour // by notice alone
	version := func(name, text string) {
		ok(t, os.Mkdir(filepath.Join(w.dir, name), 0o700))
		ok(t, os.WriteFile(filepath.Join(w.dir, name, "all.yaml"), []byte(text), 0o600))
		ok(t, os.Symlink(name, filepath.Join(w.dir, "..data_tmp")))
		ok(t, os.Rename(filepath.Join(w.dir, "..data_tmp"), filepath.Join(w.dir, "..data")))
	}
	version("..2026_1", target("a"))
	ok(t, os.Symlink("..data/all.yaml", filepath.Join(w.dir, "all.yaml")))
	w.start(nil, 10*time.Millisecond)
	w.settled("a")
	version("..2026_2", target("b"))
	w.changed("the folder "+w.dir, "b")
	ok(t, os.RemoveAll(filepath.Join(w.dir, "..2026_1")))
	version("..2026_3", target("c"))
	w.changed("the folder "+w.dir, "c")
}

// A document that is written in two halves is read when it is whole.
func TestHalfADocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plainNode)
	w.start(nil, time.Second)
	w.settled("a")
	text := target("b")
	f, err := os.Create(filepath.Join(w.dir, "b.yaml"))
	ok(t, err)
	defer f.Close()
	for _, part := range []string{text[:60], text[60:90], text[90:]} {
		_, err := f.WriteString(part)
		ok(t, err)
	}
	w.changed("the folder", "a", "b")
}

// What is not valid is told once, and changes nothing.
func TestInvalidThenValid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plainNode)
	w.start(nil, 10*time.Millisecond)
	half := target("b")[:70]
	w.write("b.yaml", half)
	w.rejected("b.yaml")
	ok(t, os.Chtimes(filepath.Join(w.dir, "b.yaml"), time.Time{}, time.Now())) // the same again
	ok(t, os.Rename(filepath.Join(w.dir, "b.yaml"), filepath.Join(w.dir, ".away")))
	ok(t, os.Rename(filepath.Join(w.dir, ".away"), filepath.Join(w.dir, "b.yaml")))
	w.write("b.yaml", target("b"))
	w.reaches("a", "b")
	w.write("b.yaml", half)
	w.reachesRefusal("b.yaml")
	// As it was: that is told too, for who has been told of the fault.
	w.write("b.yaml", target("b"))
	w.reaches("a", "b")
	// Comments are nothing to tell.
	w.write("b.yaml", "# a comment\n"+target("b"))
	w.write("c.yaml", target("c"))
	w.reaches("a", "b", "c")
	// A request is answered even where nothing has changed.
	w.write("c.yaml", half)
	w.reachesRefusal("c.yaml")
	w.source.Reload()
	w.rejected("c.yaml")
	w.source.Reload()
	w.rejected("c.yaml")
}

// reachesRefusal waits for a refusal.
func (w *world) reachesRefusal(want string) {
	w.t.Helper()
	for {
		if got := w.next(); got.err != nil && strings.Contains(got.err.Error(), want) {
			return
		}
	}
}

// Who puts sets in force may refuse one that is valid.
func TestRefusedByWhoEnforces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plainNode)
	w.refuse = func(set *policy.Set) error {
		if set.Target("b") != nil {
			return errors.New("port 5432 is taken")
		}
		return nil
	}
	w.start(nil, 10*time.Millisecond)
	w.write(".new", target("b"))
	ok(t, os.Rename(filepath.Join(w.dir, ".new"), filepath.Join(w.dir, "b.yaml")))
	w.rejected("port 5432 is taken")
	if got := names(w.source.Set()); !slices.Equal(got, []string{"a"}) {
		t.Errorf("in force: %v", got)
	}
}

func TestManyQuickChangesEndInTheLast(t *testing.T) {
	t.Parallel()
	js, kv, _ := startNATS(t, t.TempDir())
	w := newWorld(t, publishedNode)
	w.start(bus.NewBucket(js, documents.Bucket), 10*time.Millisecond)
	for i := range 200 {
		w.write("n.yaml", target(fmt.Sprintf("n%d", i)))
		publish(t, kv, map[string]string{"p.yaml": target(fmt.Sprintf("p%d", i))})
	}
	w.reaches("a", "n199", "p199")
	w.settled("a", "n199", "p199")
}

func TestPublishedDocuments(t *testing.T) {
	t.Parallel()
	js, kv, _ := startNATS(t, t.TempDir())
	w := newWorld(t, publishedNode)
	// The folder's documents may need those that are published.
	w.write("policy.yaml", "apiVersion: chaperone.dev/v1alpha1\nkind: Policy\nmetadata: {name: p}\nspec:\n  principals: {subjects: [\"*\"]}\n  targets: [a]\n"+
		"  rules: [{name: all, when: \"true\", then: allow}]\n")
	w.start(nil, 10*time.Millisecond)
	w.settled("a")
	first := publish(t, kv, map[string]string{"b.yaml": target("b")})
	w.source.Bind(bus.NewBucket(js, documents.Bucket))
	w.changed(fmt.Sprintf("ann@corp published at %s (serial %d)", first.At.Format(time.RFC3339), first.Serial), "a", "b")
	publish(t, kv, map[string]string{"c.yaml": target("c")})
	w.changed("ann@corp", "a", "c")
	// What doesn't load with the folder's is refused as a whole, until it does.
	publish(t, kv, map[string]string{"again.yaml": target("a")})
	err := w.rejected("published:again.yaml")
	if len(policy.Messages(err)) == 0 {
		t.Errorf("no messages of %v", err)
	}
	ok(t, os.Remove(filepath.Join(w.dir, "a.yaml")))
	w.changed("the folder", "a")
}

// A bucket that others may write to gives them no say.
func TestBundlesThatDoNotCount(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	js, kv, _ := startNATS(t, t.TempDir())
	w := newWorld(t, publishedNode)
	publish(t, kv, map[string]string{"b.yaml": target("old")})
	old, err := kv.Get(ctx, documents.Key)
	ok(t, err)
	last := publish(t, kv, map[string]string{"b.yaml": target("b")})
	good, err := kv.Get(ctx, documents.Key)
	ok(t, err)
	w.start(bus.NewBucket(js, documents.Bucket), 10*time.Millisecond)
	w.changed("ann@corp", "a", "b")

	sign := func(number byte, kind string, b documents.Bundle) []byte {
		signed, err := signer(t, number).Sign(kind, b)
		ok(t, err)
		value, err := json.Marshal(signed)
		ok(t, err)
		return value
	}
	later := last
	later.Serial++
	later.Files = map[string]string{"b.yaml": target("evil")}
	twin := later
	twin.Serial = last.Serial
	node := later
	node.Files = map[string]string{"n.yaml": strings.Replace(plainNode, "c1", "c2", 1)}
	var altered authority.Signed
	ok(t, json.Unmarshal(good.Value(), &altered))
	altered.Payload = []byte(strings.Replace(string(altered.Payload), "b.db.example", "e.db.example", 1))
	changed, err := json.Marshal(altered)
	ok(t, err)
	for _, c := range []struct {
		name  string
		value []byte
		want  string
		is    error
	}{
		{"another key", sign(2, documents.Signed, later), "not signed", authority.ErrSignature},
		{"another kind", sign(1, "approval.vote", later), "not signed", authority.ErrSignature},
		{"altered", changed, "not signed", authority.ErrSignature},
		{"no JSON", []byte("{"), "can't be read", nil},
		{"empty", nil, "can't be read", nil},
		{"too large", []byte(strings.Repeat(" ", documents.MaxSize+1)), "the limit is", nil},
		{"an older one", old.Value(), "an older bundle was put back", documents.ErrReplayed},
		{"the same serial", sign(1, documents.Signed, twin), "with other content", documents.ErrReplayed},
	} {
		t.Log(c.name)
		_, err := kv.Put(ctx, documents.Key, c.value)
		ok(t, err)
		if err := w.rejected(c.want); c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// Gone is not changed.
	ok(t, kv.Delete(ctx, documents.Key))
	if err := w.rejected("somebody has deleted them"); !errors.Is(err, documents.ErrGone) {
		t.Error(err)
	}
	publish(t, kv, map[string]string{"b.yaml": target("c")})
	w.changed("ann@corp", "a", "c")
	ok(t, kv.Purge(ctx, documents.Key))
	w.rejected("somebody has deleted them")
	ok(t, js.DeleteKeyValue(ctx, documents.Bucket))
	w.source.Reload()
	w.changed("a request", "a", "c")
	publish(t, bucket(t, js), map[string]string{"b.yaml": target("new")})
	w.reaches("a", "new")

	// Signed, and still not for others to say.
	node.Serial = last.Serial + 1_000_000_000
	_, err = kv.Put(ctx, documents.Key, sign(1, documents.Signed, node))
	ok(t, err)
	w.rejected(`n.yaml: kind: document 1 of the file is a "Node"`)
}

func TestBucketIsDeleted(t *testing.T) {
	t.Parallel()
	js, kv, _ := startNATS(t, t.TempDir())
	w := newWorld(t, publishedNode)
	publish(t, kv, map[string]string{"b.yaml": target("b")})
	w.start(bus.NewBucket(js, documents.Bucket), 10*time.Millisecond)
	w.changed("ann@corp", "a", "b")
	ok(t, js.DeleteKeyValue(t.Context(), documents.Bucket))
	if err := w.rejected("there is no bucket CHAPERONE_DOCUMENTS"); !errors.Is(err, documents.ErrGone) {
		t.Error(err)
	}
	// One that is made anew, and empty, is told of no more than that.
	kv = bucket(t, js)
	publish(t, kv, map[string]string{"b.yaml": target("c")})
	w.reaches("a", "c")
}

func TestRestart(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	js, kv, stopNATS := startNATS(t, t.TempDir())
	w := newWorld(t, publishedNode)
	publish(t, kv, map[string]string{"b.yaml": target("b")})
	old, err := kv.Get(ctx, documents.Key)
	ok(t, err)
	w.start(bus.NewBucket(js, documents.Bucket), 10*time.Millisecond)
	w.changed("ann@corp", "a", "b")
	publish(t, kv, map[string]string{"b.yaml": target("c")})
	w.changed("ann@corp", "a", "c")
	w.stopLast()

	// NATS is away.
	w.start(nil, 10*time.Millisecond)
	if got := names(w.source.Set()); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("without NATS: %v", got)
	}
	w.settled("a", "c")
	// It comes back, and somebody has put the old bundle back.
	_, err = kv.Put(ctx, documents.Key, old.Value())
	ok(t, err)
	w.source.Bind(bus.NewBucket(js, documents.Bucket))
	w.rejected("an older bundle was put back")
	w.stopLast()

	// The bucket was emptied meanwhile.
	ok(t, kv.Purge(ctx, documents.Key))
	w.start(bus.NewBucket(js, documents.Bucket), 10*time.Millisecond)
	w.rejected("somebody has deleted them")
	w.settled("a", "c")

	// What was published last is no good: the next start is with what was in force.
	w.refuse = func(set *policy.Set) error {
		if set.Target("bad") != nil {
			return errors.New("can't be enforced")
		}
		return nil
	}
	publish(t, kv, map[string]string{"b.yaml": target("bad")})
	w.rejected("can't be enforced")
	w.stopLast()
	stopNATS()
	w.start(nil, 10*time.Millisecond)
	w.rejected("can't be enforced")
	if got := names(w.source.Set()); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("after a bundle that could not be put in force: %v", got)
	}
	w.stopLast()

	// Its key is not trusted any more: to go on without could be to go on without masks.
	w.options.Keys = authority.Keys{signer(t, 2).Public()}
	o := w.options
	o.Dir, o.State = w.dir, w.state
	if _, err := documents.Open(o); !errors.Is(err, authority.ErrSignature) || !strings.Contains(err.Error(), w.state) {
		t.Errorf("with other keys: %v", err)
	}
	// A node that takes no published documents has no use for them.
	w.write("node.yaml", plainNode)
	source, err := documents.Open(o)
	ok(t, err)
	if got := names(source.Set()); !slices.Equal(got, []string{"a"}) {
		t.Errorf("of a node that takes none: %v", got)
	}
}

// The key may stand in the Node document.
func TestKeysOfTheNodeDocument(t *testing.T) {
	t.Parallel()
	js, kv, _ := startNATS(t, t.TempDir())
	w := newWorld(t, publishedNode+"  authority: {keys: [\""+base64.StdEncoding.EncodeToString(signer(t, 1).Public())+"\"]}\n")
	w.options.Keys = authority.Keys{signer(t, 2).Public()}
	publish(t, kv, map[string]string{"b.yaml": target("b")})
	w.start(bus.NewBucket(js, documents.Bucket), 10*time.Millisecond)
	w.changed("ann@corp", "a", "b")
	w.stopLast()
	w.start(nil, 10*time.Millisecond)
	w.settled("a", "b")
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plainNode)
	w.write("bad.yaml", "kind: [")
	if _, err := documents.Open(documents.Options{Dir: w.dir, State: w.state}); err == nil || !strings.Contains(err.Error(), "bad.yaml") {
		t.Errorf("invalid: %v", err)
	}
	if _, err := documents.Open(documents.Options{Dir: w.dir + "-none", State: w.state}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := documents.Open(documents.Options{Dir: t.TempDir(), State: w.state}); !errors.Is(err, policy.ErrNoDocuments) {
		t.Errorf("empty folder: %v", err)
	}
}

package documents

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/pkg/policy"
)

// Options of [Open].
type Options struct {
	// Dir is the folder of documents. The set's Node document is there.
	Dir string
	// State is the folder in which the published bundle is kept: a next start has
	// it with NATS away, and an older one is known as such.
	State string
	// KV is the bucket [Bucket]. It may be out of reach, or nil and be bound later.
	KV *bus.Bucket
	// Keys are those whose bundles count besides those of the Node document's
	// spec.authority: that of a sink in the same process.
	Keys authority.Keys
	// Changed puts a set in force. With an error it has refused the set, and left
	// the one before in force. It is called by Run, one call at a time; origin says
	// what has changed, for people.
	Changed func(ctx context.Context, set *policy.Set, origin string) error
	// Rejected is told of what was refused, or is not right, and of the revision that
	// is in force all the same. It is called by Run, never beside Changed.
	Rejected func(err error, kept string)
	// Quiet is how long the folder must be left alone before it is read: who
	// writes a file may not be done with it (default 250 ms).
	Quiet time.Duration
	// Check is how often it is made sure that no change was missed (default 10 s).
	Check time.Duration
	Log   zerolog.Logger
}

// maxQuiet is how many times Quiet a folder that is never left alone is waited for.
const maxQuiet = 20

// Source is where a node's documents come from. Its methods are safe for
// concurrent use.
type Source struct {
	opts    Options
	state   state
	keys    authority.Keys
	set     atomic.Pointer[policy.Set]
	reload  chan struct{}
	kv      atomic.Pointer[bus.Bucket]
	bound   chan struct{} // kv is another one
	arrived chan arrival

	// Of Open, then of Run.
	newest  *kept  // the bundle that counts; nil: none has come
	current *kept  // the one that is in force
	tried   string // digest of what was loaded, or refused, last
	refused bool   // it was refused
	denied  []byte // the bucket's last value that did not count
}

// Open reads the documents for the first time. Where the folder's Node document
// takes published documents too, they are those that were in force before, if they
// still load with the folder's; what was published behind them is Run's to try.
func Open(o Options) (*Source, error) {
	if o.Quiet <= 0 {
		o.Quiet = 250 * time.Millisecond
	}
	if o.Check <= 0 {
		o.Check = 10 * time.Second
	}
	s := &Source{
		opts: o, state: state{dir: o.State},
		reload: make(chan struct{}, 1), bound: make(chan struct{}, 1), arrived: make(chan arrival),
	}
	if o.KV != nil {
		s.kv.Store(o.KV)
	}
	files, err := policy.ReadFolder(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("documents in %s:\n%w", o.Dir, err)
	}
	node := settingsOf(files)
	if !node.Documents.Published {
		return s, s.first(files, nil)
	}
	keys, err := authority.ParseKeys(node.Authority.Keys)
	if err != nil {
		return nil, fmt.Errorf("documents in %s: spec.authority.keys of the Node document: %w", o.Dir, err)
	}
	s.keys = slices.Concat(o.Keys, keys)
	s.state.keys = s.keys
	good, err := s.state.read(goodFile)
	if err != nil {
		return nil, err
	}
	if s.newest, err = s.state.read(newestFile); err != nil {
		return nil, err
	}
	if s.newest == nil || good != nil && good.bundle.Serial > s.newest.bundle.Serial {
		s.newest = good
	}
	if good != nil && good.bundle.Serial < s.newest.bundle.Serial && s.first(files, good) == nil {
		return s, nil
	}
	return s, s.first(files, s.newest)
}

// first loads the set that is in force from the start.
func (s *Source) first(files map[string][]byte, k *kept) error {
	all, err := join(files, k)
	if err != nil {
		return err
	}
	set, err := policy.LoadFiles(all)
	if err != nil {
		return fmt.Errorf("documents in %s:\n%w", s.opts.Dir, err)
	}
	s.set.Store(set)
	s.current, s.tried = k, digest(all, nil)
	return nil
}

// Set is the last set that was good: after Open the one to begin with, then
// the last one that Changed took.
func (s *Source) Set() *policy.Set { return s.set.Load() }

// Bind gives the bucket, or another one in its place. It may be called before Run and
// while it runs.
func (s *Source) Bind(kv *bus.Bucket) {
	s.kv.Store(kv)
	select {
	case s.bound <- struct{}{}:
	default: // it is to be looked at anyway
	}
}

// Reload has everything read and put in force again, changed or not.
func (s *Source) Reload() {
	select {
	case s.reload <- struct{}{}:
	default: // it is to be anyway
	}
}

// Run watches the folder, and the bucket where the Node document takes published
// documents, until ctx is done. It fails only when the folder can't be watched at
// all. It may be called again after it has returned.
func (s *Source) Run(ctx context.Context) error {
	folder, err := watchFolder(s.opts.Dir)
	if err != nil {
		return err
	}
	defer folder.close()
	group, ctx := errgroup.WithContext(ctx)
	if s.Set().Node.Spec.Documents.Published {
		group.Go(func() error { return s.follow(ctx) })
	}
	group.Go(func() error { return s.run(ctx, folder) })
	return group.Wait()
}

func (s *Source) run(ctx context.Context, folder *folderWatch) error {
	s.keep(s.current)
	origin := "the folder " + s.opts.Dir
	quiet := time.NewTimer(0) // what has changed since Open
	defer quiet.Stop()
	check := time.NewTicker(s.opts.Check)
	defer check.Stop()
	var since time.Time // of the first change that was not looked at yet
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-folder.changed():
			if since.IsZero() {
				since = time.Now()
			}
			if wait := min(s.opts.Quiet, time.Until(since.Add(maxQuiet*s.opts.Quiet))); wait > 0 {
				quiet.Reset(wait)
			}
		case <-quiet.C:
			since = time.Time{}
			s.load(ctx, origin, false)
		case <-check.C:
			if folder.missed() {
				since = time.Now()
				quiet.Reset(s.opts.Quiet)
			}
		case <-s.reload:
			s.load(ctx, "a request to read them again", true)
		case a := <-s.arrived:
			s.arrive(ctx, a)
		}
	}
}

// load puts the folder's and the published documents in force, unless they
// are those that were tried last.
func (s *Source) load(ctx context.Context, origin string, force bool) {
	set, inputs, err := s.read()
	if inputs == s.tried && !force {
		return
	}
	again := force || s.refused || set != nil && set.Revision != s.Set().Revision
	s.tried = inputs
	if err == nil && again {
		err = s.opts.Changed(ctx, set, origin)
		if ctx.Err() != nil && err != nil {
			s.tried = "" // stopped in the middle: nothing was refused
			return
		}
	}
	if s.refused = err != nil; s.refused {
		s.opts.Rejected(err, s.Set().Revision)
		return
	}
	s.set.Store(set)
	s.current = nil
	if set.Node.Spec.Documents.Published {
		s.current = s.newest
	}
	s.keep(s.current)
}

// keep notes which bundle is in force, for a next start.
func (s *Source) keep(k *kept) {
	if err := s.state.keepGood(k); err != nil {
		s.opts.Log.Error().Err(err).Msg("the published documents can't be kept for a next start")
	}
}

// read loads what there is, and tells what that was.
func (s *Source) read() (*policy.Set, string, error) {
	files, err := policy.ReadFolder(s.opts.Dir)
	if err != nil {
		return nil, digest(files, err), err
	}
	var k *kept
	if settingsOf(files).Documents.Published {
		k = s.newest
	}
	all, err := join(files, k)
	inputs := digest(all, err)
	if err != nil {
		return nil, inputs, err
	}
	set, err := policy.LoadFiles(all)
	return set, inputs, err
}

// join is the folder's files and the bundle's, by the names that are shown.
func join(files map[string][]byte, k *kept) (map[string][]byte, error) {
	all := make(map[string][]byte, len(files))
	for name, data := range files {
		all[name] = data
	}
	if k == nil {
		return all, nil
	}
	shown := make(map[string][]byte, len(k.bundle.Files))
	for name, text := range k.bundle.Files {
		shown[name] = []byte(text)
		all[publishedPrefix+name] = []byte(text)
	}
	return all, allowed(shown)
}

// publishedPrefix tells published files from those of the folder.
const publishedPrefix = "published:"

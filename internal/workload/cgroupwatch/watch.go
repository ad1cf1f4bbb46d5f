// Package cgroupwatch tells which cgroups appear and disappear below a folder
// of the cgroup v2 hierarchy, within about a millisecond, and how far down is
// its caller's to say: to the units of systemd, to the pods of Kubernetes. It
// polls nothing but, as a safety net and seldom, everything.
//
// It knows nothing of what the cgroups are for, and doesn't look at processes.
package cgroupwatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Errors that [Watcher.Run] wraps.
var (
	ErrRootGone = errors.New("the watched cgroup was removed")
	ErrTooMany  = errors.New("there are more cgroups than may be watched")
)

// Cgroup is one cgroup. A folder that was removed and made again is another
// one, with another id.
type Cgroup struct {
	Path  string // the folder
	Below string // the path below the root that is watched, "system.slice/planner.service"
	ID    uint64 // the folder's inode, which is what the kernel's programs see
}

// Options configure a [Watcher]. Rescan, Limit and Log may be left out.
type Options struct {
	// Root is a folder of a cgroup2 mount. It has to be the file system
	// instance in which the cgroups are made: one that is mounted anew in
	// another cgroup namespace gets no notice, and waits for the rescan.
	Root string
	// Descend says whether the cgroups inside of this one are wanted too. It
	// gets Cgroup.Below, and is asked once for each cgroup. The root is always
	// descended into.
	Descend func(below string) bool
	// Added and Removed are called by Run, one at a time, and the watcher
	// waits for them. A cgroup is added after the one around it and removed
	// before it. One that is gone before it was looked at is never told of.
	Added, Removed func(Cgroup)
	// Rescan is how often everything is looked at, in case a notice was lost;
	// 0 means 30 seconds.
	Rescan time.Duration
	// Limit is the most cgroups that are kept; 0 means 65536.
	Limit int
	Log   zerolog.Logger
}

// Watcher watches one folder. It holds nothing until it runs.
type Watcher struct {
	opts  Options
	ready chan struct{}

	// What follows is Run's.
	notices *inotify
	root    *node
	watched map[int32]string // the folder of each watch, as Cgroup.Below
	count   int
}

// node is a known cgroup.
type node struct {
	id       uint64
	watch    int32            // meaningless unless descended into
	children map[string]*node // nil unless descended into
}

// New makes a watcher. Nothing is told before [Watcher.Run].
func New(opts Options) (*Watcher, error) {
	if opts.Root == "" || opts.Descend == nil || opts.Added == nil || opts.Removed == nil {
		return nil, errors.New("watching cgroups: a root, and what to descend into and to call, are needed")
	}
	if opts.Rescan == 0 {
		opts.Rescan = 30 * time.Second
	}
	if opts.Limit == 0 {
		opts.Limit = 1 << 16
	}
	opts.Root = filepath.Clean(opts.Root)
	return &Watcher{opts: opts, ready: make(chan struct{}), watched: map[int32]string{}}, nil
}

// Ready is closed when every cgroup that was there before has been told.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Run tells of cgroups until ctx is done, which is no error. It is called
// once. Cgroups that are there at its end are not told as removed.
func (w *Watcher) Run(ctx context.Context) error {
	if err := w.run(ctx); err != nil {
		return fmt.Errorf("watching cgroups below %s: %w", w.opts.Root, err)
	}
	return nil
}

func (w *Watcher) run(ctx context.Context) (err error) {
	if w.notices, err = openInotify(); err != nil {
		return err
	}
	defer w.notices.Close()
	id, err := cgroupID(w.opts.Root)
	if err != nil {
		return err
	}
	w.root = &node{id: id}
	if err := w.descend(w.root, ""); err != nil {
		return err
	}
	close(w.ready)

	rescan := time.NewTicker(w.opts.Rescan)
	defer rescan.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case batch, ok := <-w.notices.batches:
			if !ok {
				return w.notices.Err()
			}
			err = w.take(batch)
		case <-rescan.C:
			err = w.rescan()
		}
		if err != nil {
			return err
		}
	}
}

// take looks at what the notices are about. They say where to look, never
// what is there: that may have changed since.
func (w *Watcher) take(batch []notice) error {
	for _, n := range batch {
		if n.overflow {
			w.opts.Log.Warn().Str("root", w.opts.Root).Msg("notices of cgroups were lost; looking at all of them")
			return w.rescan() // sees what the other notices are about as well
		}
		below, ok := w.watched[n.watch]
		if !ok || n.name == "" {
			continue // the watch was given up since, or the notice is of the folder itself
		}
		// The root's own end shows in its watch alone.
		if parent := w.find(below); parent != nil {
			if err := w.look(parent, below, n.name, false); err != nil {
				return err
			}
		}
	}
	return w.checkRoot()
}

// rescan looks at everything.
func (w *Watcher) rescan() error {
	if err := w.checkRoot(); err != nil {
		return err
	}
	return w.scan(w.root, "", true)
}

func (w *Watcher) checkRoot() error {
	id, err := cgroupID(w.opts.Root)
	if gone(err) || (err == nil && id != w.root.id) {
		return ErrRootGone
	}
	return err
}

// find returns the known cgroup at the path, or nil.
func (w *Watcher) find(below string) *node {
	n := w.root
	if below == "" {
		return n
	}
	for name := range strings.SplitSeq(below, "/") {
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

// scan looks at all that is in the folder and all that was; deep goes on into
// what is known already.
func (w *Watcher) scan(n *node, below string, deep bool) error {
	entries, err := os.ReadDir(filepath.Join(w.opts.Root, below))
	if err != nil && !gone(err) {
		return err
	}
	there := map[string]bool{}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		there[entry.Name()] = true
		if err := w.look(n, below, entry.Name(), deep); err != nil {
			return err
		}
	}
	for name := range n.children {
		if !there[name] {
			if err := w.look(n, below, name, deep); err != nil {
				return err
			}
		}
	}
	return nil
}

// look compares one folder with what is known of it, and tells the difference.
func (w *Watcher) look(parent *node, parentBelow, name string, deep bool) error {
	below := filepath.Join(parentBelow, name)
	id, err := cgroupID(filepath.Join(w.opts.Root, below))
	if err != nil && !gone(err) {
		return err
	}
	known := parent.children[name]
	switch {
	case known != nil && err == nil && known.id == id:
		if deep && known.children != nil {
			return w.scan(known, below, true)
		}
		return nil
	case known != nil:
		w.forget(known, below)
		delete(parent.children, name)
	}
	if err != nil {
		return nil
	}
	return w.learn(parent, name, below, id)
}

func (w *Watcher) learn(parent *node, name, below string, id uint64) error {
	if w.count >= w.opts.Limit {
		return fmt.Errorf("%w (%d)", ErrTooMany, w.opts.Limit)
	}
	n := &node{id: id}
	parent.children[name] = n
	w.count++
	w.opts.Added(w.cgroup(n, below))
	if !w.opts.Descend(below) {
		return nil
	}
	return w.descend(n, below)
}

// descend watches the folder and then looks into it. In this order, because
// what is made before the watch is there gives no notice.
func (w *Watcher) descend(n *node, below string) error {
	watch, err := w.notices.Add(filepath.Join(w.opts.Root, below))
	if gone(err) {
		return nil // a notice of that is on its way
	}
	if err != nil {
		return err
	}
	n.watch, n.children = watch, map[string]*node{}
	w.watched[watch] = below
	return w.scan(n, below, false)
}

// forget tells that the cgroup and all inside of it are gone.
func (w *Watcher) forget(n *node, below string) {
	for name, child := range n.children {
		w.forget(child, filepath.Join(below, name))
	}
	if n.children != nil {
		w.notices.Remove(n.watch)
		delete(w.watched, n.watch)
	}
	w.count--
	w.opts.Removed(w.cgroup(n, below))
}

func (w *Watcher) cgroup(n *node, below string) Cgroup {
	return Cgroup{Path: filepath.Join(w.opts.Root, below), Below: below, ID: n.id}
}

// cgroupID is the id that the kernel's programs see: the folder's inode.
func cgroupID(path string) (uint64, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	if !info.IsDir() {
		return 0, fmt.Errorf("%s is no folder: %w", path, fs.ErrNotExist)
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// gone tells that the cgroup was removed, perhaps while it was read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

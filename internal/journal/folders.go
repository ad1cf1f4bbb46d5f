package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/journal/wal"
	"github.com/nats-io/nats.go/jetstream"
)

// A daemon that has handed over to another one and still has sessions keeps its
// journal. So a node may have several: DIR, DIR-2, DIR-3 and so on. Each belongs to the
// process that holds its lock; which one that is doesn't matter.

// maxFolders bounds the journals of a node: one for each daemon that runs at once.
const maxFolders = 64

// OpenFree is [Open] on the first of a node's journals, beginning with [Options.Dir],
// that no other process holds.
func OpenFree(o Options) (*Journal, error) {
	if err := removeDone(o.Dir); err != nil {
		return nil, err
	}
	base := filepath.Clean(o.Dir)
	for n := 1; n <= maxFolders; n++ {
		o.Dir = numbered(base, n)
		j, err := Open(o)
		if !errors.Is(err, wal.ErrLocked) {
			return j, err
		}
	}
	return nil, fmt.Errorf("journal: %d other daemons hold %s and those beside it", maxFolders, base)
}

func numbered(base string, n int) string {
	if n == 1 {
		return base
	}
	return base + "-" + strconv.Itoa(n)
}

// Dir is the journal's folder.
func (j *Journal) Dir() string { return j.opts.Dir }

// adoptEvery is how often other processes' journals are looked at.
const adoptEvery = time.Second

// Adopt publishes, until ctx is done, the journals that other processes have left, each
// once its process is gone, in its order, and removes each when NATS has
// acknowledged all of it. base is what OpenFree was given. It fails only when
// it can't go on at all: a journal that can't be read is told of, and left where it is.
func (j *Journal) Adopt(ctx context.Context, base string, js jetstream.JetStream) error {
	look := time.NewTicker(adoptEvery)
	defer look.Stop()
	broken := map[string]bool{}
	for {
		left, err := j.left(filepath.Clean(base))
		if err != nil {
			return err
		}
		for _, dir := range left {
			if broken[dir] {
				continue
			}
			err := j.adopt(ctx, dir, js)
			if errors.Is(err, wal.ErrLocked) {
				continue
			}
			if err != nil {
				broken[dir] = true
				j.opts.Log.Error().Err(err).Str("folder", dir).Msg("the journal that another daemon left can't be published; it stays where it is")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// left are the other journals of the node, the lowest number first.
func (j *Journal) left(base string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(base))
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		n, ok := numberOf(filepath.Base(base), e.Name())
		if ok && e.IsDir() && numbered(base, n) != filepath.Clean(j.opts.Dir) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	var dirs []string
	for _, n := range numbers {
		dirs = append(dirs, numbered(base, n))
	}
	return dirs, nil
}

func numberOf(base, name string) (int, bool) {
	if name == base {
		return 1, true
	}
	digits, ok := strings.CutPrefix(name, base+"-")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n > 1 && numbered(base, n) == name
}

// adopt publishes one journal and removes it. One that ctx interrupts goes on at the next
// start.
func (j *Journal) adopt(ctx context.Context, dir string, js jetstream.JetStream) error {
	o := j.opts
	o.Dir = dir
	other, err := Open(o)
	if err != nil {
		return err
	}
	j.opts.Log.Info().Str("folder", dir).Msg("publishing the journal that another daemon left")
	empty, err := other.runUntilEmpty(ctx, js)
	if err == nil && empty {
		err = os.Rename(dir, dir+doneSuffix) // still locked: nobody takes it up meanwhile
	}
	err = errors.Join(err, other.Close())
	if err != nil || !empty {
		return err
	}
	j.opts.Log.Info().Str("folder", dir).Msg("the journal that another daemon left is published")
	return os.RemoveAll(dir + doneSuffix)
}

// doneSuffix marks a journal of which nothing is needed any more.
const doneSuffix = ".done"

// removeDone finishes what adopt had begun when its process died.
func removeDone(base string) error {
	done, err := filepath.Glob(filepath.Clean(base) + "*" + doneSuffix)
	for _, dir := range done {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// runUntilEmpty publishes until everything has been acknowledged for as long as the server
// takes to sync it. It tells whether that came about before ctx was done.
func (j *Journal) runUntilEmpty(ctx context.Context, js jetstream.JetStream) (empty bool, err error) {
	running, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- j.Run(running, js) }()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	since := time.Now()
	for !empty {
		select {
		case err := <-ran:
			stop()
			return false, err // ctx is done, or it can't go on
		case <-look.C:
		}
		if s := j.Stats(); s.Unread > 0 || s.Lag > 0 || s.InFlight > 0 {
			since = time.Now()
		}
		empty = time.Since(since) > max(0, j.opts.KeepAcked)
	}
	stop()
	return empty, <-ran
}

package intercept

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// repinEvery is how often pins are looked at.
const repinEvery = 5 * time.Second

// ErrUnpinned is wrapped by what [Interceptor.KeepPinned] tells: with links or maps that
// are pinned nowhere, enforcement ends with the process that holds them.
var ErrUnpinned = errors.New("links or maps of the kernel programs are not pinned any more")

// KeepPinned looks every few seconds, until ctx is done, whether links and maps are still
// pinned: a bpffs can be unmounted, and files in it can be removed. What is not is
// pinned again. tell is called when that was needed, with failed saying why it could
// not be done, and is called again when it changes.
//
// A daemon that is killed before it has noticed leaves nothing in force.
func (i *Interceptor) KeepPinned(ctx context.Context, tell func(lost, failed error)) error {
	look := time.NewTicker(repinEvery)
	defer look.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		lost := i.unpinned()
		if lost == nil {
			told = ""
			continue
		}
		failed := i.repin()
		if text := fmt.Sprint(lost, failed); text != told {
			tell(lost, failed)
			told = text
		}
	}
}

// pinnable is a link or a map.
type pinnable interface {
	Pin(path string) error
	Unpin() error
}

// pinned are the links and maps that this process holds, by the file that each is pinned at.
func (i *Interceptor) pinned() map[string]pinnable {
	all := map[string]pinnable{}
	var names []string
	for _, h := range hooks(&i.objects) {
		names = append(names, h.name)
	}
	missing := map[string]bool{}
	for _, m := range i.missing {
		missing[m.Program] = true
	}
	for _, o := range optionals() {
		if !missing[o.name] {
			names = append(names, o.name)
		}
	}
	for n, l := range i.links {
		all[filepath.Join(i.pins.links(), names[n])] = l
	}
	fields := reflect.ValueOf(i.objects.InterceptMaps)
	for n := range fields.NumField() {
		if m, ok := fields.Field(n).Interface().(*ebpf.Map); ok && m != nil {
			all[filepath.Join(i.pins.maps(), fields.Type().Field(n).Tag.Get("ebpf"))] = m
		}
	}
	return all
}

// unpinned says what isn't pinned, or nil.
func (i *Interceptor) unpinned() error {
	if err := i.pins.displaced(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnpinned, err)
	}
	for path := range i.pinned() {
		if _, err := os.Lstat(path); err != nil {
			return fmt.Errorf("%w: %w", ErrUnpinned, err)
		}
	}
	return nil
}

// displaced says why the folder is not the one that was locked.
func (p *pinDir) displaced() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lock == nil {
		return nil // another process's to keep
	}
	var held, found unix.Stat_t
	if err := unix.Fstat(int(p.lock.Fd()), &held); err != nil {
		return err
	}
	if err := unix.Stat(p.path, &found); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	if held.Dev != found.Dev || held.Ino != found.Ino {
		return fmt.Errorf("%s is another folder now: the bpffs was unmounted, or another one mounted over it", p.path)
	}
	return nil
}

// repin pins what isn't, in a folder that it makes, and a bpffs that it mounts where that
// is at its usual place.
func (i *Interceptor) repin() error {
	var errs []error
	if i.pins.displaced() != nil {
		fresh, err := openPinVersion(filepath.Dir(i.pins.path), filepath.Base(i.pins.path))
		if err != nil {
			return err
		}
		// An unmounted bpffs lives as long as its folder is held open, and
		// with it the guards of interfaces, which nothing else holds.
		errs = append(errs, moveGuards(i.pins, fresh), i.pins.replace(fresh))
	}
	for path, p := range i.pinned() {
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		// The place that it believes itself pinned at is gone.
		if err := errors.Join(p.Unpin(), p.Pin(path)); err != nil {
			errs = append(errs, fmt.Errorf("pin %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// replace holds the folder that another one holds, instead of its own.
func (p *pinDir) replace(other *pinDir) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.lock
	p.lock, other.lock = other.lock, nil
	return old.Close()
}

// moveGuards pins the guards of a folder that can't be reached by its path any more in
// another one.
func moveGuards(from, to *pinDir) error {
	from.mu.Lock()
	defer from.mu.Unlock()
	held := fmt.Sprintf("/proc/self/fd/%d/%s", from.lock.Fd(), filepath.Base(from.interfaces()))
	guards, err := os.ReadDir(held)
	if err != nil {
		return fmt.Errorf("guards of interfaces: %w", err)
	}
	var errs []error
	for _, g := range guards {
		l, err := link.LoadPinnedLink(filepath.Join(held, g.Name()), nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("guard of interface %s: %w", g.Name(), err))
			continue
		}
		// Unpinned first, for to pin what is pinned is to rename it.
		err = errors.Join(l.Unpin(), l.Pin(filepath.Join(to.interfaces(), g.Name())), l.Close())
		if err != nil {
			errs = append(errs, fmt.Errorf("guard of interface %s: %w", g.Name(), err))
		}
	}
	return errors.Join(errs...)
}

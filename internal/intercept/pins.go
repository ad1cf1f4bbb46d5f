package intercept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// abi is the version of the maps' layout. It is a part of the pins' path, so that a
// daemon never reads maps of another layout. What is pinned under another version
// goes on refusing until this one is in force, and is removed then: planners and
// captures are told anew.
const abi = "v2"

// MapsVersion is what two processes must have in common to use each other's sockets, whose
// marks and origins are in the maps.
const MapsVersion = abi

const bpffs = "/sys/fs/bpf"

// ErrPins is wrapped by errors about the folder of the pinned links and maps.
var ErrPins = errors.New("unsuitable folder for pinned links and maps")

// ErrRunning is returned when another process intercepts with the same pins.
var ErrRunning = errors.New("another daemon holds these pinned links and maps; stop it first, or take over from it")

// pinDir is a folder on a bpffs, locked for one process.
type pinDir struct {
	path string // with the ABI version

	mu   sync.Mutex
	lock *os.File // the folder itself
}

func (p *pinDir) maps() string  { return filepath.Join(p.path, "maps") }
func (p *pinDir) links() string { return filepath.Join(p.path, "links") }

// interfaces holds the links of guards.
func (p *pinDir) interfaces() string { return filepath.Join(p.path, "interfaces") }

// openPinDir makes what is missing, a mounted bpffs at its usual place included.
func openPinDir(dir string) (*pinDir, error) {
	return openPinVersion(dir, abi)
}

func openPinVersion(dir, version string) (*pinDir, error) {
	dir = filepath.Clean(dir)
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%w: %s is not an absolute path", ErrPins, dir)
	}
	if err := mountBPFFS(dir); err != nil {
		return nil, err
	}
	p := &pinDir{path: filepath.Join(dir, version)}
	for _, d := range []string{dir, p.path, p.maps(), p.links(), p.interfaces()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("%w: make %s: %w", ErrPins, d, err)
		}
		if err := os.Chmod(d, 0o700); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPins, err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.path, &st); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrPins, p.path, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return nil, fmt.Errorf("%w: %s is not on a bpffs; mount one with \"mount -t bpf bpf %s\"", ErrPins, dir, bpffs)
	}
	return p, p.acquire()
}

func (p *pinDir) acquire() error {
	f, err := os.Open(p.path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPins, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%w (%s)", ErrRunning, p.path)
		}
		return fmt.Errorf("%w: lock %s: %w", ErrPins, p.path, err)
	}
	p.mu.Lock()
	p.lock = f
	p.mu.Unlock()
	return nil
}

// acquireAgain is acquire for a folder that may have been let go of.
func (p *pinDir) acquireAgain() error {
	p.mu.Lock()
	held := p.lock != nil
	p.mu.Unlock()
	if held {
		return nil
	}
	return p.acquire()
}

// close lets go of the folder. Any number of calls is allowed.
func (p *pinDir) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lock == nil {
		return nil
	}
	err := p.lock.Close()
	p.lock = nil
	return err
}

// mountBPFFS mounts a bpffs at /sys/fs/bpf, as systemd does, when the pins are to
// be there and nothing is mounted.
func mountBPFFS(dir string) error {
	if dir != bpffs && !strings.HasPrefix(dir, bpffs+"/") {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err != nil {
		return fmt.Errorf("%w: the kernel has no %s: %w", ErrPins, bpffs, err)
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RELATIME)
	if err := unix.Mount("bpf", bpffs, "bpf", flags, "mode=700"); err != nil {
		return fmt.Errorf("%w: mount a bpffs at %s: %w", ErrPins, bpffs, err)
	}
	return nil
}

// versions are those that something is pinned under.
func versions(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPins, err)
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "v") {
			found = append(found, e.Name())
		}
	}
	return found, nil
}

// detach ends what is pinned under one version.
func (p *pinDir) detach() error {
	names, err := os.ReadDir(p.links())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPins, err)
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, detach(filepath.Join(p.links(), name.Name())))
	}
	if err := errors.Join(append(errs, p.removeGuards())...); err != nil {
		return err
	}
	return p.remove()
}

// remove takes the folder away, and the maps in it. Links must be gone already.
func (p *pinDir) remove() error {
	var errs []error
	maps, err := os.ReadDir(p.maps())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, m := range maps {
		errs = append(errs, os.Remove(filepath.Join(p.maps(), m.Name())))
	}
	for _, d := range []string{p.maps(), p.links(), p.interfaces(), p.path} {
		if err := os.Remove(d); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

package intercept

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/bpf"
)

// What this file exports looks and changes nothing: it makes no cgroup, no folder and
// no mount, takes no lock, and may be called beside a running daemon.

// TryLoad loads the programs onto maps that nobody else has, and lets go of both.
// Nothing is attached or pinned. A refusal of the verifier is an
// [*ebpf.VerifierError]. The names are those of the programs that load.
func TryLoad() (names []string, err error) {
	spec, err := bpf.LoadIntercept()
	if err != nil {
		return nil, fmt.Errorf("kernel programs: %w", err)
	}
	loaded, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, err
	}
	defer loaded.Close()
	return slices.Sorted(maps.Keys(loaded.Programs)), nil
}

// OptionalProgram is one that [Open] can do without, and what is not covered then.
type OptionalProgram struct {
	Name string
	Lost string
}

// OptionalPrograms returns all of them.
func OptionalPrograms() []OptionalProgram {
	var all []OptionalProgram
	for _, o := range optionals() {
		all = append(all, OptionalProgram{o.name, o.lost})
	}
	return all
}

// TryLoadOptional is [TryLoad] for one of [OptionalPrograms].
func TryLoadOptional(name string) error {
	spec, err := bpf.LoadOptional()
	if err != nil {
		return fmt.Errorf("kernel programs: %w", err)
	}
	maps.DeleteFunc(spec.Programs, func(other string, _ *ebpf.ProgramSpec) bool { return other != name })
	loaded, err := ebpf.NewCollection(spec)
	if err != nil {
		return err
	}
	loaded.Close()
	return nil
}

// CgroupRoot returns where the root of cgroup v2 is mounted. The error of a machine
// without one wraps [ErrCgroup].
func CgroupRoot() (string, error) {
	root, err := findCgroupRoot()
	return string(root), err
}

// MaxDepth is how deep below the root of cgroup v2 a planner's cgroup may be.
const MaxDepth = maxDepth

// AncestorState is what there is of an ancestor cgroup.
type AncestorState struct {
	Root string // the mount of cgroup v2
	Path string
	// Nearest is the cgroup nearest to Path that exists: Path itself, or where
	// Open would begin to make what is missing.
	Nearest string
	ID      uint64 // of Path, 0 when it doesn't exist
	Depth   int    // of Path below Root
}

// Exists tells whether the ancestor is there.
func (a AncestorState) Exists() bool { return a.ID != 0 }

// InspectAncestor looks for the ancestor that [Options] would name.
func InspectAncestor(name string) (AncestorState, error) {
	root, err := findCgroupRoot()
	if err != nil {
		return AncestorState{}, err
	}
	a := AncestorState{Root: string(root), Path: root.absolute(name)}
	if a.Path != a.Root && !below(a.Root, a.Path) {
		return a, fmt.Errorf("%w: %s is not below %s", ErrCgroup, a.Path, a.Root)
	}
	if a.Path != a.Root {
		a.Depth = strings.Count(strings.TrimPrefix(a.Path, a.Root), "/")
	}
	for a.Nearest = a.Path; ; a.Nearest = filepath.Dir(a.Nearest) {
		found, err := stat(a.Nearest)
		if err == nil {
			if a.Nearest == a.Path {
				a.ID = found.id
			}
			return a, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || a.Nearest == a.Root {
			return a, err
		}
	}
}

// Sharing is what the owner of an attached program lets others do at its hook.
type Sharing string

// The ways of sharing a hook (BPF_F_ALLOW_MULTI, BPF_F_ALLOW_OVERRIDE).
const (
	Shared      Sharing = "shared"      // all programs run
	Overridable Sharing = "overridable" // a program of a cgroup below runs in its place
	Exclusive   Sharing = "exclusive"   // nobody may attach, there or below
)

// OtherProgram is a program at one of our hooks that is not ours.
type OtherProgram struct {
	Hook    string // as our pinned link is named
	Cgroup  string
	ID      ebpf.ProgramID
	Name    string // empty when this process may not see it
	Sharing Sharing
	// Refuses tells that ours can't be attached beside it.
	Refuses bool
}

// OtherPrograms returns what others have attached to our hooks, at the ancestor and
// above it. Ours are known by the links that are pinned in pinDir. CAP_NET_ADMIN
// is needed.
func OtherPrograms(a AncestorState, pinDir string) ([]OtherProgram, error) {
	ours := map[ebpf.ProgramID]bool{}
	pins, err := InspectPins(pinDir, a)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, l := range pins.Links {
		ours[l.Program] = true
	}
	var others []OtherProgram
	for path := a.Nearest; ; path = filepath.Dir(path) {
		found, err := programsAt(path)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			if ours[p.ID] {
				continue
			}
			// hierarchy_allows_attach() of the kernel: a cgroup takes programs of one
			// way of sharing only, and ours, attached by links, are shared.
			p.Refuses = p.Sharing == Exclusive || p.Sharing == Overridable && path == a.Path
			others = append(others, p)
		}
		if path == a.Root {
			return others, nil
		}
	}
}

func programsAt(path string) ([]OtherProgram, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCgroup, err)
	}
	defer dir.Close()
	var found []OtherProgram
	for _, h := range hooks(&bpf.InterceptObjects{}) {
		result, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: h.attach})
		if err != nil {
			return nil, fmt.Errorf("%s at %s: %w", h.name, path, err)
		}
		if len(result.Programs) == 0 {
			continue
		}
		sharing, err := sharingOf(dir, h.attach)
		if err != nil {
			return nil, fmt.Errorf("%s at %s: %w", h.name, path, err)
		}
		for _, p := range result.Programs {
			found = append(found, OtherProgram{Hook: h.name, Cgroup: path, ID: p.ID, Name: programName(p.ID), Sharing: sharing})
		}
	}
	return found, nil
}

// programName is empty where it can't be had: a program may be gone by now, and reading
// it takes CAP_SYS_ADMIN.
func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// sharingOf asks for the flags of a hook, which [link.QueryPrograms] doesn't tell.
func sharingOf(dir *os.File, attach ebpf.AttachType) (Sharing, error) {
	// The query of union bpf_attr, <linux/bpf.h>, up to prog_cnt, and room.
	var attr struct {
		target, attachType, queryFlags, attachFlags uint32
		ids                                         uint64
		count                                       uint32
		_                                           [9]uint32
	}
	attr.target, attr.attachType = uint32(dir.Fd()), uint32(attach)
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return "", errno
	}
	switch {
	case attr.attachFlags&unix.BPF_F_ALLOW_MULTI != 0:
		return Shared, nil
	case attr.attachFlags&unix.BPF_F_ALLOW_OVERRIDE != 0:
		return Overridable, nil
	}
	return Exclusive, nil
}

// PinnedLink is one link of [PinState].
type PinnedLink struct {
	Name    string
	Cgroup  uint64 // what it is attached to; 0 when that was removed
	Program ebpf.ProgramID
}

// PinState is what is pinned.
type PinState struct {
	Dir   string // of this build's layout
	Mode  fs.FileMode
	Links []PinnedLink
	// Missing are hooks without a link.
	Missing []string
	// Astray are links that are attached neither to the ancestor nor to the root.
	Astray []string
	// Foreign are maps of another layout, and pins that this build doesn't know.
	Foreign []string
	// Port is the listener's that the programs divert to; 0: none was written, and
	// they refuse everything.
	Port uint16
}

// InspectPins looks at what is pinned in a folder; empty means [DefaultPinDir]. The
// error wraps [fs.ErrNotExist] when nothing is. CAP_BPF is needed.
func InspectPins(pinDir string, a AncestorState) (PinState, error) {
	if pinDir == "" {
		pinDir = DefaultPinDir
	}
	p := pinDirAt(pinDir)
	state := PinState{Dir: p.path}
	info, err := os.Stat(pinDir)
	if err != nil {
		return state, fmt.Errorf("%w: %w", ErrPins, err)
	}
	state.Mode = info.Mode().Perm()
	if err := state.readFolders(pinDir); err != nil {
		return state, err
	}
	if _, err := os.Stat(p.path); err != nil {
		return state, fmt.Errorf("%w: %w", ErrPins, err)
	}
	if err := state.readLinks(p, a); err != nil {
		return state, err
	}
	return state, state.readMaps(p)
}

func pinDirAt(dir string) *pinDir { return &pinDir{path: filepath.Join(filepath.Clean(dir), abi)} }

func (s *PinState) readFolders(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPins, err)
	}
	for _, e := range entries {
		if e.Name() != abi {
			s.Foreign = append(s.Foreign, filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

func (s *PinState) readLinks(p *pinDir, a AncestorState) error {
	known := map[string]bool{}
	for _, h := range hooks(&bpf.InterceptObjects{}) {
		known[h.name] = true
		found, err := readLink(filepath.Join(p.links(), h.name))
		if errors.Is(err, fs.ErrNotExist) {
			s.Missing = append(s.Missing, h.name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: link %s: %w", ErrPins, h.name, err)
		}
		found.Name = h.name
		s.Links = append(s.Links, found)
		// One at the root holds for all that is below.
		if found.Cgroup != rootID && (found.Cgroup == 0 || found.Cgroup != a.ID) {
			s.Astray = append(s.Astray, h.name)
		}
	}
	for _, o := range optionals() {
		known[o.name], known[o.name+"_next"] = true, true // the second while it is replaced
	}
	return s.unknown(p.links(), known)
}

func readLink(path string) (PinnedLink, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return PinnedLink{}, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return PinnedLink{}, err
	}
	found := PinnedLink{Program: info.Program}
	if cg := info.Cgroup(); cg != nil {
		found.Cgroup = cg.CgroupId
	}
	return found, nil
}

func (s *PinState) readMaps(p *pinDir) error {
	spec, err := bpf.LoadIntercept()
	if err != nil {
		return fmt.Errorf("kernel programs: %w", err)
	}
	known := map[string]bool{}
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue // of a section; those are not pinned
		}
		known[name] = true
		path := filepath.Join(p.maps(), name)
		pinned, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
		if errors.Is(err, fs.ErrNotExist) {
			continue // made by the next start; without links nothing uses it
		}
		if err != nil {
			return fmt.Errorf("%w: map %s: %w", ErrPins, name, err)
		}
		err = m.Compatible(pinned)
		if err == nil && name == "config" {
			var c bpf.InterceptConfig
			err = pinned.Lookup(uint32(0), &c)
			s.Port = c.Port
		}
		pinned.Close()
		if errors.Is(err, ebpf.ErrMapIncompatible) {
			s.Foreign = append(s.Foreign, path)
		} else if err != nil {
			return fmt.Errorf("%w: map %s: %w", ErrPins, name, err)
		}
	}
	return s.unknown(p.maps(), known)
}

// unknown notes what is in a folder beside what this build puts there.
func (s *PinState) unknown(dir string, known map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrPins, err)
	}
	for _, e := range entries {
		if !known[e.Name()] {
			s.Foreign = append(s.Foreign, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(s.Foreign)
	return nil
}

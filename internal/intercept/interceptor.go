package intercept

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/bpf"
)

// DefaultPinDir is where links and maps are pinned when [Options] don't say.
const DefaultPinDir = "/sys/fs/bpf/chaperone"

// Options say how to intercept. Ancestor, Port and Probe are required.
type Options struct {
	// Ancestor is the cgroup that the programs are attached to, as a path below
	// the root of cgroup v2 ("chaperone", "kubepods.slice") or an absolute
	// one. It is made if it doesn't exist. All cgroups below it that are not
	// enrolled are kept from what is captured.
	Ancestor string
	// PinDir is a folder on a bpffs; empty means [DefaultPinDir]. Two daemons
	// can't share one.
	PinDir string
	// Port is the TCP port of the listeners, the same in all namespaces. Below
	// the ancestor only the daemon can bind it. Choose one that is no target's.
	Port uint16
	// Probe is a command that calls [Probe] with its last argument, which is
	// appended. Open runs it inside a planner's cgroup to see with its own eyes
	// that connections are diverted.
	Probe []string
	// NodeBelt attaches the programs at the root of the hierarchy instead of the
	// ancestor, so that nothing on the node but planners and the daemon
	// reaches captured ports of addresses that are known to be targets'.
	// The ancestor stays where planners are.
	NodeBelt bool
	// BeltCgroup is where NodeBelt attaches instead of the root: a cgroup above the
	// ancestor, for a part of a machine that is as good as a node. Empty is the root.
	BeltCgroup string
	// Beside is the cgroup of a daemon that has handed over to this one and still
	// has sessions ([Interceptor.Own]); 0 is none. It stays exempt until it is withdrawn.
	Beside uint64
	// Log gets what is worth knowing and no error.
	Log zerolog.Logger
}

// Interceptor is what is attached. Its methods may be called from any goroutine.
type Interceptor struct {
	log      zerolog.Logger
	port     uint16
	belt     bool
	root     cgroupRoot
	ancestor cgroup
	attached cgroup // the ancestor, or the root
	own      cgroup // this process's
	pins     *pinDir
	objects  bpf.InterceptObjects
	links    []link.Link
	missing  []Missing
	types    *btf.Spec // of the kernel, as long as programs are loaded

	capturing sync.Mutex // serialises changes of captures, addresses, egress and configuration
	protected addressSet // what Protect was told, or an earlier process
	taking    sync.Mutex // serialises reading and deleting an origin
}

// ErrOptions is wrapped by the errors of [Open] that are about its options.
var ErrOptions = errors.New("invalid interception options")

// Open attaches the programs, or takes over those that an earlier process has
// left, and proves by a connection of its own that they work. It moves this
// process, with all its threads, into the cgroup "daemon" below the ancestor,
// unless it is in one below it already, and exempts that cgroup. Sockets that the process
// has made before keep their cgroup, so Open should come before any other.
//
// The planners and captures of an earlier process stay in force until they are
// withdrawn or replaced. When Open fails what was pinned goes on refusing.
func Open(ctx context.Context, o Options) (*Interceptor, error) {
	if o.Ancestor == "" || o.Port == 0 || len(o.Probe) == 0 {
		return nil, fmt.Errorf("%w: Ancestor, Port and Probe are required", ErrOptions)
	}
	if o.PinDir == "" {
		o.PinDir = DefaultPinDir
	}
	i := &Interceptor{log: o.Log, port: o.Port, belt: o.NodeBelt, protected: addressSet{}}
	if err := i.open(ctx, o); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

func (i *Interceptor) open(ctx context.Context, o Options) error {
	var err error
	if i.root, err = findCgroupRoot(); err != nil {
		return err
	}
	if i.ancestor, err = i.root.make(o.Ancestor); err != nil {
		return err
	}
	i.attached = i.ancestor
	if o.NodeBelt {
		if i.attached, err = stat(i.root.absolute(o.BeltCgroup)); err != nil {
			return err
		}
		if i.attached.path != string(i.root) && !below(i.attached.path, i.ancestor.path) {
			return fmt.Errorf("%w: %s is not above %s", ErrCgroup, i.attached.path, i.ancestor.path)
		}
	}
	if i.own, err = i.root.enter(i.ancestor); err != nil {
		return err
	}
	if i.pins, err = openPinDir(o.PinDir); err != nil {
		return err
	}
	if err := i.load(); err != nil {
		return err
	}
	if err := i.force(o.Beside); err != nil {
		return err
	}
	if err := errors.Join(i.pins.forgetLostGuards(), i.detachOthers()); err != nil {
		return err
	}
	if err := i.prove(ctx, o.Probe); err != nil {
		return fmt.Errorf("the attached programs don't do their work: %w", err)
	}
	i.log.Info().Str("ancestor", i.ancestor.path).Bool("nodeBelt", o.NodeBelt).Str("pins", i.pins.path).Uint16("port", i.port).
		Msg("interception is in force")
	return nil
}

// force puts the loaded programs in force. beside is a daemon's cgroup that stays exempt.
func (i *Interceptor) force(beside uint64) error {
	if err := i.takeOverMembers(beside); err != nil {
		return err
	}
	if err := i.takeOverAddresses(); err != nil {
		return err
	}
	// The maps are true before the first program runs on them.
	if err := i.configure(func(c *bpf.InterceptConfig) {
		c.Port, c.Area = i.port, i.ancestor.id
		c.Flags &^= nodeBelt
		if i.belt {
			c.Flags |= nodeBelt
		}
	}); err != nil {
		return err
	}
	return errors.Join(i.attach(), i.attachOptional())
}

// load loads the programs onto the pinned maps, or onto new ones that it pins.
func (i *Interceptor) load() error {
	spec, err := bpf.LoadIntercept()
	if err != nil {
		return fmt.Errorf("kernel programs: %w", err)
	}
	for name, m := range spec.Maps {
		if name != ".bss" {
			m.Pinning = ebpf.PinByName
		}
	}
	// Read once for all: it takes longer than to load the programs.
	if i.types, err = btf.LoadKernelSpec(); err != nil {
		return fmt.Errorf("load kernel programs: the kernel tells no types of its own (BTF): %w", err)
	}
	err = spec.LoadAndAssign(&i.objects, &ebpf.CollectionOptions{
		Maps:     ebpf.MapOptions{PinPath: i.pins.maps()},
		Programs: ebpf.ProgramOptions{KernelTypes: i.types},
	})
	var refused *ebpf.VerifierError
	switch {
	case errors.As(err, &refused): // wraps EACCES too
		return fmt.Errorf("load kernel programs: this kernel's verifier refuses them: %w", err)
	case errors.Is(err, ebpf.ErrMapIncompatible):
		return fmt.Errorf("the maps pinned at %s are of another build; detach them first, with no planner running: %w", i.pins.maps(), err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("load kernel programs: CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed: %w", err)
	case err != nil:
		return fmt.Errorf("load kernel programs: %w", err)
	}
	return nil
}

// configure changes the configuration that the programs read.
func (i *Interceptor) configure(change func(*bpf.InterceptConfig)) error {
	var c bpf.InterceptConfig
	if err := i.objects.Config.Lookup(uint32(0), &c); err != nil {
		return fmt.Errorf("read kernel configuration: %w", err)
	}
	change(&c)
	if err := i.objects.Config.Put(uint32(0), c); err != nil {
		return fmt.Errorf("write kernel configuration: %w", err)
	}
	return nil
}

// Ancestor is the absolute path of the ancestor cgroup.
func (i *Interceptor) Ancestor() string { return i.ancestor.path }

// CgroupRoot is where the root of the cgroup hierarchy is mounted.
func (i *Interceptor) CgroupRoot() string { return string(i.root) }

// Own is the cgroup of this process: its path and its id.
func (i *Interceptor) Own() (path string, id uint64) { return i.own.path, i.own.id }

// Release lets another process have the pinned links and maps, which [Open] then
// doesn't refuse with [ErrRunning]. What is in force stays so. Until
// [Interceptor.Reclaim], nothing but Close may be called.
func (i *Interceptor) Release() error { return i.pins.close() }

// Reclaim takes back what [Interceptor.Release] let go of, after the other process has
// ended: this process's programs are put into the pinned links again. It returns
// [ErrRunning] while the other one holds them. Captures, addresses and
// planners are the caller's to tell anew.
func (i *Interceptor) Reclaim() error {
	if err := i.pins.acquireAgain(); err != nil {
		return err
	}
	var errs []error
	for _, l := range i.links {
		errs = append(errs, l.Close()) // they stay pinned
	}
	i.links, i.missing = nil, nil
	if err := errors.Join(append(errs, i.force(0))...); err != nil {
		return fmt.Errorf("put the kernel programs in force again: %w", err)
	}
	return nil
}

// Close lets go of programs, maps and links. They stay pinned, and refuse.
// Listeners are the caller's to close.
func (i *Interceptor) Close() error {
	errs := []error{i.objects.Close()}
	for _, l := range i.links {
		errs = append(errs, l.Close())
	}
	if i.pins != nil {
		errs = append(errs, i.pins.close())
	}
	return errors.Join(errs...)
}

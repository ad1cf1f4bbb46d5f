package intercept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"chaperone.dev/chaperone/bpf"
)

// Missing is a program that this kernel doesn't have or doesn't let load, and what
// is not covered without it. Nothing else depends on it.
type Missing struct {
	Program string
	Lost    string
	Err     error
}

// Missing returns what [Open] could do without, and had to.
func (i *Interceptor) Missing() []Missing { return i.missing }

// optional is a program that may be missing.
type optional struct {
	name   string
	attach func(*Interceptor, string, *ebpf.Program) (link.Link, error)
	lost   string
}

func optionals() []optional {
	return []optional{
		{"connect_unix", (*Interceptor).attachUnix, "unix sockets of local databases (Linux 6.7)"},
		{"unix_connect", (*Interceptor).attachTracing, "unix sockets of local databases by another name than their own"},
		{"create_socket", (*Interceptor).attachTracing, "packet, XDP, VSOCK and other sockets that are no internet sockets"},
	}
}

// attachOptional attaches what there is of it.
func (i *Interceptor) attachOptional() error {
	for _, o := range optionals() {
		l, err := i.attachOne(o)
		if errors.Is(err, ErrPins) {
			return err
		}
		if err != nil {
			i.missing = append(i.missing, Missing{Program: o.name, Lost: o.lost, Err: err})
			i.log.Warn().Str("program", o.name).Str("notCovered", o.lost).Err(err).Msg("optional kernel program is missing")
			continue
		}
		i.links = append(i.links, l)
	}
	i.types = nil // some megabytes
	return nil
}

func (i *Interceptor) attachOne(o optional) (link.Link, error) {
	program, err := i.loadOptional(o.name)
	if err != nil {
		return nil, err
	}
	defer program.Close() // its link holds it
	return o.attach(i, o.name, program)
}

func (i *Interceptor) attachUnix(name string, p *ebpf.Program) (link.Link, error) {
	h := hook{name, p, ebpf.AttachCgroupUnixConnect}
	l, err := i.adopt(h)
	if err != nil || l != nil {
		return l, err
	}
	dir, err := os.Open(i.attached.path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return i.create(h, dir)
}

// attachTracing makes a link of a kind that can't be given another program. So the
// new one is in force beside the old one, until that is replaced.
func (i *Interceptor) attachTracing(name string, p *ebpf.Program) (link.Link, error) {
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return nil, err
	}
	pin := filepath.Join(i.pins.links(), name)
	next := pin + "_next" // bpffs takes no dots
	err = os.Remove(next)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = l.Pin(next)
	}
	if err == nil {
		err = os.Rename(next, pin)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: pin link: %w", ErrPins, err), l.Close())
	}
	return l, nil
}

// loadOptional loads one program onto the maps of the others.
func (i *Interceptor) loadOptional(name string) (*ebpf.Program, error) {
	spec, err := bpf.LoadOptional()
	if err != nil {
		return nil, fmt.Errorf("kernel programs: %w", err)
	}
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	shared := map[string]*ebpf.Map{
		"config": i.objects.Config, "members": i.objects.Members, "stats": i.objects.Stats,
		"reports": i.objects.Reports, "strangers": i.objects.Strangers,
	}
	for m := range spec.Maps {
		if _, used := shared[m]; !used {
			delete(spec.Maps, m)
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: shared, Programs: ebpf.ProgramOptions{KernelTypes: i.types},
	})
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer c.Close()
	return c.DetachProgram(name), nil
}

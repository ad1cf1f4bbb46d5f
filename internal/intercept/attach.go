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

// hook is one program and where in a cgroup it belongs.
type hook struct {
	name    string // of the pinned link
	program *ebpf.Program
	attach  ebpf.AttachType
}

// hooks returns the programs in the order in which they are attached: those that
// refuse first, the one that diverts last.
func hooks(o *bpf.InterceptObjects) []hook {
	return []hook{
		{"egress", o.Egress, ebpf.AttachCGroupInetEgress},
		{"sock_create", o.SockCreate, ebpf.AttachCGroupInetSockCreate},
		{"bind4", o.Bind4, ebpf.AttachCGroupInet4Bind},
		{"bind6", o.Bind6, ebpf.AttachCGroupInet6Bind},
		{"sendmsg4", o.Sendmsg4, ebpf.AttachCGroupUDP4Sendmsg},
		{"sendmsg6", o.Sendmsg6, ebpf.AttachCGroupUDP6Sendmsg},
		{"recvmsg4", o.Recvmsg4, ebpf.AttachCGroupUDP4Recvmsg},
		{"recvmsg6", o.Recvmsg6, ebpf.AttachCGroupUDP6Recvmsg},
		{"getpeername4", o.Getpeername4, ebpf.AttachCgroupInet4GetPeername},
		{"getpeername6", o.Getpeername6, ebpf.AttachCgroupInet6GetPeername},
		{"sock_ops", o.SockOps, ebpf.AttachCGroupSockOps},
		{"connect4", o.Connect4, ebpf.AttachCGroupInet4Connect},
		{"connect6", o.Connect6, ebpf.AttachCGroupInet6Connect},
	}
}

// attach puts each program into its pinned link, so that there is no moment with
// none, or into a new one.
func (i *Interceptor) attach() error {
	dir, err := os.Open(i.attached.path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCgroup, err)
	}
	defer dir.Close()
	for _, h := range hooks(&i.objects) {
		l, err := i.adopt(h)
		if err == nil && l == nil {
			l, err = i.create(h, dir)
		}
		if err != nil {
			return fmt.Errorf("attach %s to %s: %w", h.name, i.attached.path, err)
		}
		i.links = append(i.links, l)
	}
	return nil
}

// adopt returns the pinned link with the new program in it, or nil when there is none
// that serves: the cgroup of a link can be removed under it, and another made
// at the same path.
func (i *Interceptor) adopt(h hook) (link.Link, error) {
	l, err := link.LoadPinnedLink(filepath.Join(i.pins.links(), h.name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pinned link: %w", err)
	}
	if id, err := attachedTo(l); err != nil || id != i.attached.id {
		i.log.Warn().Str("link", h.name).Uint64("cgroup", id).Err(err).
			Msg("pinned link is attached to another cgroup, and replaced")
		return nil, l.Close()
	}
	if err := l.Update(h.program); err != nil {
		return nil, errors.Join(fmt.Errorf("update pinned link: %w", err), l.Close())
	}
	return l, nil
}

func attachedTo(l link.Link) (cgroup uint64, err error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	cg := info.Cgroup()
	if cg == nil {
		return 0, errors.New("not a link of a cgroup")
	}
	return cg.CgroupId, nil
}

// create attaches by bpf_link alone: the older way can't be pinned, and another program
// can override it. The flags are 0, so programs of cgroups below run before
// ours and can't undo what it does.
func (i *Interceptor) create(h hook, dir *os.File) (link.Link, error) {
	l, err := link.AttachRawLink(link.RawLinkOptions{
		Target:  int(dir.Fd()),
		Program: h.program,
		Attach:  h.attach,
	})
	if err != nil {
		return nil, err
	}
	pin := filepath.Join(i.pins.links(), h.name)
	if err := os.Remove(pin); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("replace pinned link: %w", err), l.Close())
	}
	if err := l.Pin(pin); err != nil {
		return nil, errors.Join(fmt.Errorf("pin link: %w", err), l.Close())
	}
	return l, nil
}

// Detach ends the interception that is pinned in pinDir (empty means
// [DefaultPinDir]): links and maps are removed, and what was captured is free to
// everybody. It returns [ErrRunning] while a daemon holds them. That nothing is
// pinned is no error.
func Detach(pinDir string) error {
	if pinDir == "" {
		pinDir = DefaultPinDir
	}
	found, err := versions(pinDir)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return nil
	}
	var errs []error
	for _, version := range found {
		errs = append(errs, detachVersion(pinDir, version))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(pinDir)
}

func detachVersion(pinDir, version string) error {
	pins, err := openPinVersion(pinDir, version)
	if err != nil {
		return err
	}
	return errors.Join(pins.detach(), pins.close())
}

// detachOthers ends what other versions have pinned. They refused meanwhile what
// this one does.
func (i *Interceptor) detachOthers() error {
	dir := filepath.Dir(i.pins.path)
	found, err := versions(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, version := range found {
		if version != abi {
			errs = append(errs, detachVersion(dir, version))
		}
	}
	return errors.Join(errs...)
}

func detach(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return fmt.Errorf("pinned link %s: %w", pin, err)
	}
	err = l.Detach()
	if errors.Is(err, ebpf.ErrNotSupported) {
		err = nil // such a link ends with its last holder
	}
	return errors.Join(err, l.Unpin(), l.Close())
}

package intercept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// filterName is that of the classic filters, on kernels that have no tcx.
const filterName = "chaperone"

// GuardUplink inspects what leaves the node by an interface of the daemon's network
// namespace: frames of packet sockets, which no socket hook sees, and, with
// [Options.NodeBelt], what was forwarded or came out of a tunnel. The guard is
// pinned: it stays when the daemon is gone, and [Detach] ends it. To guard an
// interface again changes nothing.
func (i *Interceptor) GuardUplink(index int) error {
	device, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("guard interface %d: %w", index, err)
	}
	program := i.objects.FromNode
	if !hasEthernetHeader(device) {
		program = i.objects.FromNodeRaw
	}
	return i.guard(device, guardEgress(), program)
}

// GuardPlanner inspects all that comes from the network namespace of an enrolled
// cgroup, by whatever means, at the node's ends of the interfaces that connect it with
// the daemon's namespace. What comes that way is that planner's, or one of [SeveralPlanners]'s. It returns the
// indices of those interfaces: none, if the namespace is connected otherwise.
func (i *Interceptor) GuardPlanner(ns Namespace, workload uint64) ([]int, error) {
	devices, err := ns.uplinks()
	if err != nil {
		return nil, err
	}
	var indices []int
	for _, device := range devices {
		index := device.Attrs().Index
		if err := i.Attribute(index, workload); err != nil {
			return indices, err
		}
		program := i.objects.FromPlanner
		if !hasEthernetHeader(device) {
			program = i.objects.FromPlannerRaw
		}
		if err := i.guard(device, guardIngress(), program); err != nil {
			return indices, err
		}
		indices = append(indices, index)
	}
	return indices, nil
}

// SeveralPlanners is the workload of an interface that several planners are behind: what it lets
// through is what any planner may send, and the rest is left to their own sockets.
const SeveralPlanners = ^uint64(0)

// Attribute says whose packets come from a guarded interface: an enrolled cgroup's, or
// [SeveralPlanners].
func (i *Interceptor) Attribute(index int, workload uint64) error {
	if err := i.objects.Interfaces.Put(uint32(index), workload); err != nil {
		return fmt.Errorf("attribute interface %d: %w", index, err)
	}
	return nil
}

// Unguard ends what [Interceptor.GuardPlanner] or [Interceptor.GuardUplink] began.
func (i *Interceptor) Unguard(index int) error {
	var errs []error
	for _, d := range []direction{guardIngress(), guardEgress()} {
		errs = append(errs, unguard(i.pins, d, index))
	}
	if err := remove(i.objects.Interfaces, uint32(index)); err != nil {
		errs = append(errs, fmt.Errorf("stop guarding interface %d: %w", index, err))
	}
	return errors.Join(errs...)
}

// uplinks are the ends, in the calling process's network namespace, of interfaces
// that are in ns. The kernel says so from this side: nothing of what is configured in
// ns is believed.
func (ns Namespace) uplinks() ([]netlink.Link, error) {
	if ns.Path == "" {
		return nil, nil
	}
	fd, err := unix.Open(ns.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", ns.Path, err)
	}
	defer unix.Close(fd)
	id, err := netlink.GetNetNsIdByFd(fd)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: its id: %w", ns.Path, err)
	}
	if id < 0 {
		return nil, nil // no interface of this namespace leads there
	}
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return slices.DeleteFunc(all, func(l netlink.Link) bool {
		return l.Attrs().NetNsID != id || !(l.Type() == "veth" || l.Type() == "netkit")
	}), nil
}

func hasEthernetHeader(l netlink.Link) bool {
	kind := l.Attrs().EncapType
	return kind == "ether" || kind == "loopback"
}

// direction is where at an interface a guard stands.
type direction struct {
	name   string // of the pin
	tcx    ebpf.AttachType
	parent uint32 // of the classic filter
}

func guardIngress() direction {
	return direction{"ingress", ebpf.AttachTCXIngress, netlink.HANDLE_MIN_INGRESS}
}

func guardEgress() direction {
	return direction{"egress", ebpf.AttachTCXEgress, netlink.HANDLE_MIN_EGRESS}
}

func (d direction) pin(p *pinDir, index int) string {
	return filepath.Join(p.interfaces(), d.name+"-"+strconv.Itoa(index))
}

// guard attaches the program as the first one, by a pinned link where the kernel has tcx
// (6.6) and as a classic filter before that, which stays by itself.
func (i *Interceptor) guard(device netlink.Link, d direction, program *ebpf.Program) error {
	index, pin := device.Attrs().Index, d.pin(i.pins, device.Attrs().Index)
	adopted, err := adoptGuard(pin, index, program)
	if err != nil || adopted {
		return err
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: d.tcx, Anchor: link.Head()})
	if errors.Is(err, ebpf.ErrNotSupported) {
		err = classicGuard(device, d, program)
	} else if err == nil {
		err = errors.Join(l.Pin(pin), l.Close())
	}
	if err != nil {
		return fmt.Errorf("guard interface %s: %w", device.Attrs().Name, err)
	}
	return nil
}

// adoptGuard puts the program into the pinned link of an earlier process. The link of
// an interface that is gone, whose index another has by now, is of no use.
func adoptGuard(pin string, index int, program *ebpf.Program) (bool, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("pinned link %s: %w", pin, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("pinned link %s: %w", pin, err)
	}
	if tcx := info.TCX(); tcx == nil || int(tcx.Ifindex) != index {
		return false, l.Unpin()
	}
	return true, l.Update(program)
}

func classicGuard(device netlink.Link, d direction, program *ebpf.Program) error {
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: device.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("clsact: %w", err)
	}
	return netlink.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: device.Attrs().Index, Parent: d.parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1,
		},
		Fd: program.FD(), Name: filterName, DirectAction: true,
	})
}

func unguard(p *pinDir, d direction, index int) error {
	l, err := link.LoadPinnedLink(d.pin(p, index), nil)
	if err == nil {
		return errors.Join(l.Detach(), l.Unpin(), l.Close())
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("guard of interface %d: %w", index, err)
	}
	device, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil // gone, with its filters
	}
	return removeClassicGuard(device, d)
}

func removeClassicGuard(device netlink.Link, d direction) error {
	filters, err := netlink.FilterList(device, d.parent)
	if err != nil {
		return nil // no qdisc, no filter
	}
	var errs []error
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Name == filterName {
			errs = append(errs, netlink.FilterDel(f))
		}
	}
	return errors.Join(errs...)
}

// removeGuards ends all guards: those that are pinned, and the classic ones of the
// calling process's network namespace.
func (p *pinDir) removeGuards() error {
	pins, err := os.ReadDir(p.interfaces())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrPins, err)
	}
	var errs []error
	for _, pin := range pins {
		errs = append(errs, detach(filepath.Join(p.interfaces(), pin.Name())))
	}
	devices, err := netlink.LinkList()
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("list interfaces: %w", err))...)
	}
	for _, device := range devices {
		errs = append(errs, removeClassicGuard(device, guardIngress()), removeClassicGuard(device, guardEgress()))
	}
	return errors.Join(errs...)
}

// forgetLostGuards removes the pins of guards whose interface is gone.
func (p *pinDir) forgetLostGuards() error {
	pins, err := os.ReadDir(p.interfaces())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPins, err)
	}
	var errs []error
	for _, entry := range pins {
		_, number, _ := strings.Cut(entry.Name(), "-")
		index, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		pin := filepath.Join(p.interfaces(), entry.Name())
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("pinned link %s: %w", pin, err))
			continue
		}
		info, err := l.Info()
		if err == nil && (info.TCX() == nil || int(info.TCX().Ifindex) != index) {
			err = l.Unpin()
		}
		errs = append(errs, err, l.Close())
	}
	return errors.Join(errs...)
}

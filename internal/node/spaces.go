package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/netns"
	"chaperone.dev/chaperone/internal/workload"
)

// openSpaces opens the listeners: in the daemon's own network namespace, and
// wherever a job lives that was there before.
func (n *node) openSpaces(ctx context.Context) (err error) {
	n.spaces, err = netns.New(ctx, netns.Options{
		Sockets:    n.interceptor,
		CgroupRoot: n.interceptor.CgroupRoot(),
		Serve:      func(ctx context.Context, l net.Listener) error { return n.sessions.Serve(ctx, l) },
		ServeDatagrams: func(ctx context.Context, conn *net.UDPConn, workload uint64) error {
			return n.resolver.ServeUDP(ctx, conn, func(netip.AddrPort) (uint64, bool) { return workload, true })
		},
		Inherited: n.from.takeSockets(),
		Paused:    true, // until it is this daemon that serves
		Log:       n.log,
	})
	if err != nil {
		return err
	}
	for _, job := range n.jobs().Jobs() {
		n.visit(ctx, job)
	}
	return nil
}

// closeSpaces closes the sockets. What another daemon goes on with is left in force.
func (n *node) closeSpaces() error {
	if n.released.Load() || !n.from.succeeded() {
		at, stop := context.WithCancel(context.Background())
		stop()
		return n.spaces.Drain(at)
	}
	return n.spaces.Close()
}

// visit has a job served in the namespaces of all its processes.
func (n *node) visit(ctx context.Context, job workload.Job) {
	places, err := netns.Processes(job.Cgroup)
	if err != nil {
		n.log.Warn().Err(err).Str("job", job.ID).Msg("the job's network namespaces can't be told yet")
		return
	}
	seen := map[netns.ID]bool{}
	for _, pid := range places {
		id, err := netns.IDOf(pid)
		if err != nil || seen[id] {
			continue // it is gone, or nothing new
		}
		seen[id] = true
		n.visitProcess(ctx, job, pid)
	}
}

func (n *node) visitProcess(ctx context.Context, job workload.Job, pid int) {
	err := n.spaces.Visit(ctx, job.CgroupID, job.Cgroup, pid)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, netns.ErrElsewhere) && !errors.Is(err, netns.ErrClosed) {
		n.log.Error().Err(err).Str("job", job.ID).Int("pid", pid).Msg("the job can't be served in its network namespace, and is refused there")
	}
}

// sought serves a job in a namespace where it was refused since nobody served there:
// it came to be in another one than it started in.
func (n *node) sought(ctx context.Context, b intercept.Bypass) {
	job, ok := n.jobs().ByCgroup(b.Workload)
	if !ok {
		return
	}
	n.log.Info().Str("job", job.ID).Uint32("pid", b.Process.PID).Str("destination", b.Destination.String()).
		Msg("a connection was refused, for nobody served the job in that network namespace")
	n.visitProcess(ctx, job, int(b.Process.PID))
}

// guardInterfaces guards the interfaces of the daemon's own network namespace,
// those that it has now before it returns and those to come until ctx is done by
// what it returns.
func (n *node) guardInterfaces() (watch func(context.Context) error, err error) {
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	var lost error
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) { lost = err },
	}); err != nil {
		return nil, fmt.Errorf("watching network interfaces: %w", err)
	}
	all, err := netlink.LinkList()
	if err != nil {
		close(done)
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	guarded := map[int]bool{}
	for _, device := range all {
		n.guardInterface(device, guarded)
	}
	return func(ctx context.Context) error {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return nil
			case update, ok := <-updates:
				if !ok {
					return fmt.Errorf("watching network interfaces: %w", lost)
				}
				if update.Header.Type == unix.RTM_DELLINK {
					delete(guarded, update.Attrs().Index)
					continue
				}
				n.guardInterface(update.Link, guarded)
			}
		}
	}, nil
}

// guardInterface guards one, unless it leads into another namespace of this
// machine: what comes from there is guarded where it enters.
func (n *node) guardInterface(device netlink.Link, guarded map[int]bool) {
	index := device.Attrs().Index
	if guarded[index] || device.Type() == "veth" || device.Type() == "netkit" {
		return
	}
	guarded[index] = true
	if err := n.interceptor.GuardUplink(index); err != nil {
		n.log.Warn().Err(err).Str("interface", device.Attrs().Name).
			Msg("the interface is not guarded: frames of packet sockets pass there; planners must not have CAP_NET_RAW")
	}
}

package intercept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/bpf"
)

// Datagrams are the sockets that one planner's diverted datagrams arrive at in one
// network namespace. They are that planner's alone, so who asks needs no
// other proof; whoever else is below the ancestor is kept from them.
type Datagrams struct {
	// Conns are on 127.0.0.1 and, where the namespace has it, on ::1.
	Conns []*net.UDPConn

	interceptor *Interceptor
	key         bpf.InterceptResolverKey
	closing     sync.Once
	err         error
}

// ListenDatagrams opens the sockets for the datagrams of an enrolled cgroup in a
// network namespace. Until then, and after [Datagrams.Close], its datagrams to what is
// captured with Datagrams are refused there with ECONNREFUSED.
func (i *Interceptor) ListenDatagrams(ctx context.Context, ns Namespace, workload uint64) (*Datagrams, error) {
	d := &Datagrams{interceptor: i, key: bpf.InterceptResolverKey{Workload: workload}}
	var where bpf.InterceptResolver
	err := ns.do(func() error {
		for _, at := range []struct {
			network, host string
			port          *uint16
		}{{"udp4", "127.0.0.1", &where.Port4}, {"udp6", "::1", &where.Port6}} {
			conn, err := i.listenDatagrams(ctx, at.network, net.JoinHostPort(at.host, "0"))
			if at.network == "udp6" && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
				continue
			}
			if err != nil {
				return err
			}
			*at.port = hton(conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			if err := d.add(conn); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = i.objects.Resolvers.Put(d.key, where)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for diverted datagrams: %w", err), d.Close())
	}
	return d, nil
}

func (i *Interceptor) listenDatagrams(ctx context.Context, network, address string) (*net.UDPConn, error) {
	var config net.ListenConfig
	c, err := config.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UDPConn)
	if err := i.mark(conn); err != nil {
		return nil, errors.Join(fmt.Errorf("mark socket %s: %w", conn.LocalAddr(), err), conn.Close())
	}
	return conn, nil
}

// add takes a socket, and notes the namespace that it is in.
func (d *Datagrams) add(conn *net.UDPConn) (err error) {
	d.Conns = append(d.Conns, conn)
	d.key.Netns, err = netnsOf(conn)
	return err
}

// InheritDatagrams takes over the sockets of a workload in one namespace, which another
// process has opened with [Interceptor.ListenDatagrams]. What waits to be
// read there stays. On an error the sockets are closed.
func (i *Interceptor) InheritDatagrams(workload uint64, conns []*net.UDPConn) (*Datagrams, error) {
	d := &Datagrams{interceptor: i, key: bpf.InterceptResolverKey{Workload: workload}}
	var where bpf.InterceptResolver
	var errs []error
	for _, conn := range conns {
		before := d.key.Netns
		err := errors.Join(d.add(conn), i.mark(conn))
		at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		switch {
		case err != nil:
		case !at.Addr().IsLoopback():
			err = fmt.Errorf("%w: it is at %s, which is no loopback address", ErrInherited, at)
		case before != 0 && before != d.key.Netns:
			err = fmt.Errorf("%w: those of workload %d are in two network namespaces", ErrInherited, workload)
		case at.Addr().Is4():
			where.Port4 = hton(at.Port())
		default:
			where.Port6 = hton(at.Port())
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if err == nil {
		err = i.objects.Resolvers.Put(d.key, where)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take sockets for diverted datagrams over: %w", err), d.Abandon())
	}
	return d, nil
}

// Abandon closes this process's sockets and leaves the diversion in force, for
// another process that has the sockets too. Any number of calls is allowed.
func (d *Datagrams) Abandon() error {
	d.closing.Do(d.closeConns)
	return d.err
}

func (d *Datagrams) closeConns() {
	for _, conn := range d.Conns {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			d.err = errors.Join(d.err, err)
		}
	}
}

// netnsOf is the cookie of the socket's network namespace.
func netnsOf(conn *net.UDPConn) (cookie uint64, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = control(raw, func(fd int) (err error) {
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	return cookie, err
}

// Close closes the sockets. Any number of calls is allowed.
func (d *Datagrams) Close() error {
	d.closing.Do(func() {
		if err := remove(d.interceptor.objects.Resolvers, d.key); err != nil {
			d.err = fmt.Errorf("stop diverting datagrams of %s: %w", strconv.FormatUint(d.key.Workload, 10), err)
		}
		d.closeConns()
	})
	return d.err
}

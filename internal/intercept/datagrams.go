package intercept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/cilium/ebpf"
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
			d.Conns = append(d.Conns, conn)
			*at.port = hton(conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			if d.key.Netns, err = netnsOf(conn); err != nil {
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
	raw, err := conn.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error { return i.objects.Listeners.Put(int32(fd), uint32(1)) })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mark socket %s: %w", conn.LocalAddr(), err), conn.Close())
	}
	return conn, nil
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
		if err := d.interceptor.objects.Resolvers.Delete(d.key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			d.err = fmt.Errorf("stop diverting datagrams of %s: %w", strconv.FormatUint(d.key.Workload, 10), err)
		}
		for _, conn := range d.Conns {
			if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				d.err = errors.Join(d.err, err)
			}
		}
	})
	return d.err
}

package bypass

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Ways past the sockets of the internet, straight to a device. They take
// CAP_NET_RAW or CAP_NET_ADMIN, which chaperone run takes from planners.

func deviceRows() []row {
	const (
		qdisc   = "frames past the queueing disciplines pass the guard of an uplink: drop CAP_NET_RAW"
		forward = "what the node forwards belongs to no socket: drop CAP_NET_ADMIN"
		xdp     = "AF_XDP passes the guard of an uplink: drop CAP_NET_RAW and CAP_BPF"
	)
	packet := func(kind int, how func(fd int, a aim) error) attack {
		return func(a aim) (answer, error) {
			fd, err := socket(unix.AF_PACKET, kind, 0)
			if err != nil {
				return answer{}, err
			}
			return answer{}, how(fd, a)
		}
	}
	const sockets = "create_socket" // the optional program that refuses other families
	return []row{
		{threat: 7, name: "AF_PACKET, SOCK_RAW", hope: "whole frames", do: packet(unix.SOCK_RAW, sendFrame("n-db")), want: "refused or dropped"},
		{threat: 7, name: "AF_PACKET, SOCK_DGRAM", hope: "packets, the kernel adds the frame", do: packet(unix.SOCK_DGRAM, sendCooked), want: "refused or dropped"},
		{threat: 7, name: "AF_PACKET, false protocol", hope: "a frame of IPv4 that is sent as another protocol's", do: packet(unix.SOCK_RAW, sendMislabelled), want: "refused or dropped"},
		{threat: 7, name: "AF_PACKET, VLAN tag", hope: "an address that lies four bytes further", do: packet(unix.SOCK_RAW, sendTagged), want: "refused or dropped"},
		{threat: 7, name: "AF_PACKET, PACKET_QDISC_BYPASS", hope: "frames past the queueing disciplines, and so past their filters", do: packet(unix.SOCK_RAW, sendBypassing("n-db")), want: "refused or dropped", open: qdisc, closers: []string{asRun, sockets}},
		{threat: 7, name: "AF_PACKET, PACKET_TX_RING", hope: "frames from mapped memory", do: packet(unix.SOCK_RAW, sendRing), want: "refused or dropped"},
		{threat: 7, name: "AF_PACKET, from before", hope: "made before joining the planner's cgroup", from: fromStranger, do: frameBefore, want: "refused or dropped"},
		{threat: 7, name: "AF_PACKET, from before, outside the ancestor", hope: "made outside the ancestor", from: fromOutside, do: frameBefore, want: "refused or dropped",
			open: "the socket belongs to a cgroup outside the ancestor: chaperone run closes inherited sockets", closers: []string{withNodeBelt}},
		{threat: 7, name: "AF_PACKET, from a pod", hope: "a frame out of a network namespace of its own", inPod: true, do: packet(unix.SOCK_RAW, sendFrame("pod0")), want: "refused or dropped"},
		{threat: 7, name: "AF_PACKET, PACKET_QDISC_BYPASS, from a pod", hope: "the same past the queueing disciplines", inPod: true, do: packet(unix.SOCK_RAW, sendBypassing("pod0")), want: "refused or dropped"},
		{threat: 7, name: "TUN", hope: "a device that packets come out of", do: tun, want: "refused or dropped", open: forward, closers: []string{asRun, withNodeBelt}},
		{threat: 7, name: "TUN, in a pod", hope: "the same in a network namespace of its own", inPod: true, do: tun, want: "refused or dropped"},
		{threat: 7, name: "AF_XDP", hope: "frames from a memory shared with the driver", do: afXDP("n-db"), want: "refused or dropped", open: xdp, closers: []string{asRun, sockets}},
		{threat: 7, name: "AF_XDP, from a pod", hope: "the same in a network namespace of its own", inPod: true, do: afXDP("pod0"), want: "refused or dropped"},
		{threat: 7, name: "IP-in-IP device", hope: "a tunnel to a host that unpacks it", do: through("ipip"), want: "refused or dropped", open: forward, closers: []string{asRun, sockets}},
		{threat: 7, name: "GRE device", hope: "the same by GRE", do: through("gre"), want: "refused or dropped", open: forward, closers: []string{asRun, sockets}},
		{threat: 7, name: "SIT device", hope: "IPv6 in IPv4", do: through("sit"), want: "refused or dropped", open: forward, closers: []string{asRun, sockets}},
		{threat: 7, name: "VXLAN device", hope: "frames in datagrams", do: through("vxlan"), want: "refused or dropped", open: forward, closers: []string{asRun, sockets}},
		{threat: 7, name: "route changed", hope: "another route to the target", do: rerouted, want: "diverted"},
		{threat: 7, name: "ip rule", hope: "a rule by mark, before all others", do: ruled, want: "diverted"},
		{threat: 7, name: "target's address on lo", hope: "the address is the node's own, and packets to it are not sent", do: addressHere, want: "diverted"},
	}
}

func sendFrame(device string) func(fd int, a aim) error {
	return func(fd int, a aim) error {
		index, err := deviceIndex(device)
		if err != nil {
			return err
		}
		b := frameOn(device, a)
		return step("sendto", unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: index}))
	}
}

// frameOn is a datagram to the target as a frame for a device.
func frameOn(device string, a aim) []byte {
	if device != "pod0" {
		return frame(udp4(node4, a.V4, a.Port))
	}
	b := frame(udp4(addr("198.51.101.2"), a.V4, a.Port))
	copy(b, macs["n-pod"])
	copy(b[6:], macs["pod0"])
	return b
}

func sendCooked(fd int, a aim) error {
	index, err := deviceIndex("n-db")
	if err != nil {
		return err
	}
	to := &unix.SockaddrLinklayer{Ifindex: index, Protocol: binary.NativeEndian.Uint16([]byte{8, 0}), Halen: 6}
	copy(to.Addr[:], macs["db0"])
	return step("sendto", unix.Sendto(fd, udp4(node4, a.V4, a.Port), 0, to))
}

func sendBypassing(device string) func(fd int, a aim) error {
	return func(fd int, a aim) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return step("PACKET_QDISC_BYPASS", err)
		}
		return sendFrame(device)(fd, a)
	}
}

// sendMislabelled says in the socket's address that the frame is MPLS.
func sendMislabelled(fd int, a aim) error {
	index, err := deviceIndex("n-db")
	if err != nil {
		return err
	}
	to := &unix.SockaddrLinklayer{Ifindex: index, Protocol: binary.NativeEndian.Uint16([]byte{0x88, 0x47})}
	return step("sendto", unix.Sendto(fd, frame(udp4(node4, a.V4, a.Port)), 0, to))
}

// sendTagged sends a frame for VLAN 0, which means none: whoever gets it takes it as untagged.
func sendTagged(fd int, a aim) error {
	index, err := deviceIndex("n-db")
	if err != nil {
		return err
	}
	b := frame(udp4(node4, a.V4, a.Port))
	b = slices.Insert(b, 12, 0x81, 0, 0, 0)
	return step("sendto", unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: index}))
}

// sendRing sends one frame of a ring (packet_mmap, TPACKET_V1).
func sendRing(fd int, a aim) error {
	index, err := deviceIndex("n-db")
	if err != nil {
		return err
	}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING,
		&unix.TpacketReq{Block_size: 4096, Block_nr: 1, Frame_size: 2048, Frame_nr: 2}); err != nil {
		return step("PACKET_TX_RING", err)
	}
	ring, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return step("mmap", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: binary.NativeEndian.Uint16([]byte{8, 0})}); err != nil {
		return step("bind", err)
	}
	b := frame(udp4(node4, a.V4, a.Port))
	header := (*unix.TpacketHdr)(unsafe.Pointer(&ring[0]))
	header.Len = uint32(len(b))
	copy(ring[unix.SizeofTpacketHdr:], b) // the data follows the header, which is aligned
	header.Status = unix.TP_STATUS_SEND_REQUEST
	return step("send", unix.Sendto(fd, nil, 0, &unix.SockaddrLinklayer{Ifindex: index, Protocol: binary.NativeEndian.Uint16([]byte{8, 0})}))
}

func frameBefore(a aim) (answer, error) {
	fd, err := socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return answer{}, err
	}
	if err := join(a.Job); err != nil {
		return answer{}, err
	}
	return answer{}, sendFrame("n-db")(fd, a)
}

// tun writes a packet into a device, for the node to forward.
func tun(a aim) (answer, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if errors.Is(err, unix.ENOENT) {
		return answer{}, step("open /dev/net/tun", unix.ENODEV)
	}
	if err != nil {
		return answer{}, step("open /dev/net/tun", err)
	}
	ifr, err := unix.NewIfreq("planner0")
	if err != nil {
		return answer{}, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return answer{}, step("TUNSETIFF", err)
	}
	if err := end("planner0", "203.0.113.129/30"); err != nil {
		return answer{}, err
	}
	if err := sysctls(map[string]string{
		"ipv4/conf/planner0/rp_filter": "0", "ipv4/conf/all/rp_filter": "0", "ipv4/ip_forward": "1",
	}); err != nil {
		return answer{}, err
	}
	_, err = unix.Write(fd, udp4(addr("203.0.113.130"), a.V4, a.Port))
	return answer{}, step("write", err)
}

// afXDP sends one frame by a socket of AF_XDP, without a program.
func afXDP(device string) attack {
	return func(a aim) (answer, error) {
		fd, err := socket(unix.AF_XDP, unix.SOCK_RAW, 0)
		if err != nil {
			return answer{}, err
		}
		index, err := deviceIndex(device)
		if err != nil {
			return answer{}, err
		}
		memory, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return answer{}, step("mmap", err)
		}
		b := frameOn(device, a)
		copy(memory, b)
		reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&memory[0]))), Len: 1 << 16, Size: 4096}
		_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG, uintptr(unsafe.Pointer(&reg)), 24, 0)
		if errno != 0 {
			return answer{}, step("XDP_UMEM_REG", errno)
		}
		const entries = 4
		for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_TX_RING} {
			if err := unix.SetsockoptInt(fd, unix.SOL_XDP, ring, entries); err != nil {
				return answer{}, step("rings", err)
			}
		}
		var offsets unix.XDPMmapOffsets
		size := uint32(unsafe.Sizeof(offsets))
		if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS, uintptr(unsafe.Pointer(&offsets)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
			return answer{}, step("XDP_MMAP_OFFSETS", errno)
		}
		ring, err := unix.Mmap(fd, unix.XDP_PGOFF_TX_RING, int(offsets.Tx.Desc)+entries*16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			return answer{}, step("mmap", err)
		}
		err = unix.EBUSY // until the kernel has cleaned up after the last one
		for end := time.Now().Add(time.Duration(10*patience) * time.Millisecond); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
			err = unix.Bind(fd, &unix.SockaddrXDP{Ifindex: uint32(index), Flags: unix.XDP_COPY})
		}
		if err != nil {
			return answer{}, step("bind", err)
		}
		desc := (*unix.XDPDesc)(unsafe.Pointer(&ring[offsets.Tx.Desc]))
		desc.Addr, desc.Len = 0, uint32(len(b))
		*(*uint32)(unsafe.Pointer(&ring[offsets.Tx.Producer])) = 1
		return answer{}, step("sendto", unix.Sendto(fd, nil, unix.MSG_DONTWAIT, nil))
	}
}

// through makes a tunnel device whose far end is another host, with a route through
// it, and sends a datagram there by the kernel: written by hand where a socket would be asked.
func through(kind string) attack {
	return func(a aim) (answer, error) {
		attrs := netlink.LinkAttrs{Name: "planner1"}
		links := map[string]netlink.Link{
			"ipip":  &netlink.Iptun{LinkAttrs: attrs, Local: node4.AsSlice(), Remote: hop4.AsSlice()},
			"gre":   &netlink.Gretun{LinkAttrs: attrs, Local: node4.AsSlice(), Remote: hop4.AsSlice()},
			"sit":   &netlink.Sittun{LinkAttrs: attrs, Local: node4.AsSlice(), Remote: hop4.AsSlice()},
			"vxlan": &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 7, SrcAddr: node4.AsSlice(), Group: hop4.AsSlice(), Port: vxlanPort},
		}
		link := links[kind]
		if err := netlink.LinkAdd(link); err != nil {
			return answer{}, step("add "+kind, err)
		}
		defer netlink.LinkDel(link)
		if err := netlink.LinkSetUp(link); err != nil {
			return answer{}, step("set up "+kind, err)
		}
		fd, err := socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return answer{}, err
		}
		index, err := deviceIndex("planner1")
		if err != nil {
			return answer{}, err
		}
		b, protocol := udp4(node4, a.V4, a.Port), []byte{8, 0}
		if kind == "sit" {
			b, protocol = ip6(node6, a.V6, unix.IPPROTO_UDP, ports(a.Port)), []byte{0x86, 0xdd}
		}
		if kind == "vxlan" {
			b = frame(b)
		}
		return answer{}, step("sendto", unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: index, Protocol: binary.NativeEndian.Uint16(protocol)}))
	}
}

func rerouted(a aim) (answer, error) {
	device, err := deviceIndex("n-db")
	if err != nil {
		return answer{}, err
	}
	r := &netlink.Route{LinkIndex: device, Dst: host(a.V4), Gw: hop4.AsSlice()}
	if err := netlink.RouteAdd(r); err != nil {
		return answer{}, step("add a route", err)
	}
	defer netlink.RouteDel(r)
	return plain4(a)
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// ruled sends all that is marked, loopback too, by a table that leads to the target's host.
func ruled(a aim) (answer, error) {
	device, err := deviceIndex("n-db")
	if err != nil {
		return answer{}, err
	}
	const table, mark = 77, 77
	r := &netlink.Route{LinkIndex: device, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: a.V4.AsSlice(), Table: table}
	if err := netlink.RouteAdd(r); err != nil {
		return answer{}, step("add a route", err)
	}
	defer netlink.RouteDel(r)
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Mark, rule.Priority = unix.AF_INET, table, mark, 1
	if err := netlink.RuleAdd(rule); err != nil {
		return answer{}, step("add a rule", err)
	}
	defer netlink.RuleDel(rule)
	return withOption(unix.SOL_SOCKET, unix.SO_MARK, mark)(a)
}

func addressHere(a aim) (answer, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return answer{}, err
	}
	address := &netlink.Addr{IPNet: host(a.V4)}
	if err := netlink.AddrAdd(lo, address); err != nil {
		return answer{}, step("add an address", err)
	}
	defer netlink.AddrDel(lo, address)
	return plain4(a)
}

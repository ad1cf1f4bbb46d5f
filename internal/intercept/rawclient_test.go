package intercept

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawPacket sends a UDP packet that is written by hand: "address kind", where kind is
// plain, fragment (not the first), options, or unknown (a protocol without ports). The
// socket is made here, so this is for those who may have one.
func rawPacket(args []string) (answer, error) {
	to := netip.MustParseAddrPort(args[0])
	if to.Addr().Is6() {
		return rawPacket6(to, args[1])
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return answer{}, err
	}
	return answer{}, sendRaw4(fd, to, args[1])
}

func sendRaw4(fd int, to netip.AddrPort, kind string) error {
	_, sa := sockaddr(to)
	return unix.Sendto(fd, packet4(to.Addr(), to, kind), 0, sa)
}

func packet4(from netip.Addr, to netip.AddrPort, kind string) []byte {
	header := 20
	if kind == "options" {
		header = 24
	}
	p := make([]byte, header+16)
	p[0] = 0x40 | byte(header/4)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[8], p[9] = 64, unix.IPPROTO_UDP
	switch kind {
	case "fragment":
		binary.BigEndian.PutUint16(p[6:], 1)
	case "unknown":
		p[9] = 253
	case "options":
		copy(p[20:], []byte{1, 1, 1, 0}) // no operation, end
	}
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[header:], 7777)
	binary.BigEndian.PutUint16(p[header+2:], to.Port())
	binary.BigEndian.PutUint16(p[header+4:], 16)
	var sum uint32
	for n := 0; n < header; n += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[n:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	return p
}

func rawPacket6(to netip.AddrPort, kind string) (answer, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return answer{}, err
	}
	p := make([]byte, 40, 80)
	p[0], p[7] = 0x60, 64
	copy(p[8:], to.Addr().AsSlice())
	copy(p[24:], to.Addr().AsSlice())
	next := &p[6]
	extensions := map[string][]byte{
		"plain":    nil,
		"options":  {unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0},
		"fragment": {unix.IPPROTO_UDP, 0, 0, 8, 0, 0, 0, 1},
		"routing":  {unix.IPPROTO_UDP, 0, 4, 0, 0, 0, 0, 0},
	}
	switch kind {
	case "options":
		*next = unix.IPPROTO_DSTOPTS
	case "fragment":
		*next = unix.IPPROTO_FRAGMENT
	case "routing":
		*next = unix.IPPROTO_ROUTING
	default:
		*next = unix.IPPROTO_UDP
	}
	p = append(p, extensions[kind]...)
	udp := make([]byte, 16)
	binary.BigEndian.PutUint16(udp, 7777)
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], 16)
	p = append(p, udp...)
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	return answer{}, unix.Sendto(fd, p, 0, &unix.SockaddrInet6{Addr: to.Addr().As16()})
}

// packetSocket sends an Ethernet frame with a UDP packet in it from a packet socket:
// "interface address kind protocol", where kind is one of sendRaw4's and protocol is what
// the socket says the frame is.
func packetSocket(args []string) (answer, error) {
	device, err := net.InterfaceByName(args[0])
	if err != nil {
		return answer{}, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return answer{}, err
	}
	protocol, err := strconv.ParseUint(args[3], 0, 16)
	if err != nil {
		return answer{}, err
	}
	// To everybody: the other end of a veth takes it.
	frame := append(bytes.Repeat([]byte{0xff}, 6), make([]byte, 6)...)
	frame = append(frame, 8, 0)
	frame = append(frame, packet4(netip.MustParseAddr("10.78.0.2"), netip.MustParseAddrPort(args[1]), args[2])...)
	return answer{}, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: device.Index, Protocol: uint16(protocol), Halen: 6})
}

// rawConnect is connect(2) with an address that package unix has no type for.
func rawConnect(fd int, address []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address[0])), uintptr(len(address)))
	if errno != 0 {
		return errno
	}
	return nil
}

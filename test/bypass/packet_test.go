package bypass

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Packets written by hand.

// ports is the beginning of every transport header, and the rest of UDP's.
func ports(to uint16) []byte {
	b := make([]byte, 9)
	binary.BigEndian.PutUint16(b, 7777)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], 9)
	b[8] = 'x'
	return b
}

func udp4(from, to netip.Addr, port uint16) []byte {
	return ip4(from, to, unix.IPPROTO_UDP, 0, nil, ports(port))
}

const moreFragments = 0x2000

// ip4 makes an IPv4 packet. The options' length is a multiple of 4.
func ip4(from, to netip.Addr, protocol byte, fragment uint16, options, rest []byte) []byte {
	header := 20 + len(options)
	b := make([]byte, 20, header+len(rest))
	b[0] = 0x40 | byte(header/4)
	binary.BigEndian.PutUint16(b[2:], uint16(header+len(rest)))
	binary.BigEndian.PutUint16(b[4:], 77)
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[8], b[9] = 64, protocol
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	b = append(b, options...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, rest...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for n := 0; n+1 < len(b); n += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[n:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func ip6(from, to netip.Addr, next byte, rest []byte) []byte {
	b := make([]byte, 40, 40+len(rest))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(rest)))
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	return append(b, rest...)
}

// synTo is a TCP header.
func synTo(port uint16) []byte {
	b := make([]byte, 20)
	copy(b, ports(port)[:4])
	b[12], b[13] = 5<<4, 2
	return b
}

// sendRaw sends a packet with its header.
func sendRaw(fd int, to netip.Addr, packet []byte) error {
	return step("sendto", unix.Sendto(fd, packet, 0, sockaddr(to, 0)))
}

func deviceIndex(name string) (int, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return device.Index, nil
}

// frame puts an Ethernet header before a packet, from the node to the database's host.
func frame(packet []byte) []byte {
	b := append(append([]byte{}, macs["db0"]...), macs["n-db"]...)
	kind := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	return append(binary.BigEndian.AppendUint16(b, kind), packet...)
}

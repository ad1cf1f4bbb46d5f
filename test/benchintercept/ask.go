package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Like a C library's resolver: a socket per question, and an answer counts only
// when it comes from who was asked.
func ask(to netip.AddrPort, connected bool, id uint16) error {
	question := new(dns.Msg).SetQuestion(hostName+".", dns.TypeA)
	question.Id = id
	message, err := question.Pack()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return err
	}
	if err := sendQuestion(fd, to, message, connected); err != nil {
		return fmt.Errorf("ask %s: %w", to, err)
	}
	answer := make([]byte, 512)
	n, from, err := unix.Recvfrom(fd, answer, 0)
	for errors.Is(err, unix.EINTR) { // Go's scheduler sends signals
		n, from, err = unix.Recvfrom(fd, answer, 0)
	}
	if err != nil {
		return fmt.Errorf("answer of %s: %w", to, err)
	}
	if a, ok := from.(*unix.SockaddrInet4); !ok || netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)) != to {
		return fmt.Errorf("asked %s, and %v answered", to, from)
	}
	var m dns.Msg
	if err := m.Unpack(answer[:n]); err != nil {
		return fmt.Errorf("answer of %s: %w", to, err)
	}
	if m.Id != id || m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		return fmt.Errorf("%s answered %s with %d records", to, dns.RcodeToString[m.Rcode], len(m.Answer))
	}
	return nil
}

func sendQuestion(fd int, to netip.AddrPort, message []byte, connected bool) error {
	address := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	if !connected {
		return unix.Sendto(fd, message, 0, address)
	}
	if err := unix.Connect(fd, address); err != nil {
		return err
	}
	_, err := unix.Write(fd, message)
	return err
}

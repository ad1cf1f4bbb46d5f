package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Host is one entry of a Target's hosts: a name or a range of addresses, and
// a port. Exactly one of Name and Prefix is set.
type Host struct {
	Name   string       // lower case
	Prefix netip.Prefix // a single address is a prefix of full length
	Port   uint16
}

// String writes the host as [ParseHost] reads it.
func (h Host) String() string {
	host := h.Name
	if h.Name == "" {
		host = h.Prefix.String()
		if h.Prefix.IsSingleIP() {
			host = h.Prefix.Addr().String()
		}
		if h.Prefix.Addr().Is6() {
			host = "[" + host + "]"
		}
	}
	return host + ":" + strconv.Itoa(int(h.Port))
}

// ParseHost reads "name:port", "192.0.2.1:port", "192.0.2.0/24:port",
// "[2001:db8::1]:port" or "[2001:db8::/32]:port". Names are host names of RFC
// 1123, with "_" allowed for what is found in practice, and have no wildcard.
func ParseHost(s string) (Host, error) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return Host{}, fmt.Errorf("%s has no port; write it as name:port", quote(s))
	}
	host, portText := s[:colon], s[colon+1:]
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || portText != strconv.FormatUint(port, 10) {
		return Host{}, fmt.Errorf("%s has no valid port; it must be from 1 to 65535", quote(s))
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed {
			return Host{}, fmt.Errorf("%s has an unclosed bracket", quote(s))
		}
		host = inner
	}
	prefix, isAddress, err := parsePrefix(host)
	switch {
	case err != nil:
		return Host{}, fmt.Errorf("%s: %w", quote(s), err)
	case isAddress && prefix.Addr().Is6() != bracketed:
		return Host{}, fmt.Errorf("%s: an IPv6 address, and nothing else, is put in brackets", quote(s))
	case isAddress:
		return Host{Prefix: prefix, Port: uint16(port)}, nil
	case bracketed:
		return Host{}, fmt.Errorf("%s: what stands in brackets is no IPv6 address", quote(s))
	}
	host = strings.ToLower(host)
	if err := checkHostName(host); err != nil {
		return Host{}, fmt.Errorf("%s: %w", quote(s), err)
	}
	return Host{Name: host, Port: uint16(port)}, nil
}

// parsePrefix reads an address or CIDR; ok is false for what looks like
// neither.
func parsePrefix(s string) (p netip.Prefix, ok bool, err error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return p, false, nil
		}
		if err := checkAddr(a); err != nil {
			return p, false, err
		}
		return netip.PrefixFrom(a, a.BitLen()), true, nil
	}
	p, err = netip.ParsePrefix(s)
	if err != nil {
		return p, false, errors.New("no valid CIDR; write it as 192.0.2.0/24:port or [2001:db8::/32]:port")
	}
	if err := checkAddr(p.Addr()); err != nil {
		return p, false, err
	}
	if m := p.Masked(); m != p {
		return p, false, fmt.Errorf("the CIDR has bits set beyond its length; did you mean %s", m)
	}
	return p, true, nil
}

func checkAddr(a netip.Addr) error {
	switch {
	case a.Is4In6():
		return fmt.Errorf("write the IPv4-mapped address as %s", a.Unmap())
	case a.Zone() != "":
		return errors.New("an address with a zone can't be a target")
	}
	return nil
}

func checkHostName(name string) error {
	if name == "" {
		return errors.New("the host name is missing")
	}
	if strings.Contains(name, "*") {
		return errors.New("a host name has no wildcard; list the names, or use a CIDR")
	}
	if len(name) > 253 {
		return errors.New("a host name has at most 253 characters")
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("no valid host name")
		}
		for i := range len(label) {
			if c := label[i]; !isAlphanumeric(c) && c != '-' && c != '_' {
				return errors.New("no valid host name (international names are written in their xn-- form)")
			}
		}
	}
	// A name whose last label is a number is read as an address by resolvers
	// (https://url.spec.whatwg.org/#ends-in-a-number-checker).
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return errors.New("neither a valid address nor a host name")
	}
	return nil
}

// isAlphanumeric takes lower-case letters and digits.
func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

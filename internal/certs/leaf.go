package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

const (
	leafLifetime = 24 * time.Hour
	renewBefore  = 8 * time.Hour
	maxAddresses = 16
)

// ErrName is wrapped by the error for a name that no certificate can be made
// for.
var ErrName = errors.New("no valid host name")

// Leaf returns a certificate for a host name, or an IP address written as
// one, and for further addresses. The name may be empty if there is an
// address. It is valid for 24 hours and more than 8 of them are left; asking
// again is cheap. The result is shared and must not be changed.
func (a *Authority) Leaf(name string, addresses ...netip.Addr) (*tls.Certificate, error) {
	name, addresses, err := normalise(name, addresses)
	if err != nil {
		return nil, fmt.Errorf("certificate for %.300q: %w", name, err)
	}
	key := fmt.Sprint(name, addresses)
	if leaf, ok := a.leaves.Get(key); ok && a.fresh(leaf) {
		return leaf, nil
	}
	signed, err, _ := a.signing.Do(key, func() (any, error) {
		leaf, err := a.sign(name, addresses)
		if err == nil {
			a.leaves.Add(key, leaf)
		}
		return leaf, err
	})
	if err != nil {
		return nil, fmt.Errorf("certificate for %q: %w", key, err)
	}
	return signed.(*tls.Certificate), nil
}

func (a *Authority) fresh(leaf *tls.Certificate) bool {
	return a.now().Add(renewBefore).Before(leaf.Leaf.NotAfter)
}

func (a *Authority) sign(name string, addresses []netip.Addr) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(leafLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	if name != "" {
		template.DNSNames = []string{name}
	}
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	const maxCommonName = 64 // ub-common-name of RFC 5280
	if common := commonName(name, addresses); len(common) <= maxCommonName {
		// Old clients, libpq before 15 among them, look for addresses here.
		template.Subject = pkix.Name{CommonName: common}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func commonName(name string, addresses []netip.Addr) string {
	if name != "" {
		return name
	}
	return addresses[0].String()
}

// normalise checks the names and puts them into the form that a certificate
// has them in: lower case, without the final dot, IPv4 as such.
func normalise(name string, addresses []netip.Addr) (string, []netip.Addr, error) {
	if len(addresses) > maxAddresses {
		return name, nil, fmt.Errorf("%d addresses are too many, %d at most", len(addresses), maxAddresses)
	}
	var all []netip.Addr
	if ip, err := netip.ParseAddr(name); err == nil {
		addresses = append([]netip.Addr{ip}, addresses...)
		name = ""
	}
	for _, ip := range addresses {
		if !ip.IsValid() {
			return name, nil, errors.New("an address is missing")
		}
		all = append(all, ip.Unmap().WithZone(""))
	}
	if name == "" {
		if len(all) == 0 {
			return name, nil, fmt.Errorf("%w: it is empty", ErrName)
		}
		return "", all, nil
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name, all, checkName(name)
}

// checkName accepts host names of RFC 1123, section 2.1, in their ASCII form,
// and the underscore that many private names have.
func checkName(name string) error {
	const maxName, maxLabel = 253, 63
	if len(name) > maxName {
		return fmt.Errorf("%w: it has %d bytes, %d at most", ErrName, len(name), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%w: the part %.70q is malformed", ErrName, label)
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return fmt.Errorf("%w: it holds the character %q", ErrName, c)
			}
		}
	}
	return nil
}

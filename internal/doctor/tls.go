package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// readCertificates reads a file of PEM certificates.
func readCertificates(path string) ([]*x509.Certificate, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("it holds a certificate that can't be read: %w", err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("it holds no PEM certificate")
	}
	return all, nil
}

// clientTLS verifies a server by its name and a file of authorities; without
// a file by the system's.
func clientTLS(name, caFile string) (*tls.Config, error) {
	config := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return config, nil
	}
	authorities, err := readCertificates(caFile)
	if unread(err) {
		return nil, err // names the file
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caFile, err)
	}
	config.RootCAs = x509.NewCertPool()
	for _, c := range authorities {
		config.RootCAs.AddCert(c)
	}
	return config, nil
}

// expiry says that a certificate ends soon, or has ended: within two weeks,
// or within the last fifth of a shorter life.
func expiry(c *x509.Certificate) string {
	left := time.Until(c.NotAfter)
	soon := min(14*24*time.Hour, c.NotAfter.Sub(c.NotBefore)/5)
	end := c.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case left <= 0:
		return "the certificate expired at " + end
	case left < soon:
		return "the certificate expires at " + end
	}
	return ""
}

// chainExpiry looks at what a server presented.
func chainExpiry(state *tls.ConnectionState) string {
	if state == nil {
		return ""
	}
	for _, c := range state.PeerCertificates {
		if late := expiry(c); late != "" {
			return late
		}
	}
	return ""
}

// tlsRemedy says what to do about a handshake that failed.
func tlsRemedy(err error, document string) string {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &authority):
		return "name the file of the authority that signed the server's certificate as caFile in " + document
	case errors.As(err, &name):
		return "have the server's certificate issued for this name, or correct the name in " + document
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the server's certificate; if it is valid, see \"clock\""
	}
	return "see the server's TLS settings and log"
}

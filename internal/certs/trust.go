package certs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// Names of the files that [Authority.WriteTrust] writes.
const (
	TrustCA         = "ca.pem"      // the node CA alone: PGSSLROOTCERT
	TrustBundle     = "bundle.pem"  // the system's authorities and the node CA: SSL_CERT_FILE
	TrustKnownHosts = "known_hosts" // for ssh, UserKnownHostsFile
)

// WriteTrust writes what clients verify the proxy with into a folder, for all
// to read. It is called at each start, so that a change of the system's
// authorities arrives.
func (a *Authority) WriteTrust(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("trust files: %w", err)
	}
	system, err := systemRoots()
	if err != nil {
		return fmt.Errorf("trust files: %w", err)
	}
	var bundle bytes.Buffer
	bundle.Write(system)
	if len(system) > 0 && system[len(system)-1] != '\n' {
		bundle.WriteByte('\n')
	}
	bundle.Write(a.pem)
	hosts := append([]byte("@cert-authority * "), ssh.MarshalAuthorizedKey(a.hostCA)...)
	for name, content := range map[string][]byte{TrustCA: a.pem, TrustBundle: bundle.Bytes(), TrustKnownHosts: hosts} {
		if err := replace(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("trust files: %w", err)
		}
	}
	return nil
}

// systemRoots reads the system's authorities from where the distributions
// keep them. A system without any is no error.
func systemRoots() ([]byte, error) {
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine
		"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
		"/etc/ssl/ca-bundle.pem",             // SUSE
	} {
		content, err := os.ReadFile(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return content, err
		}
	}
	return nil, nil
}

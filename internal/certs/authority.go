package certs

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/singleflight"
)

// Authority signs certificates in the node's name. Make one with [Open]. Safe
// for concurrent use.
type Authority struct {
	key     *ecdsa.PrivateKey
	cert    *x509.Certificate
	pem     []byte
	hostCA  ssh.PublicKey
	leaves  *lru.Cache[string, *tls.Certificate]
	signing singleflight.Group
	now     func() time.Time
}

const (
	caKeyFile   = "ca.key"
	caCertFile  = "ca.pem"
	caLifetime  = 10 * 365 * 24 * time.Hour
	cacheLeaves = 1024
	// clockSkew is how far behind ours a client's clock may be.
	clockSkew = 5 * time.Minute
)

// Open opens the authority in a folder, and makes it on first use: an ECDSA
// P-256 key (ca.key), a certificate of ten years that may sign leaves only
// (ca.pem), and a key for SSH hosts (ssh_host_ca). A key that others could
// read, or a certificate of another key, is refused.
func Open(dir string) (*Authority, error) {
	a, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("node CA: %w", err)
	}
	return a, nil
}

func open(dir string) (*Authority, error) {
	certPath := filepath.Join(dir, caCertFile)
	_, certErr := os.Lstat(certPath)
	_, keyErr := os.Lstat(filepath.Join(dir, caKeyFile))
	if certErr == nil && errors.Is(keyErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is there and its key %s is not: put the key back, or remove the certificate to begin anew (clients must then get the new one)", certPath, caKeyFile)
	}
	key, err := caKey(dir)
	if err != nil {
		return nil, err
	}
	content, err := caCert(certPath, key)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no PEM certificate", certPath)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s holds no readable certificate: %w", certPath, err)
	}
	if err := check(cert, key, time.Now()); err != nil {
		return nil, fmt.Errorf("%s: %w", certPath, err)
	}
	hostCA, err := sshHostCA(dir)
	if err != nil {
		return nil, err
	}
	leaves, err := lru.New[string, *tls.Certificate](cacheLeaves)
	if err != nil {
		return nil, err
	}
	return &Authority{
		key: key, cert: cert, pem: pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}),
		hostCA: hostCA.PublicKey(), leaves: leaves, now: time.Now,
	}, nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return a.pem }

// caCert reads the certificate, or signs it when only the key is there: that
// is the first start, or one that was cut short.
func caCert(path string, key *ecdsa.PrivateKey) ([]byte, error) {
	content, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return content, err
	}
	template, err := caTemplate(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	content = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	err = writeTemp(path, content, 0o644, os.Link)
	if errors.Is(err, fs.ErrExist) { // somebody else was first
		return os.ReadFile(path)
	}
	return content, err
}

// caTemplate names the authority after its key, so that authorities of
// several nodes can stand in one trust file.
func caTemplate(key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Chaperone"}, CommonName: fmt.Sprintf("Chaperone node CA %x", sha256.Sum256(public))[:34]},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, nil
}

func check(cert *x509.Certificate, key *ecdsa.PrivateKey, now time.Time) error {
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || !public.Equal(key.Public()):
		return fmt.Errorf("it is not the certificate of the key in %s: put the right pair back, or remove both to begin anew (clients must then get the new certificate)", caKeyFile)
	case !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("it is no CA certificate")
	case now.After(cert.NotAfter):
		return fmt.Errorf("it expired at %s: remove %s and %s to begin anew (clients must then get the new certificate)", cert.NotAfter.Format(time.RFC3339), caKeyFile, caCertFile)
	}
	return nil
}

func serialNumber() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

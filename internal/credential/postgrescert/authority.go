package postgrescert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/secretfile"
	"chaperone.dev/chaperone/pkg/policy"
)

// authority is what certificates are signed with.
type authority struct {
	certificate *x509.Certificate
	chain       [][]byte // itself and those above it, in DER
	key         crypto.Signer
}

// maxChain bounds the file of certificates, in bytes.
const maxChain = 1 << 20

func readAuthority(caFile, keyFile string) (*authority, error) {
	chain, err := readChain(caFile)
	if err != nil {
		return nil, fmt.Errorf("the authority's certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("the authority's certificate: %s: %w", caFile, err)
	}
	if !certificate.IsCA || certificate.KeyUsage != 0 && certificate.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("the authority's certificate: the first one of %s is not one that may sign others", caFile)
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, fmt.Errorf("the authority's key: %w", err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("the authority's key: %s is not the key of the certificate in %s", keyFile, caFile)
	}
	return &authority{certificate, chain, key}, nil
}

func readChain(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxChain))
	if err != nil {
		return nil, err
	}
	var chain [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return chain, nil
}

// readKey reads a private key in one of the forms that openssl writes. None of its
// errors quotes the file.
func readKey(path string) (crypto.Signer, error) {
	text, err := secretfile.Read(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, fmt.Errorf("%s is encrypted, and nobody is here to type a passphrase", path)
		default:
			continue // such as EC PARAMETERS
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, fmt.Errorf("%s holds no private key that can sign", path)
		}
		return signer, nil
	}
	return nil, fmt.Errorf("%s holds no private key in PEM", path)
}

// subject names the role, and for who reads the server's log or pg_stat_ssl, the job.
func subject(spec *policy.PostgresCertSpec, order credential.Order) pkix.Name {
	name := pkix.Name{CommonName: spec.CommonName}
	if name.CommonName == "" {
		name.CommonName = spec.User
	}
	if job := printable(order.JobName); job != "" {
		name.OrganizationalUnit = []string{job}
	}
	return name
}

// printable cuts a job's name to what a certificate may hold (RFC 5280,
// ub-organizational-unit-name).
func printable(name string) string {
	const most = 64
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '_'
		}
		return r
	}, name)
	return clean[:min(len(clean), most)]
}

// skew is by how much the server's clock may be behind.
const skew = time.Minute

// sign makes a key and a certificate for it. Neither lives longer than the
// authority's own.
func (a *authority) sign(name pkix.Name, now, until time.Time) (*tls.Certificate, error) {
	if a.certificate.NotAfter.Before(until) {
		until = a.certificate.NotAfter
	}
	if !until.After(now) {
		return nil, errors.New("the authority's certificate has expired")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: name, NotBefore: now.Add(-skew), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, a.chain...), PrivateKey: key, Leaf: leaf}, nil
}

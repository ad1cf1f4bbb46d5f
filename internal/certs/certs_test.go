package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"chaperone.dev/chaperone/internal/lab"
)

func mustOpen(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *Authority) verify(leaf *tls.Certificate, name string) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	_, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: a.now()})
	return err
}

func TestLeafProvesTheNamesItWasMadeFor(t *testing.T) {
	a := mustOpen(t, filepath.Join(t.TempDir(), "ca"))
	tests := []struct {
		name      string
		addresses []netip.Addr
		good      []string
	}{
		{"orders.db.internal", nil, []string{"orders.db.internal", "ORDERS.db.internal"}},
		{"Orders.DB.internal.", nil, []string{"orders.db.internal"}},
		{"my_service", nil, []string{"my_service"}},
		{"10.20.0.5", nil, []string{"10.20.0.5"}},
		{"fd00:20::5", nil, []string{"fd00:20::5"}},
		{"::ffff:10.20.0.5", nil, []string{"10.20.0.5"}},
		{"", []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}, []string{"fe80::1"}},
		{"db", []netip.Addr{netip.MustParseAddr("10.0.0.1")}, []string{"db", "10.0.0.1"}},
		{strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".internal", nil, []string{strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".internal"}},
	}
	for _, test := range tests {
		leaf, err := a.Leaf(test.name, test.addresses...)
		if err != nil {
			t.Errorf("%q: %v", test.name, err)
			continue
		}
		for _, name := range test.good {
			if err := a.verify(leaf, name); err != nil {
				t.Errorf("%q as %q: %v", test.name, name, err)
			}
		}
		for _, name := range []string{"evil.internal", "x.orders.db.internal", "10.20.0.6"} {
			if a.verify(leaf, name) == nil {
				t.Errorf("the certificate for %q does for %q", test.name, name)
			}
		}
		if life := time.Until(leaf.Leaf.NotAfter); life > 24*time.Hour {
			t.Errorf("%q lives for %v", test.name, life)
		}
	}
}

func TestLeafRefusesWhatIsNoHostName(t *testing.T) {
	a := mustOpen(t, t.TempDir())
	for _, name := range []string{
		"", ".", "a..b", "*.example.com", "-a.b", "a-.b", "a b", "a/b", "a\x00b", "bücher.example", "a\nb",
		strings.Repeat("a", 64) + ".b", strings.Repeat("a.", 130) + "b", "[::1]", "db:5432",
	} {
		if _, err := a.Leaf(name); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v, want ErrName", name, err)
		}
	}
	if _, err := a.Leaf("a", make([]netip.Addr, 100)...); err == nil {
		t.Error("a hundred addresses were accepted")
	}
	if _, err := a.Leaf("a", netip.Addr{}); err == nil {
		t.Error("a missing address was accepted")
	}
}

func FuzzLeafName(f *testing.F) {
	for _, s := range []string{"orders.db.internal", "10.0.0.1", "a..b", "*.x", "xn--bcher-kva.example", "fe80::1%x", "A_b"} {
		f.Add(s)
	}
	a, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string) {
		leaf, err := a.Leaf(name)
		if err != nil {
			return
		}
		// What was accepted is proved by the certificate, and nothing else.
		names := leaf.Leaf.DNSNames
		for _, ip := range leaf.Leaf.IPAddresses {
			names = append(names, ip.String())
		}
		if len(names) != 1 {
			t.Fatalf("%q gives %v", name, names)
		}
		if err := a.verify(leaf, names[0]); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if ip, err := netip.ParseAddr(name); err != nil && !strings.EqualFold(strings.TrimSuffix(name, "."), names[0]) {
			t.Errorf("%q gives %v", name, names)
		} else if err == nil && ip.Unmap().WithZone("").String() != netip.MustParseAddr(names[0]).Unmap().String() {
			t.Errorf("%q gives %v", name, names)
		}
	})
}

func TestLeafIsSharedAndRenewedInTime(t *testing.T) {
	a := mustOpen(t, t.TempDir())
	now := time.Now()
	a.now = func() time.Time { return now }
	leaves := make([]*tls.Certificate, 8)
	var all sync.WaitGroup
	for i := range leaves {
		all.Go(func() {
			leaf, err := a.Leaf("db")
			if err != nil {
				t.Error(err)
			}
			leaves[i] = leaf
		})
	}
	all.Wait()
	again, err := a.Leaf("DB.")
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range leaves {
		if leaf != again {
			t.Fatal("the same name got several certificates")
		}
	}
	now = now.Add(17 * time.Hour)
	renewed, err := a.Leaf("db")
	if err != nil {
		t.Fatal(err)
	}
	if renewed == again || renewed.Leaf.NotAfter.Sub(now) < 23*time.Hour {
		t.Error("a certificate with 7 hours left was handed out")
	}
	for i := range 2 * cacheLeaves {
		if _, err := a.Leaf("h" + strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := a.leaves.Len(); n > cacheLeaves {
		t.Errorf("%d certificates are kept", n)
	}
}

func TestAuthorityStaysTheSame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "ca")
	opened := make([]*Authority, 8) // all of them want to be first
	var all sync.WaitGroup
	for i := range opened {
		all.Go(func() {
			a, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			opened[i] = a
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	opened = append(opened, mustOpen(t, dir))
	for _, a := range opened {
		if !bytes.Equal(a.PEM(), opened[0].PEM()) || !bytes.Equal(a.hostCA.Marshal(), opened[0].hostCA.Marshal()) {
			t.Fatal("one folder gave two authorities")
		}
	}
	cert := opened[0].cert
	if !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero || cert.KeyUsage != x509.KeyUsageCertSign {
		t.Errorf("the CA certificate may do too much: %+v", cert)
	}
	for name, want := range map[string]os.FileMode{".": 0o700, "ca.key": 0o600, "ssh_host_ca": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v), want %o", name, info.Mode(), err, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("the folder holds %v (%v)", entries, err)
	}
	// A first start that was cut short left the key alone.
	if err := os.Remove(filepath.Join(dir, caCertFile)); err != nil {
		t.Fatal(err)
	}
	leaf, err := opened[0].Leaf("db")
	if err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, dir).verify(leaf, "db"); err != nil {
		t.Errorf("the certificate made anew doesn't fit: %v", err)
	}
}

func TestOpenRefusesKeysItCannotTrust(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(dir string) error
		want  string
	}{
		{"key that others read", func(dir string) error { return os.Chmod(filepath.Join(dir, "ca.key"), 0o640) }, "chmod 600"},
		{"SSH key that others read", func(dir string) error { return os.Chmod(filepath.Join(dir, "ssh_host_ca"), 0o604) }, "chmod 600"},
		{"folder that others write", func(dir string) error { return os.Chmod(dir, 0o777) }, "chmod 700"},
		{"key of another", func(dir string) error { return os.Chown(filepath.Join(dir, "ca.key"), 12345, -1) }, "belongs to uid 12345"},
		{"key lost", func(dir string) error { return os.Remove(filepath.Join(dir, "ca.key")) }, "put the key back"},
		{"another key", func(dir string) error {
			if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
				return err
			}
			_, err := caKey(dir)
			return err
		}, "not the certificate of the key"},
		{"key of another kind", func(dir string) error {
			if _, err := NodeKey(dir); err != nil {
				return err
			}
			return os.Rename(filepath.Join(dir, "node.key"), filepath.Join(dir, "ca.key"))
		}, "no ECDSA key"},
		{"key half written", func(dir string) error { return os.Truncate(filepath.Join(dir, "ca.key"), 40) }, "no PEM private key"},
		{"certificate empty", func(dir string) error { return os.Truncate(filepath.Join(dir, "ca.pem"), 0) }, "no PEM certificate"},
		{"key behind a link", func(dir string) error {
			path := filepath.Join(dir, "ca.key")
			return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path))
		}, "key file"},
		{"leaf for a CA", func(dir string) error {
			a, err := Open(dir)
			if err != nil {
				return err
			}
			leaf, err := a.Leaf("db")
			if err != nil {
				return err
			}
			der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey.(*ecdsa.PrivateKey))
			if err != nil {
				return err
			}
			return errors.Join(
				os.WriteFile(filepath.Join(dir, "ca.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
				os.WriteFile(filepath.Join(dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}), 0o600))
		}, "no CA certificate"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			mustOpen(t, dir)
			if err := test.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want it to say %q", err, test.want)
			}
		})
	}
}

func TestNodeKeyStaysTheSameAndSigns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	first, err := NodeKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := NodeKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Equal(second) || !ed25519.Verify(first.Public().(ed25519.PublicKey), []byte("m"), ed25519.Sign(second, []byte("m"))) {
		t.Error("the second key is another one")
	}
	if err := os.Chmod(filepath.Join(dir, "node.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := NodeKey(dir); err == nil {
		t.Error("a key that all may read was accepted")
	}
}

// The clients themselves: psql with verify-full, OpenSSL at its strictest,
// and OpenSSH's way of trusting hosts.
func TestRealClientsTrustIt(t *testing.T) {
	dir, trust := filepath.Join(t.TempDir(), "ca"), filepath.Join(t.TempDir(), "trust")
	a := mustOpen(t, dir)
	for range 2 { // each start writes them again
		if err := a.WriteTrust(trust); err != nil {
			t.Fatal(err)
		}
	}
	leaf, err := a.Leaf("localhost", netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	pair := &lab.KeyPair{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
	pg, err := lab.StartPostgres(t.Context(), lab.PostgresOptions{TLS: pair})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, test := range []struct {
		host, roots string
		want        bool
	}{
		{"localhost", TrustCA, true}, {"localhost", TrustBundle, true}, {"127.0.0.1", TrustCA, true}, {"localhost", "", false},
	} {
		roots := "/etc/ssl/certs/ca-certificates.crt"
		if test.roots != "" {
			roots = filepath.Join(trust, test.roots)
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(pg.BinDir(), "psql"), "-w", "-At", "-c", "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
			"host="+test.host+" port="+strconv.Itoa(pg.Port())+" user=postgres dbname=postgres sslmode=verify-full sslrootcert="+roots)
		cmd.Env = []string{"PGPASSWORD=" + pg.Password()}
		out, err := cmd.CombinedOutput()
		if ok := err == nil && string(out) == "t\n"; ok != test.want {
			t.Errorf("psql to %s with %s: %v\n%s", test.host, roots, err, out)
		}
	}

	leafFile := filepath.Join(t.TempDir(), "leaf.pem")
	if err := os.WriteFile(leafFile, pair.CertPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost",
		"-CAfile", filepath.Join(trust, TrustCA), leafFile).CombinedOutput()
	if err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}

	for _, name := range []string{TrustCA, TrustBundle, TrustKnownHosts} {
		if info, err := os.Stat(filepath.Join(trust, name)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s has mode %v (%v)", name, info.Mode(), err)
		}
	}
}

func TestKnownHostsTrustsHostsOfTheAuthorityAlone(t *testing.T) {
	dir, trust := t.TempDir(), t.TempDir()
	a := mustOpen(t, dir)
	if err := a.WriteTrust(trust); err != nil {
		t.Fatal(err)
	}
	ours, err := sshHostCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := sshHostCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	callback, err := knownhosts.New(filepath.Join(trust, TrustKnownHosts))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		signer ssh.Signer
		want   bool
	}{{ours, true}, {theirs, false}} {
		public, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		host, err := ssh.NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		cert := &ssh.Certificate{Key: host, CertType: ssh.HostCert, ValidPrincipals: []string{"git.internal"}, ValidBefore: ssh.CertTimeInfinity}
		if err := cert.SignCert(rand.Reader, test.signer); err != nil {
			t.Fatal(err)
		}
		err = callback("git.internal:22", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 22}, cert)
		if (err == nil) != test.want {
			t.Errorf("%v, want trust %v", err, test.want)
		}
	}
}

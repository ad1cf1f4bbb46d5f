package postgrescert_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgrescert"
	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/pkg/policy"
)

// files are an authority on disk.
type files struct {
	*lab.CA
	ca, key string
}

func newAuthority(t *testing.T) files {
	t.Helper()
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	return files{ca, file(t, ca.PEM()), file(t, key)}
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (f files) order(ttl time.Duration) credential.Order {
	return credential.Order{
		Grant: "01-grant", Job: "job-7", JobName: "nightly", Node: "n1",
		Target: &policy.Target{Metadata: policy.Metadata{Name: "shop-db"}, Spec: policy.TargetSpec{Credential: policy.CredentialSpec{
			PostgresCert: &policy.PostgresCertSpec{User: "app", CAFile: f.ca, KeyFile: f.key, TTL: policy.Duration(ttl)},
		}}},
	}
}

func refresh(t *testing.T, o credential.Order, deadline time.Time, present credential.Secret) credential.Secret {
	t.Helper()
	secret, err := postgrescert.Issuer{}.Refresh(o, deadline, present)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestACertificateIsForTheRoleAndForMinutes(t *testing.T) {
	authority := newAuthority(t)
	o := authority.order(2 * time.Minute)
	o.JobName = "nightly\n" + strings.Repeat("ü", 60)
	began := time.Now()
	secret := refresh(t, o, time.Time{}, credential.Secret{})
	leaf := secret.Certificate().Leaf
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: authority.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: authority.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("it is good for a server")
	}
	ou := strings.Join(leaf.Subject.OrganizationalUnit, "")
	if leaf.Subject.CommonName != "app" || !strings.HasPrefix(ou, "nightly_") || len(ou) > 64 || leaf.IsCA {
		t.Errorf("it is for %q, an authority: %t", leaf.Subject, leaf.IsCA)
	}
	if end := leaf.NotAfter; end.Before(began.Add(time.Minute)) || end.After(time.Now().Add(2*time.Minute)) {
		t.Errorf("it is good until %s", end)
	}
	if text := secret.String(); text != "[secret]" {
		t.Errorf("it prints as %s", text)
	}
}

func TestACertificateIsRenewedWhenItIsNearItsEnd(t *testing.T) {
	authority := newAuthority(t)
	o := authority.order(time.Hour)
	first := refresh(t, o, time.Time{}, credential.Secret{})
	if again := refresh(t, o, time.Time{}, first); again != first {
		t.Error("a certificate that is good was made anew")
	}
	short := refresh(t, authority.order(time.Minute), time.Time{}, credential.Secret{})
	if again := refresh(t, o, time.Time{}, short); again == short {
		t.Error("a certificate with less than half of its life left is used on")
	}
	// Never beyond the end of what the job may.
	deadline := time.Now().Add(10 * time.Minute)
	if end := refresh(t, o, deadline, credential.Secret{}).Certificate().Leaf.NotAfter; end.After(deadline) {
		t.Errorf("it is good until %s, beyond %s", end, deadline)
	}
	_, err := postgrescert.Issuer{}.Refresh(o, time.Now().Add(-time.Second), credential.Secret{})
	if !errors.Is(err, credential.ErrExpired) {
		t.Errorf("after the deadline: %v", err)
	}
}

func TestAnAuthorityThatCantSignIsRefused(t *testing.T) {
	authority, other := newAuthority(t), newAuthority(t)
	leaf, err := authority.Issue("db.example")
	if err != nil {
		t.Fatal(err)
	}
	open := file(t, []byte("x"))
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")})
	tests := []struct{ name, ca, key, want string }{
		{"no certificate", "/nonexistent", authority.key, "the authority's certificate: open /nonexistent"},
		{"no PEM", file(t, []byte("no certificate")), authority.key, "holds no certificate in PEM"},
		{"no authority's", file(t, leaf.CertPEM), file(t, leaf.KeyPEM), "is not one that may sign others"},
		{"no key", authority.ca, "/nonexistent", "the authority's key: open /nonexistent"},
		{"a key for all to read", authority.ca, open, "has mode 0644, which lets others at it"},
		{"another's key", authority.ca, other.key, "is not the key of the certificate in"},
		{"an encrypted key", authority.ca, file(t, encrypted), "is encrypted, and nobody is here to type a passphrase"},
		{"a broken key", authority.ca, file(t, bytes.Replace(encrypted, []byte("ENCRYPTED PRIVATE"), []byte("PRIVATE"), 2)), "holds no private key that can sign"},
		{"a certificate for a key", authority.ca, file(t, authority.PEM()), "holds no private key in PEM"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := files{ca: test.ca, key: test.key}.order(time.Minute)
			_, err := postgrescert.Issuer{}.Issue(t.Context(), credential.Entry{}, o)
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, credential.ErrNotMade) {
				t.Errorf("got %v, want an error that says %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the key is in %v", err)
			}
		})
	}
}

// Keys are read in each form that openssl writes.
func TestEachFormOfKeyIsRead(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22}})
	self := func(public, private any) []byte {
		template := &x509.Certificate{SerialNumber: rsaKey.N, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
		template.SerialNumber.SetInt64(7)
		der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	ecCA := self(ecKey.Public(), ecKey)
	key := append(parameters, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...)
	refresh(t, files{ca: file(t, ecCA), key: file(t, key)}.order(time.Minute), time.Time{}, credential.Secret{})

	rsaKey, err = rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: ecKey.X, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Minute)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, rsaKey.Public(), rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	secret := refresh(t, files{ca: file(t, ca), key: file(t, key)}.order(time.Hour), time.Time{}, credential.Secret{})
	if end := secret.Certificate().Leaf.NotAfter; end.After(time.Now().Add(time.Minute)) {
		t.Errorf("it outlives its authority: %s", end)
	}
}

// The server lets the job in under another name where its map says so, and ends what
// the job had open, and nothing else.
func TestCertificatesAtARealServer(t *testing.T) {
	authority := newAuthority(t)
	pair, err := authority.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "chaperone-ident-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ident := filepath.Join(dir, "pg_ident.conf")
	if err := os.Chmod(dir, 0o755); err != nil { // the server runs as another user
		t.Fatal(err)
	}
	if err := os.WriteFile(ident, []byte("jobs app@jobs app\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	server, err := lab.StartPostgres(t.Context(), lab.PostgresOptions{
		TLS: pair, ClientCA: authority.PEM(), HBA: []string{"hostssl all app all cert map=jobs", "host all all all scram-sha-256"},
		Config: map[string]string{"ident_file": ident},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop(context.Background())
	if err := server.Exec(t.Context(), "postgres", "CREATE ROLE app LOGIN", "CREATE ROLE reaper LOGIN PASSWORD 'reaper' IN ROLE pg_signal_backend"); err != nil {
		t.Fatal(err)
	}
	o := authority.order(time.Minute)
	spec := o.Target.Spec.Credential.PostgresCert
	spec.CommonName, spec.AdminFrom = "app@jobs", &policy.SecretSource{File: file(t, []byte(server.DSN("postgres", "reaper", "reaper")))}
	plan, err := postgrescert.Issuer{}.Plan(o)
	if err != nil {
		t.Fatal(err)
	}
	certificate := refresh(t, o, time.Time{}, credential.Secret{}).Certificate()
	open := func() (*pgx.Conn, credential.Backend) {
		config, err := pgx.ParseConfig(server.DSN("postgres", "app", ""))
		if err != nil {
			t.Fatal(err)
		}
		config.TLSConfig = &tls.Config{RootCAs: authority.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{*certificate}}
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		var b credential.Backend
		if err := conn.QueryRow(t.Context(), "SELECT pg_backend_pid(), inet_client_port()").Scan(&b.Process, &b.Port); err != nil {
			t.Fatal(err)
		}
		return conn, b
	}
	first, mine := open()
	second, others := open()
	defer second.Close(context.Background())
	entry := credential.Entry{ID: "01-grant", Account: plan.Account, Backends: []credential.Backend{mine, {Process: others.Process, Port: 1}}}
	// Who may not see the ports can't know whose the sessions are.
	err = postgrescert.Issuer{}.Revoke(t.Context(), entry)
	if err == nil || !strings.Contains(err.Error(), "grant it pg_read_all_stats") {
		t.Fatalf("got %v", err)
	}
	if err := first.Ping(t.Context()); err != nil {
		t.Errorf("a session was ended that the administrator couldn't tell apart: %v", err)
	}
	if err := server.Exec(t.Context(), "postgres", "GRANT pg_read_all_stats TO reaper"); err != nil {
		t.Fatal(err)
	}
	if err := (postgrescert.Issuer{}).Revoke(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	if err := first.Ping(t.Context()); err == nil {
		t.Error("the job's session goes on")
	}
	if err := second.Ping(t.Context()); err != nil {
		t.Errorf("another's session, with a process id that the job's had, was ended: %v", err)
	}
	if err := (postgrescert.Issuer{}).Revoke(t.Context(), entry); err != nil {
		t.Errorf("again: %v", err)
	}
}

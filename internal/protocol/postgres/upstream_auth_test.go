package postgres_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgrescert"
	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/policy"
)

// clientCertificate is one of an authority for a role.
func clientCertificate(t *testing.T, ca *lab.CA, role string) *tls.Certificate {
	t.Helper()
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"ca.pem": ca.PEM(), "ca.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	order := credential.Order{JobName: "nightly", Target: &policy.Target{Spec: policy.TargetSpec{Credential: policy.CredentialSpec{
		PostgresCert: &policy.PostgresCertSpec{User: role, CAFile: filepath.Join(dir, "ca.pem"), KeyFile: filepath.Join(dir, "ca.key")},
	}}}}
	secret, err := postgrescert.Issuer{}.Refresh(order, time.Time{}, credential.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	return secret.Certificate()
}

func TestUpstreamProvesItself(t *testing.T) {
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server, err := lab.StartPostgres(t.Context(), lab.PostgresOptions{TLS: pair, ClientCA: ca.PEM(), HBA: []string{
		"hostssl all by_cert all cert", "hostssl all by_both all scram-sha-256 clientcert=verify-full",
		"host all by_md5 all md5", "host all by_clear all password", "host all by_trust all trust", "host all all all scram-sha-256",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	statements := []string{"SET password_encryption = 'md5'", "CREATE ROLE by_md5 LOGIN PASSWORD 'word'", "RESET password_encryption"}
	for _, role := range []string{"by_cert", "by_both", "by_clear", "by_trust", "by_scram"} {
		statements = append(statements, "CREATE ROLE "+role+" LOGIN PASSWORD 'word'")
	}
	if err := server.Exec(t.Context(), "postgres", statements...); err != nil {
		t.Fatal(err)
	}
	other, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	const stored, minted = true, false
	tests := []struct {
		name, role string
		stored     bool
		plain      bool   // no TLS
		certify    string // the common name of a client certificate
		ca         *lab.CA
		refused    string // what the client is told; empty: it is let in
	}{
		{"SCRAM", "by_scram", minted, false, "", nil, ""},
		{"SCRAM without TLS", "by_scram", minted, true, "", nil, ""},
		{"a stored password by SCRAM", "by_scram", stored, false, "", nil, ""},
		{"a stored password by MD5", "by_md5", stored, false, "", nil, ""},
		{"a stored password by MD5 without TLS", "by_md5", stored, true, "", nil, ""},
		{"a stored password in clear text", "by_clear", stored, false, "", nil, ""},
		{"a stored password in clear text without TLS", "by_clear", stored, true, "", nil, "which a password isn't sent for without TLS"},
		{"a minted password by MD5", "by_md5", minted, false, "", nil, "other than SCRAM-SHA-256"},
		{"a minted password in clear text", "by_clear", minted, false, "", nil, "other than SCRAM-SHA-256"},
		{"a certificate", "by_cert", minted, false, "by_cert", ca, ""},
		{"a certificate of another name", "by_cert", minted, false, "by_scram", ca, "refused the account"},
		{"a certificate of another authority", "by_cert", minted, false, "by_cert", other, "refused the client certificate that was made for this job"},
		{"a certificate where a password is asked for, too", "by_both", minted, false, "by_both", ca, "asks for a password as well"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			options := postgres.UpstreamOptions{
				Dial: func(ctx context.Context) (net.Conn, error) {
					var d net.Dialer
					return d.DialContext(ctx, "tcp", server.Addr())
				},
				TLS:  &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"},
				User: test.role, Password: "word", Stored: test.stored, Database: "postgres",
			}
			if test.plain {
				options.TLS = nil
			}
			if test.certify != "" {
				options.Certificate, options.Password = clientCertificate(t, test.ca, test.certify), ""
			}
			upstream, err := postgres.Connect(t.Context(), options)
			if test.refused != "" {
				var refusal *postgres.Refusal
				if !errors.As(err, &refusal) || !strings.Contains(refusal.Message, test.refused) || !strings.HasPrefix(refusal.SQLState, "28") {
					t.Fatalf("got %v (%v), want a refusal that says %q", err, errors.Unwrap(err), test.refused)
				}
				if strings.Contains(err.Error(), "word") && !strings.Contains(test.refused, "word") {
					t.Errorf("the password is in %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer upstream.Close()
			admin, err := pgx.Connect(t.Context(), server.AdminDSN("postgres"))
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close(t.Context())
			process, port := upstream.Backend()
			var dn string
			err = admin.QueryRow(t.Context(), `SELECT coalesce(s.client_dn, '') FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
				WHERE pid = $1 AND client_port = $2 AND usename = $3`, process, port, test.role).Scan(&dn)
			if err != nil {
				t.Fatalf("the server knows no such session: %v", err)
			}
			if test.certify != "" && (!strings.Contains(dn, "CN="+test.role) || !strings.Contains(dn, "OU=nightly")) {
				t.Errorf("the server sees the certificate of %q", dn)
			}
			if err := upstream.Cancel(t.Context()); err != nil {
				t.Errorf("a cancel request: %v", err)
			}
			own, err := postgres.ConnectOwn(t.Context(), options)
			if err != nil {
				t.Fatalf("a connection of the daemon's own: %v", err)
			}
			own.Close(t.Context())
		})
	}

	t.Run("a certificate that nobody asks for", func(t *testing.T) {
		lax, err := lab.StartPostgres(t.Context(), lab.PostgresOptions{TLS: pair, HBA: []string{"host all all all trust"}})
		if err != nil {
			t.Fatal(err)
		}
		defer lax.Stop(context.Background())
		_, err = postgres.Connect(t.Context(), postgres.UpstreamOptions{
			Dial: func(ctx context.Context) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", lax.Addr())
			},
			TLS:  &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"},
			User: "postgres", Database: "postgres", Certificate: clientCertificate(t, ca, "postgres"),
		})
		if err == nil || !strings.Contains(err.Error(), "without asking for its certificate") {
			t.Errorf("got %v", err)
		}
	})
}

package credential_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/credential"
	"chaperone.dev/chaperone/internal/credential/postgrescert"
	"chaperone.dev/chaperone/internal/credential/postgressecret"
	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// offline is a manager of credentials that need no server.
func offline(t *testing.T) (b *bench, m *credential.Manager) {
	t.Helper()
	b = &bench{
		ledger: filepath.Join(t.TempDir(), "ledger.db"),
		issued: make(chan event.CredentialIssued, 100), revoked: make(chan event.CredentialRevoked, 100),
	}
	options := b.options()
	options.Issuers = []credential.Issuer{postgrescert.Issuer{}, postgressecret.Issuer{}}
	return b, b.open(t, options)
}

func (b *bench) with(job string, spec policy.CredentialSpec) credential.Request {
	r := b.request(job)
	r.Target.Spec.Credential = spec
	return r
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAJobHasOneCertificateUntilItIsNearItsEnd(t *testing.T) {
	b, m := offline(t)
	ca, err := lab.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	r := b.with("j1", policy.CredentialSpec{PostgresCert: &policy.PostgresCertSpec{
		User: "app", TTL: policy.Duration(2 * time.Second),
		CAFile: write(t, filepath.Join(t.TempDir(), "ca.pem"), string(ca.PEM())), KeyFile: write(t, filepath.Join(t.TempDir(), "ca.key"), string(key)),
	}})
	first, second := mustFor(t, m, r), mustFor(t, m, r)
	if first.Secret != second.Secret || !second.Cached || first.Name != "app" {
		t.Errorf("one job got %+v and %+v", first, second)
	}
	other := b.with("j2", r.Target.Spec.Credential)
	if mustFor(t, m, other).Secret == first.Secret {
		t.Error("two jobs share a certificate")
	}
	// The session of before gets a new one for connections that it opens later.
	for end := first.Secret.Certificate().Leaf.NotAfter; ; {
		fresh, err := first.Fresh()
		if err != nil {
			t.Fatal(err)
		}
		if fresh.Certificate().Leaf.NotAfter.After(end) {
			break
		}
	}
	if err := m.EndJob(t.Context(), "j1", credential.WhyJobEnded); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Fresh(); !errors.Is(err, credential.ErrJobEnded) {
		t.Errorf("after its end the job is given a certificate, or told %v", err)
	}
	if e := next(t, b.revoked); e.Grant != first.ID || e.Issuer != "postgresCert" || !e.Verified {
		t.Errorf("told %+v", e)
	}
}

func TestAStoredSecretIsReadAnew(t *testing.T) {
	b, m := offline(t)
	path := write(t, filepath.Join(t.TempDir(), "password"), "one\n")
	r := b.with("j1", policy.CredentialSpec{PostgresSecret: &policy.PostgresSecretSpec{User: "app", PasswordFrom: policy.SecretSource{File: path}}})
	g := mustFor(t, m, r)
	if g.Name != "app" || g.Secret.Reveal() != "one" {
		t.Errorf("got %s with %s", g.Name, g.Secret.Reveal())
	}
	write(t, path, "two")
	if again := mustFor(t, m, r); again.ID != g.ID || again.Secret.Reveal() != "two" {
		t.Errorf("got %s", again.Secret.Reveal())
	}
	if fresh, err := g.Fresh(); err != nil || fresh.Reveal() != "two" {
		t.Errorf("an open session gets %s, %v", fresh.Reveal(), err)
	}
	// A file that isn't there at the moment is told, and no end of the grant.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := m.For(t.Context(), r); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	write(t, path, "three")
	if again := mustFor(t, m, r); again.ID != g.ID || again.Secret.Reveal() != "three" {
		t.Errorf("got %s", again.Secret.Reveal())
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := b.left(t); len(left) != 0 {
		t.Errorf("the ledger still holds %+v", left)
	}
}

package identity

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/pkg/policy"
)

func account(t *testing.T, id, secret string, mode os.FileMode) policy.ClientCredentialsSpec {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return policy.ClientCredentialsSpec{
		ClientID: id, ClientSecretFrom: policy.SecretSource{File: file}, Scopes: []string{"openid", "groups"},
	}
}

func TestServiceAccount(t *testing.T) {
	w := newWorld(t)
	v := open(t, w.document())
	token, err := v.ServiceAccount(account(t, "nightly", "robot", 0o640)).Token(t.Context(), "chaperone")
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Verify(t.Context(), token, "chaperone")
	if err != nil || got.Subject != "nightly" || !slices.Equal(got.Groups, []string{"planners"}) || got.Expires.Before(time.Now()) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := v.Verify(t.Context(), token, "billing"); !errors.Is(err, ErrToken) {
		t.Errorf("for another audience: %v", err)
	}
}

func TestServiceAccountIsRefused(t *testing.T) {
	w := newWorld(t)
	for name, test := range map[string]struct {
		spec policy.ClientCredentialsSpec
		want string
	}{
		"wrong secret":            {account(t, "nightly", "wrong-secret", 0o600), "invalid_client"},
		"unknown":                 {account(t, "nobody", "robot", 0o600), "invalid_client"},
		"not for this grant":      {account(t, "console", "s3cret", 0o600), "unauthorized_client"},
		"secret that others read": {account(t, "nightly", "robot", 0o644), "chmod 600"},
		"no secret": {policy.ClientCredentialsSpec{ClientID: "nightly", ClientSecretFrom: policy.SecretSource{File: "/nonexistent"}},
			"no such file"},
		"empty secret": {account(t, "nightly", "", 0o600), "one line"},
	} {
		t.Run(name, func(t *testing.T) {
			v := open(t, w.document())
			token, err := v.ServiceAccount(test.spec).Token(t.Context(), "chaperone")
			if token != "" || !errors.Is(err, ErrAccount) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%q, %v; want %q", token, err, test.want)
			}
			if strings.Contains(err.Error(), "wrong-secret") {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

func TestServiceAccountOfAnIssuerThatIsDown(t *testing.T) {
	w := newWorld(t)
	w.Stop()
	v, hands := openWithHands(t, w.document())
	a := v.ServiceAccount(account(t, "nightly", "robot", 0o600))
	if _, err := a.Token(t.Context(), ""); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	if err := w.Resume(); err != nil {
		t.Fatal(err)
	}
	hands.pass(pauseAfterFailure + time.Second)
	if _, err := a.Token(t.Context(), ""); err != nil {
		t.Fatalf("the issuer is up again: %v", err)
	}
	// Down again, with its metadata known.
	w.Stop()
	asked := watch(v)
	for range 3 {
		if _, err := a.Token(t.Context(), ""); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
	}
	if n := asked.times("/oauth/token"); n > 2 { // the library tries both ways of sending the secret
		t.Errorf("the issuer that is down was asked %d times", n)
	}
}

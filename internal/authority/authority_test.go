package authority_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"chaperone.dev/chaperone/internal/authority"
)

type word struct {
	Text string `json:"text"`
}

func signer(t testing.TB) *authority.Signer {
	t.Helper()
	s, err := authority.OpenSigner(filepath.Join(t.TempDir(), "authority"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerify(t *testing.T) {
	s, other := signer(t), signer(t)
	keys := authority.Keys{other.Public(), s.Public()}
	good, err := s.Sign("vote", word{"<yes> & \u2028"})
	if err != nil {
		t.Fatal(err)
	}
	// Sent and stored as JSON it stays what was signed.
	sent, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	var back authority.Signed
	if err := json.Unmarshal(sent, &back); err != nil {
		t.Fatal(err)
	}
	var got word
	if err := keys.Verify("vote", back, &got); err != nil || got.Text != "<yes> & \u2028" {
		t.Fatalf("%+v, %v", got, err)
	}
	signed := func(s *authority.Signer, kind string, payload any) authority.Signed {
		t.Helper()
		v, err := s.Sign(kind, payload)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, c := range map[string]struct {
		keys   authority.Keys
		signed authority.Signed
	}{
		"no keys":             {nil, good},
		"another's key":       {authority.Keys{other.Public()}, good},
		"another kind":        {keys, signed(s, "lock", word{"yes"})},
		"a kind that ends so": {keys, signed(s, "vote/v1\x00", word{"yes"})},
		"another payload":     {keys, authority.Signed{Payload: json.RawMessage(`{"text":"no"}`), Key: good.Key, Signature: good.Signature}},
		"another key's name":  {keys, authority.Signed{Payload: good.Payload, Key: authority.KeyID(other.Public()), Signature: good.Signature}},
		"no signature":        {keys, authority.Signed{Payload: good.Payload, Key: good.Key}},
		"a long signature":    {keys, authority.Signed{Payload: good.Payload, Key: good.Key, Signature: append(good.Signature[:64:64], 0)}},
		"nothing":             {keys, authority.Signed{}},
	} {
		if err := c.keys.Verify("vote", c.signed, &got); !errors.Is(err, authority.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is signed and not understood is not acted on.
	for name, payload := range map[string]any{"an unknown field": map[string]any{"text": "yes", "unless": "no"}, "a list": []int{1}, "a text": "yes"} {
		if err := keys.Verify("vote", signed(s, "vote", payload), &got); err == nil || errors.Is(err, authority.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseKeys(t *testing.T) {
	text := base64.StdEncoding.EncodeToString(signer(t).Public())
	if keys, err := authority.ParseKeys([]string{text}); err != nil || len(keys) != 1 {
		t.Errorf("%v, %v", keys, err)
	}
	for _, bad := range []string{"", "x", text[:20], base64.StdEncoding.EncodeToString(make([]byte, ed25519.PrivateKeySize))} {
		if _, err := authority.ParseKeys([]string{text, bad}); err == nil || !strings.Contains(err.Error(), "base64") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// The key is made once, and is its owner's alone.
func TestOpenSigner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	ids := make(chan string, 8)
	var all sync.WaitGroup
	for range cap(ids) {
		all.Go(func() {
			s, err := authority.OpenSigner(dir)
			if err != nil {
				t.Error(err)
				return
			}
			ids <- authority.KeyID(s.Public())
		})
	}
	all.Wait()
	close(ids)
	first := <-ids
	for id := range ids {
		if id != first {
			t.Errorf("keys %s and %s", first, id)
		}
	}
	path := filepath.Join(dir, authority.KeyFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOpenSignerRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir, path string) error
		want  string
	}{
		"a key that others read": {func(_, path string) error { return os.Chmod(path, 0o640) }, "chmod 600"},
		"a folder others write":  {func(dir, _ string) error { return os.Chmod(dir, 0o777) }, "chmod 700"},
		"a link":                 {func(_, path string) error { return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)) }, "symbolic links"},
		"no regular file":        {func(_, path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "no regular file"},
		"an empty file":          {func(_, path string) error { return os.WriteFile(path, nil, 0o600) }, "no PEM private key"},
		"another file": {func(_, path string) error {
			return os.WriteFile(path, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600)
		}, "no readable private key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "authority")
			if _, err := authority.OpenSigner(dir); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(dir, filepath.Join(dir, authority.KeyFile)); err != nil {
				t.Fatal(err)
			}
			if _, err := authority.OpenSigner(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestNewSigner(t *testing.T) {
	if _, err := authority.NewSigner(make([]byte, 32)); err == nil {
		t.Error("32 bytes are taken for a private key")
	}
}

// Nothing that somebody makes up verifies.
func FuzzVerify(f *testing.F) {
	s := signer(f)
	good, err := s.Sign("vote", word{"yes"})
	if err != nil {
		f.Fatal(err)
	}
	value, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add([]byte("null"))
	f.Add([]byte(`{"payload":{"text":"no"},"key":"` + good.Key + `"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		var in authority.Signed
		if json.Unmarshal(value, &in) != nil {
			return
		}
		var got word
		if err := (authority.Keys{s.Public()}).Verify("vote", in, &got); err == nil && string(in.Payload) != string(good.Payload) {
			t.Errorf("%q verifies", value)
		}
	})
}

package authority_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"testing"

	"chaperone.dev/chaperone/internal/authority"
)

// A payload is one value, whoever signed it.
func TestVerifyTakesOneValue(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for payload, want := range map[string]bool{
		`{"text":"yes"}`:              true,
		" {\"text\":\"yes\"}\n\t ":    true,
		`{"text":"yes"}{"text":"no"}`: false,
		"{\"text\":\"yes\"}\nnull":    false,
		`{"text":"yes"}x`:             false,
		`{"text":"yes"},`:             false,
		`{"text":"yes"}}`:             false,
		`{"text":"yes"}]`:             false,
		"{\"text\":\"yes\"}\x00":      false,
		`{"text":"yes"`:               false,
		"":                            false,
	} {
		signed := authority.Signed{
			Payload: json.RawMessage(payload), Key: authority.KeyID(public),
			Signature: ed25519.Sign(key, []byte("chaperone.dev/vote/v1\x00"+payload)),
		}
		var got word
		err := authority.Keys{public}.Verify("vote", signed, &got)
		if (err == nil) != want || errors.Is(err, authority.ErrSignature) {
			t.Errorf("%q: %+v, %v", payload, got, err)
		}
	}
}

// Package authority signs what people decided, and verifies it: votes on
// requests for approval, locks, published documents. The key is the sink's;
// nodes know its public half. What is signed says of itself what kind it is,
// so that a signature of one kind never serves for another.
package authority

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrSignature is wrapped by what [Keys.Verify] refuses.
var ErrSignature = errors.New("not signed by the authority")

// Signed is a payload and its signature, as it is stored and sent.
type Signed struct {
	Payload   json.RawMessage `json:"payload"`
	Key       string          `json:"key"`       // [KeyID] of the key that signed
	Signature []byte          `json:"signature"` // Ed25519 (RFC 8032) over the kind and the payload's bytes
}

// Signer signs. Safe for concurrent use.
type Signer struct{ key ed25519.PrivateKey }

// NewSigner returns a signer with the key.
func NewSigner(key ed25519.PrivateKey) (*Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("authority: the key has %d bytes, an Ed25519 private key has %d", len(key), ed25519.PrivateKeySize)
	}
	return &Signer{key}, nil
}

// Public is the key that verifies what the signer signs.
func (s *Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// Sign signs the payload's JSON as what kind it is.
func (s *Signer) Sign(kind string, payload any) (Signed, error) {
	body, err := json.Marshal(payload)
	if err != nil {
		return Signed{}, fmt.Errorf("signing a %s: %w", kind, err)
	}
	return Signed{Payload: body, Key: KeyID(s.Public()), Signature: ed25519.Sign(s.key, message(kind, body))}, nil
}

// Keys are those whose signatures count. The zero value takes none.
type Keys []ed25519.PublicKey

// ParseKeys reads keys in base64.
func ParseKeys(texts []string) (Keys, error) {
	var keys Keys
	for _, text := range texts {
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%q is no Ed25519 public key in base64 (%d bytes)", text, ed25519.PublicKeySize)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Verify checks that one of the keys signed the payload as what kind it is,
// and decodes it into the value. It refuses fields that the value doesn't
// have: what is not understood is not acted on.
func (k Keys) Verify(kind string, s Signed, into any) error {
	for _, key := range k {
		if KeyID(key) != s.Key || !ed25519.Verify(key, message(kind, s.Payload), s.Signature) {
			continue
		}
		decoder := json.NewDecoder(bytes.NewReader(s.Payload))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(into); err != nil {
			return fmt.Errorf("a signed %s can't be read: %w", kind, err)
		}
		if _, err := decoder.Token(); !errors.Is(err, io.EOF) { // More would not see a stray bracket
			return fmt.Errorf("a signed %s holds more than one value", kind)
		}
		return nil
	}
	return fmt.Errorf("a %s: %w", kind, ErrSignature)
}

// KeyID names a key: the first 16 hex digits of its SHA-256.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// message is what is signed. The kind can't hold the byte that ends it.
func message(kind string, payload []byte) []byte {
	return append([]byte("chaperone.dev/"+kind+"/v1\x00"), payload...)
}

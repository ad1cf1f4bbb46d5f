package idp

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"sync"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	keyBits       = 2048
	keyAlgorithm  = jose.RS256
	maxPublished  = 64 // keys, lest a caller that rotates for ever fills the memory
	keyUseSigning = "sig"
)

// keyRing holds the signing keys, the current one last.
type keyRing struct {
	mu        sync.Mutex
	published []signingKey
}

func newKeyRing() (*keyRing, error) {
	r := &keyRing{}
	return r, r.rotate()
}

func (r *keyRing) rotate() error {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.published) == maxPublished {
		return fmt.Errorf("%d signing keys are published already: withdraw the old ones first", maxPublished)
	}
	r.published = append(r.published, signingKey{id: rand.Text(), key: key})
	return nil
}

func (r *keyRing) withdraw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.published = slices.Clone(r.published[len(r.published)-1:])
}

func (r *keyRing) current() signingKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.published[len(r.published)-1]
}

func (r *keyRing) public() []op.Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make([]op.Key, 0, len(r.published))
	for _, key := range r.published {
		keys = append(keys, publicKey(key))
	}
	return keys
}

func (r *keyRing) sign(payload []byte) (string, error) {
	signer, err := op.SignerFromKey(r.current())
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return signed.CompactSerialize()
}

type signingKey struct {
	id  string
	key *rsa.PrivateKey
}

func (k signingKey) ID() string                                  { return k.id }
func (k signingKey) Key() any                                    { return k.key }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return keyAlgorithm }

type publicKey signingKey

func (k publicKey) ID() string                         { return k.id }
func (k publicKey) Key() any                           { return &k.key.PublicKey }
func (k publicKey) Algorithm() jose.SignatureAlgorithm { return keyAlgorithm }
func (k publicKey) Use() string                        { return keyUseSigning }

package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	jose "github.com/go-jose/go-jose/v4"
)

// maxKeys bounds the keys of an issuer.
const maxKeys = 256

// algorithms are those that sign with a private key. "none" and the HMACs, whose key
// would be the public one, are not among them.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// fetchKeys reads the issuer's keys (RFC 7517). Those of a kind that is not known, and
// those that are not for signatures, are left out.
func (v *Verifier) fetchKeys(ctx context.Context, uri string) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := v.get(ctx, uri, &set); err != nil {
		return nil, fmt.Errorf("its keys: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if err := json.Unmarshal(raw, &key); err != nil || !key.Valid() || !key.IsPublic() || key.Use == "enc" {
			continue
		}
		if len(keys) == maxKeys {
			return nil, fmt.Errorf("its keys: there are more than %d", maxKeys)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("its keys: %s lists none that signs", uri)
	}
	return keys, nil
}

// issuerKeys implements [oidc.KeySet] for one verification. It remembers whether that
// failed for want of keys.
type issuerKeys struct {
	verifier    *Verifier
	issuer      *issuer
	unavailable error
}

// VerifySignature returns a token's payload if a key of the issuer signed it. When none
// of those that are known did, the issuer may have new ones (OpenID Connect Core 1.0,
// section 10.1.1).
func (k *issuerKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	signed, err := jose.ParseSigned(token, k.issuer.algorithms)
	if err != nil {
		return nil, err
	}
	if payload, ok := k.issuer.payload(signed); ok {
		return payload, nil
	}
	newer, err := k.verifier.issuer(ctx, k.issuer)
	if err != nil {
		k.unavailable = err
		return nil, err
	}
	if payload, ok := newer.payload(signed); ok {
		return payload, nil
	}
	return nil, errors.New("none of the issuer's keys made its signature")
}

func (is *issuer) payload(signed *jose.JSONWebSignature) ([]byte, bool) {
	if len(signed.Signatures) != 1 {
		return nil, false
	}
	id := signed.Signatures[0].Header.KeyID
	for i := range is.keys {
		if id != "" && is.keys[i].KeyID != id {
			continue
		}
		if payload, err := signed.Verify(&is.keys[i]); err == nil {
			return payload, true
		}
	}
	return nil, false
}

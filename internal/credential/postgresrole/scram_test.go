package postgresrole

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
)

// The exchange of RFC 7677, section 3.
func TestVerifierAgreesWithRFC7677(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifier("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	keys, ok := strings.CutPrefix(v, "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
	if !ok {
		t.Fatalf("the verifier is %q", v)
	}
	stored64, server64, ok := strings.Cut(keys, ":")
	stored, err1 := base64.StdEncoding.DecodeString(stored64)
	server, err2 := base64.StdEncoding.DecodeString(server64)
	if !ok || err1 != nil || err2 != nil {
		t.Fatalf("the verifier is %q", v)
	}
	const exchange = "n=user,r=rOprNGfwEbeRWgbNEkqO," +
		"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096," +
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	const clientProof, serverSignature = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

	h := hmac.New(sha256.New, server)
	h.Write([]byte(exchange))
	if got := base64.StdEncoding.EncodeToString(h.Sum(nil)); got != serverSignature {
		t.Errorf("ServerKey signs %s, the RFC has %s", got, serverSignature)
	}
	// ClientProof is ClientKey XOR the signature made with StoredKey, and
	// StoredKey is the hash of ClientKey.
	h = hmac.New(sha256.New, stored)
	h.Write([]byte(exchange))
	clientKey, err := base64.StdEncoding.DecodeString(clientProof)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range h.Sum(nil) {
		clientKey[i] ^= b
	}
	if got := sha256.Sum256(clientKey); !hmac.Equal(got[:], stored) {
		t.Error("StoredKey doesn't fit the RFC's client proof")
	}
}

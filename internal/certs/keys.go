package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// NodeKey returns the Ed25519 key by which the node signs its recordings, made
// on first use as "node.key" in the folder.
func NodeKey(dir string) (ed25519.PrivateKey, error) {
	key, err := loadPKCS8(dir, "node.key", func() (any, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	})
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds no Ed25519 key", filepath.Join(dir, "node.key"))
	}
	return ed, nil
}

// caKey returns the authority's ECDSA key, made on first use.
func caKey(dir string) (*ecdsa.PrivateKey, error) {
	key, err := loadPKCS8(dir, caKeyFile, func() (any, error) {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	})
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds no ECDSA key", filepath.Join(dir, caKeyFile))
	}
	return ec, nil
}

// loadPKCS8 reads a private key in PKCS #8 PEM, or generates and keeps it.
func loadPKCS8(dir, name string, generate func() (any, error)) (any, error) {
	if err := keyDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	content, err := loadOrCreate(path, func() ([]byte, error) {
		key, err := generate()
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
	})
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s holds no PEM private key", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s holds no readable private key: %w", path, err)
	}
	return key, nil
}

// sshHostCA returns the key that signs SSH host keys, made on first use.
func sshHostCA(dir string) (ssh.Signer, error) {
	if err := keyDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "ssh_host_ca")
	content, err := loadOrCreate(path, func() ([]byte, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		block, err := ssh.MarshalPrivateKey(key, "chaperone host CA")
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(block), nil
	})
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(content)
	if err != nil {
		return nil, fmt.Errorf("%s holds no readable SSH private key: %w", path, err)
	}
	if signer.PublicKey().Type() != ssh.KeyAlgoED25519 {
		return nil, errors.New(path + " holds no Ed25519 key")
	}
	return signer, nil
}

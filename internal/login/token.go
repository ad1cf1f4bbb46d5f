package login

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const maxToken = 16 << 10 // bytes

// Token is an ID token that was verified.
type Token struct {
	Raw     string
	Subject string // as the issuer names the person
	Expires time.Time
}

// KeyringName is the name under which a server's token is kept.
func KeyringName(serverURL string) string { return "login:" + serverURL }

// ReadToken reads a file that holds one token.
func ReadToken(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("token file %s: %w", path, err)
	}
	token, err := OneToken(string(text))
	if err != nil {
		return "", fmt.Errorf("token file %s: %w", path, err)
	}
	return token, nil
}

// OneToken takes off the white space around a token, and refuses what can be none.
func OneToken(text string) (string, error) {
	token := strings.TrimSpace(text)
	if token == "" {
		return "", errors.New("it is empty")
	}
	if len(text) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fmt.Errorf("it must hold one token, of at most %d bytes, and nothing else", maxToken)
	}
	return token, nil
}

// Expires tells when a token says that it expires. Nothing is verified: it is
// for people to read.
func Expires(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expires int64 `json:"exp"`
	}
	const latest = 1 << 37 // later years can't be written
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.Expires <= 0 || claims.Expires > latest {
		return time.Time{}, false
	}
	return time.Unix(claims.Expires, 0), true
}

package postgresrole

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// iterations is how often a minted password is hashed. Iterating makes words
// that people choose costly to guess; these are 256 random bits, and cost what
// they cost. What iterating would add is milliseconds of each login, at the
// server when the role is made and in the daemon at each connection. RFC
// 7677's 4096 is for the former kind.
const iterations = 1

// verifier is what PostgreSQL stores of a password: RFC 5803's StoredKey and
// ServerKey of RFC 5802, with the hash of RFC 7677, in the form of
// pg_authid.rolpassword. The password must be ASCII, which SASLprep (RFC
// 4013) leaves as it is.
func verifier(password string, salt []byte, iterations int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("SCRAM verifier: %w", err)
	}
	clientKey := mac(salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	serverKey := mac(salted, "Server Key")
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(storedKey[:]), b64(serverKey)), nil
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}

package credential

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
)

// Secret is what a connection proves itself by, a password or a client
// certificate with its key, that no log, event, error or dump shows: every way to
// format or encode it yields "[secret]". The zero value is an empty password.
type Secret struct {
	// A pointer, since fmt reaches into the unexported fields of a struct
	// around it without asking for methods, and there prints an address; and one to
	// a pointer, since of one to a struct it can print the struct.
	value **secret
}

type secret struct {
	password    string
	certificate *tls.Certificate
}

const redacted = "[secret]"

// NewSecret wraps a password.
func NewSecret(password string) Secret { return wrap(&secret{password: password}) }

// NewCertificate wraps a client certificate. Its Leaf is set.
func NewCertificate(c *tls.Certificate) Secret { return wrap(&secret{certificate: c}) }

func wrap(s *secret) Secret { return Secret{&s} }

// Reveal returns the password, for the one place that uses it.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return (*s.value).password
}

// Certificate returns the client certificate; nil: it is a password.
func (s Secret) Certificate() *tls.Certificate {
	if s.value == nil {
		return nil
	}
	return (*s.value).certificate
}

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// Format implements fmt.Formatter, so that no verb reaches the value.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler, and so covers JSON and YAML.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

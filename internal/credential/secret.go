package credential

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a value that no log, event, error or dump shows: every way to
// format or encode it yields "[secret]". The zero value is an empty secret.
type Secret struct {
	// A pointer, since fmt reaches into the unexported fields of a struct
	// around it without asking for methods, and there prints an address.
	value *string
}

const redacted = "[secret]"

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{value: &value} }

// Reveal returns the value, for the one place that uses it.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// Format implements fmt.Formatter, so that no verb reaches the value.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler, and so covers JSON and YAML.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

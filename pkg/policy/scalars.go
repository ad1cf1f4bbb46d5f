package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written "15m" in documents, in the
// syntax of [time.ParseDuration]. It is never negative.
type Duration time.Duration

// UnmarshalText implements [encoding.TextUnmarshaler], for YAML and JSON.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return errors.New(`must be a duration such as "90s", "15m" or "1h30m"`)
	}
	if v < 0 {
		return errors.New("must not be negative")
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String returns the duration as [time.Duration.String] writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// Size is a number of bytes that is written "512MiB" or "1GiB" in documents;
// a number without unit is bytes.
type Size int64

// sizeUnits goes from large to small, so that the first that divides a size
// writes it shortest.
var sizeUnits = [...]struct {
	suffix string
	bytes  int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText implements [encoding.TextUnmarshaler], for YAML and JSON.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		return errors.New(`must be a size such as "512MiB" or "1GiB"`)
	}
	if int64(n) > math.MaxInt64/unit {
		return errors.New("is too large")
	}
	*s = Size(int64(n) * unit)
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String writes the size with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return "0B"
}

// setWord sets the transform that one plain word stands for.
func (t *Transform) setWord(word string) error {
	switch word {
	case "redact":
		*t = Transform{Redact: true}
	case "null":
		*t = Transform{Null: true}
	default:
		return fmt.Errorf("unknown transform %s; known are redact, null, {keepFirst: N}, {keepLast: N}, {hmac: KEY}, {formatPreserving: KEY}, {truncate: year} and {fixed: TEXT}", quote(word))
	}
	return nil
}

// UnmarshalJSON implements [json.Unmarshaler]: an object, or one plain word.
func (t *Transform) UnmarshalJSON(data []byte) error {
	var word string
	if json.Unmarshal(data, &word) == nil && len(data) > 0 && data[0] == '"' {
		return t.setWord(word)
	}
	type object Transform // without this method
	return json.Unmarshal(data, (*object)(t))
}

// quote quotes a value for an error message, cut to what helps to find it.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return strconv.Quote(s)
}

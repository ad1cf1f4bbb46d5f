package desk

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// visible shows whatever is no printable character, so also what turns the
// direction of writing, by its escape. Line ends and tabs of a text of lines stay.
func visible(s string, lines bool) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r), lines && (r == '\n' || r == '\t'):
			b.WriteString(s[i : i+size])
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += size
	}
	return b.String()
}

// cutText cuts at a whole character, at most so many bytes in.
func cutText(s string, most int) (string, bool) {
	if len(s) <= most {
		return s, false
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most], true
}

// brief keeps what others wrote from filling our messages, and addresses, which may
// be secrets, out of them.
func brief(err error) string {
	const limit = 300
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	text, cut := cutText(visible(err.Error(), false), limit)
	if cut {
		text += "…"
	}
	return text
}

// readFull reads until the end, or until the buffer is full.
func readFull(r io.Reader, buffer []byte) (int, error) {
	n, err := io.ReadFull(r, buffer)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

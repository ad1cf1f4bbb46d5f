package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Write writes results for people: a line for each, and under those that are
// not ok what is to be done.
func Write(w io.Writer, results []Result) error {
	width := 0
	for _, r := range results {
		width = max(width, utf8.RuneCountInString(plain(r.Check)))
	}
	var b strings.Builder
	indent := strings.Repeat(" ", len("skip")+2+width+2)
	for _, r := range results {
		text := r.Found
		if r.Missing != "" && text != "" {
			text += "; "
		}
		text += r.Missing
		name := plain(r.Check)
		fmt.Fprintf(&b, "%-4s  %s%s", r.Status, name, strings.Repeat(" ", width-utf8.RuneCountInString(name)))
		for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
			if i == 0 {
				fmt.Fprintf(&b, "  %s\n", plain(line))
			} else {
				fmt.Fprintf(&b, "%s%s\n", indent, plain(line))
			}
		}
		if r.Status != OK && r.Do != "" {
			fmt.Fprintf(&b, "%sdo: %s\n", indent, plain(r.Do))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes results as a JSON array.
func WriteJSON(w io.Writer, results []Result) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(results)
}

// plain replaces what could steer a terminal: some of the text is what servers
// and files say.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		if r == '\t' {
			return ' '
		}
		return '\uFFFD'
	}, s)
}

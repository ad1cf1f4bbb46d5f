package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/node"
	"chaperone.dev/chaperone/internal/sink"
)

// clientFlags say where the sink is. They are read when a command runs.
type clientFlags struct {
	sink   string  // socket or URL; empty: that in the run folder
	runDir *string // of the root command
}

// addSinkCommands adds the commands that ask the sink.
func addSinkCommands(root *cobra.Command, runDir *string) {
	flags := &clientFlags{runDir: runDir}
	root.AddCommand(sessionsCommand(flags), eventsCommand(flags))
}

// bind adds the flag to a command and those below it.
func (f *clientFlags) bind(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.sink, "sink", "", "the sink's socket or URL (default: "+node.SinkSocket+" in the run folder)")
}

func (f *clientFlags) client() *sink.Client {
	at := f.sink
	if at == "" {
		at = filepath.Join(*f.runDir, node.SinkSocket)
	}
	return sink.NewClient(at)
}

// outputFlag adds -o; the result says whether JSON is wanted.
func outputFlag(cmd *cobra.Command) func() (bool, error) {
	out := cmd.Flags().StringP("output", "o", "table", `"table" or "json"`)
	return func() (bool, error) {
		switch *out {
		case "table":
			return false, nil
		case "json":
			return true, nil
		}
		return false, fmt.Errorf(`-o %s: want "table" or "json"`, *out)
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// parseSince reads a time, or how long ago it was.
func parseSince(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf(`--since %q: want a duration like "90m" or a time like "2026-03-01T12:00:00Z"`, s)
	}
	return t, nil
}

// notFound says which session there is none of.
func notFound(err error, id string) error {
	if errors.Is(err, sink.ErrNotFound) {
		return fmt.Errorf("the sink knows no session %s", printable(id))
	}
	return err
}

// printable makes text from a client fit for a terminal: whatever is no
// printable character, so also what moves the cursor or turns the direction of
// writing, is shown by its escape.
func printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteString(s[i : i+size])
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += size
	}
	return b.String()
}

// brief is printable text of at most n characters, on one line.
func brief(s string, n int) string {
	if len(s) > 4*n {
		s = s[:4*n]
	}
	runes := []rune(printable(strings.Join(strings.Fields(s), " ")))
	if len(runes) <= n {
		return string(runes)
	}
	return string(runes[:n-1]) + "…"
}

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// printView prints all that somebody who answers needs to know. Each line begins with what
// is ours: nothing that others wrote can look like another line.
func printView(out io.Writer, v api.View) error {
	r := v.Request
	width := widthOf(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name string, parts ...string) {
		for rest := join(" ", parts...); rest != ""; name = "" {
			piece := cutAt(rest, width)
			rest = rest[len(piece):]
			fmt.Fprintf(w, "%s\t%s\n", name, piece)
		}
	}
	line("Request", printable(r.ID)+",", outcome(v))
	line("Asks for", about(r))
	line("Principal", personName(r.Principal.Subject, r.Principal.Issuer, ""), bracket(list(r.Principal.Groups)))
	line("Job", brief(r.Workload.Name, 100), bracket(join(", ", brief(r.Workload.Kind, 20), brief(r.Workload.Unit, 100), brief(r.Workload.Job, 100))))
	line("Process", process(r.Process))
	line("Node", brief(r.Node, 100), bracket("cluster "+brief(r.Cluster, 100)))
	line("Target", brief(r.Target.Name, 100), bracket(destination(r.Target)))
	line("Session", printable(r.Session))
	if r.About == approval.AboutCommand {
		line("Touches", touches(r.Parsed))
	}
	line("Asked by", "policy "+brief(r.Policy, 100)+", rule "+brief(r.Rule, 100)+why(r.Why))
	line("When", printable(r.When))
	line("Revision", printable(r.Revision))
	line("May answer", selected(r.From))
	for _, e := range r.Escalate {
		line("", "from "+clock(r.Created.Add(time.Duration(e.After)))+" on also "+selected(e.To))
	}
	have, want := quorum(v)
	line("Needs", fmt.Sprintf("%d yes, has %d; one no decides", want, have))
	for n, vote := range v.Votes {
		head := ""
		if n == 0 {
			head = "Answers"
		}
		line(head, answered(vote))
	}
	if !v.May && v.MayNot != "" {
		line("You", "can't answer: "+printable(v.MayNot))
	}
	if r.Standing > 0 {
		line("--for", "at most "+span(r.Standing))
	}
	line("Asked at", clock(r.Created))
	if v.State == approval.StatePending {
		line("Time left", span(time.Duration(v.Left)*time.Second))
	}
	line("Digest", printable(r.Digest))
	if err := w.Flush(); err != nil {
		return err
	}
	return printStatement(out, r)
}

func about(r approval.Request) string {
	text := "one command"
	if r.About == approval.AboutSession {
		text = "a session"
	}
	if r.Mode == policy.ModeRetry {
		return text + ", which the client is to send again"
	}
	return text + ", which waits"
}

func process(p event.Process) string {
	return join(" ", brief(p.Comm, 32), bracket(join(", ", fmt.Sprintf("pid %d, uid %d", p.PID, p.UID), brief(p.Executable, 200))))
}

func destination(t event.Target) string {
	parts := []string{brief(t.Protocol, 20)}
	if t.Host != "" {
		parts = append(parts, brief(t.Host, 255))
	}
	parts = append(parts, brief(t.Address, 60))
	if t.Database != "" {
		parts = append(parts, "database "+brief(t.Database, 100))
	}
	return join(", ", parts...)
}

// touches is what a command does, as policies saw it.
func touches(p event.Parsed) string {
	parts := []string{list(p.Kinds)}
	switch {
	case p.DDL:
		parts = append(parts, "changes the schema")
	case p.ReadOnly:
		parts = append(parts, "only reads")
	default:
		parts = append(parts, "writes")
	}
	if len(p.Tables) > 0 {
		parts = append(parts, "tables "+list(p.Tables))
	}
	if len(p.Functions) > 0 {
		parts = append(parts, "functions "+list(p.Functions))
	}
	return join("; ", parts...)
}

func why(message string) string {
	if message == "" {
		return ""
	}
	return ": " + printable(message)
}

func selected(s policy.PrincipalSelect) string {
	var parts []string
	if len(s.Groups) > 0 {
		parts = append(parts, "groups "+list(s.Groups))
	}
	if len(s.Subjects) > 0 {
		parts = append(parts, list(s.Subjects))
	}
	return join("; ", parts...)
}

func answered(v api.Vote) string {
	verdict := "yes"
	if v.Verdict != approval.Yes {
		verdict = "no"
	}
	text := fmt.Sprintf("%s by %s, %s, at the %s", verdict, personName(v.By.Subject, v.By.Issuer, v.By.Name), clock(v.At), brief(v.Via, 20))
	if v.Standing > 0 {
		text += ", for " + span(time.Duration(v.Standing))
	}
	return text + why(v.Reason)
}

// printStatement prints the whole text of a command and its parameters.
func printStatement(out io.Writer, r approval.Request) error {
	if r.About != approval.AboutCommand {
		return nil
	}
	if len(r.Parameters) > 0 {
		if _, err := fmt.Fprintln(out, "\nParameters"); err != nil {
			return err
		}
		for n, value := range r.Parameters {
			if err := printText(out, fmt.Sprintf("  $%d = ", n+1), printable(value)); err != nil {
				return err
			}
		}
	}
	if _, err := fmt.Fprintln(out, "\nStatement"); err != nil {
		return err
	}
	if err := printText(out, "  | ", r.Text); err != nil {
		return err
	}
	if r.Cut {
		_, err := fmt.Fprintf(out, "  … IT GOES ON: only the first %d bytes are shown, and your answer is to the whole of it.\n", len(r.Text))
		return err
	}
	return nil
}

// widthOf is where long lines are broken, so that the terminal doesn't: its new line
// would begin with what others wrote.
func widthOf(out io.Writer) int {
	const usual, least, heads = 100, 24, 16
	if f, ok := out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return max(int(size.Col)-heads, least)
		}
	}
	return usual
}

// printText prints text line by line, each behind the head.
func printText(out io.Writer, head, text string) error {
	text = strings.TrimSuffix(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	mark, width := strings.Repeat(" ", len(head)-2)+"\\ ", widthOf(out)
	for text := range strings.SplitSeq(text, "\n") {
		rest, begin := printable(text), head
		for {
			piece := cutAt(rest, width)
			rest = rest[len(piece):]
			if _, err := fmt.Fprintf(out, "%s%s\n", begin, piece); err != nil {
				return err
			}
			if rest == "" {
				break
			}
			begin = mark
		}
	}
	return nil
}

// cutAt is the beginning of the text, at most so many columns wide.
func cutAt(text string, width int) string {
	for at, r := range text {
		if width--; r >= firstWide {
			width--
		}
		if width < 0 {
			return text[:at]
		}
	}
	return text
}

// firstWide is from where on a character may take two columns.
const firstWide = 0x1100

func list(values []string) string {
	shown := make([]string, len(values))
	for n, v := range values {
		shown[n] = printable(v)
	}
	return strings.Join(shown, ", ")
}

// join joins what isn't empty.
func join(separator string, parts ...string) string {
	kept := make([]string, 0, len(parts))
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, separator)
}

func bracket(text string) string {
	if text == "" {
		return ""
	}
	return "(" + text + ")"
}

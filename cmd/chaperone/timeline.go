package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/recording"
)

// timeline prints a recording as one line for each command. A command's line
// needs its outcome, so commands wait until those before them are over.
type timeline struct {
	out   io.Writer
	start time.Time
	queue []*step
	bySeq map[uint64]*step
}

// step is one command on its way to its line.
type step struct {
	at      time.Time
	command event.Command
	masked  []event.MaskColumn
	over    bool
}

func newTimeline(out io.Writer) *timeline {
	return &timeline{out: out, bySeq: map[uint64]*step{}}
}

// block takes the frames of a block.
func (t *timeline) block(b *recording.Block) error {
	for f, err := range b.Frames() {
		if err != nil {
			return nil // what is wrong with it is told by the verification
		}
		if err := t.frame(f); err != nil {
			return err
		}
	}
	return nil
}

func (t *timeline) frame(f recording.Frame) error {
	if t.start.IsZero() {
		t.start = f.At()
	}
	if f.Kind != recording.KindMaskApplied {
		if err := t.flush(false); err != nil {
			return err
		}
	}
	switch f.Kind {
	case recording.KindSessionStarted:
		var e event.SessionStarted
		if json.Unmarshal(f.Payload, &e) != nil {
			return t.odd(f)
		}
		_, err := fmt.Fprintf(t.out, "%s  %s@%s, workload %s, to %s (%s) as %s\n", f.At().Local().Format(time.RFC3339),
			printable(e.Principal.Subject), printable(e.Principal.Issuer), printable(e.Workload.Name),
			printable(e.Target.Name), printable(e.Target.Address), printable(e.Credential))
		return err
	case recording.KindCommand:
		s := &step{at: f.At()}
		if json.Unmarshal(f.Payload, &s.command) != nil {
			return t.odd(f)
		}
		s.over = s.command.Decision != "allow"
		t.queue = append(t.queue, s)
		t.bySeq[s.command.Seq] = s
	case recording.KindOutcome:
		var o event.Command
		if json.Unmarshal(f.Payload, &o) != nil {
			return t.odd(f)
		}
		if s := t.bySeq[o.Seq]; s != nil {
			s.command.SetOutcome(&o)
			s.over = true
		}
	case recording.KindMaskApplied:
		var m event.MaskApplied
		if json.Unmarshal(f.Payload, &m) != nil {
			return t.odd(f)
		}
		if s := t.bySeq[m.Seq]; s != nil {
			s.masked = append(s.masked, m.Columns...)
		}
	case recording.KindSessionEnded:
		if err := t.flush(true); err != nil {
			return err
		}
		var e event.SessionEnded
		if json.Unmarshal(f.Payload, &e) != nil {
			return t.odd(f)
		}
		text := printable(e.Reason)
		if e.Message != "" {
			text += ": " + printable(e.Message)
		}
		_, err := fmt.Fprintf(t.out, "%s  session ended, %s\n", t.after(f.At()), text)
		return err
	}
	return nil
}

// odd tells of a frame whose payload this program can't read.
func (t *timeline) odd(f recording.Frame) error {
	_, err := fmt.Fprintf(t.out, "%s  %s: %s\n", t.after(f.At()), f.Kind, brief(string(f.Payload), 200))
	return err
}

func (t *timeline) after(at time.Time) string {
	return fmt.Sprintf("%+9.3fs", at.Sub(t.start).Seconds())
}

// finish prints what is left.
func (t *timeline) finish() error { return t.flush(true) }

// flush prints the lines of the commands that are over, up to the first that
// is not; with all, also of those.
func (t *timeline) flush(all bool) error {
	for len(t.queue) > 0 && (all || t.queue[0].over) {
		s := t.queue[0]
		t.queue = t.queue[1:]
		delete(t.bySeq, s.command.Seq)
		if _, err := fmt.Fprintf(t.out, "%s  %s → %s\n", t.after(s.at), printable(s.command.Text), s.outcome()); err != nil {
			return err
		}
	}
	return nil
}

// outcome is what became of a command, in words.
func (s *step) outcome() string {
	c := &s.command
	parts := []string{c.Decision}
	switch {
	case c.Policy != "":
		parts[0] += " (" + printable(c.Policy) + "/" + printable(c.Rule) + ")"
	case c.Decision == "deny":
		parts[0] += " (no rule allows it)"
	}
	if c.Message != "" {
		parts[0] += ": " + printable(c.Message)
	}
	if len(c.Approvals) > 0 {
		asked := "asked "
		if c.Decision == "pending" {
			asked = "waits for "
		}
		parts = append(parts, asked+brief(strings.Join(c.Approvals, " "), 200))
	}
	for _, sh := range c.Shadows {
		if sh.Action != c.Decision { // what would have been the same is no news
			parts = append(parts, "shadow policy "+shadow(sh))
		}
	}
	if c.SQLState != "" && c.Decision == "allow" {
		parts = append(parts, "error "+printable(c.SQLState)+": "+printable(c.Error))
	}
	if c.Decision == "allow" {
		switch {
		case !s.over:
			parts = append(parts, "outcome not recorded")
		case c.Unfinished:
			parts = append(parts, "not finished")
		case c.Skipped:
			parts = append(parts, "not run, an earlier one of its batch failed")
		default:
			parts = append(parts, plural(c.Rows, "row"))
		}
	}
	if len(s.masked) > 0 {
		columns := make([]string, len(s.masked))
		for i, m := range s.masked {
			columns[i] = printable(m.Column) + "×" + strconv.FormatUint(m.Count, 10)
		}
		parts = append(parts, "masked "+strings.Join(columns, " "))
	}
	if s.over && c.Decision == "allow" && !c.Unfinished {
		parts = append(parts, c.Duration.Round(time.Microsecond).String())
	}
	return strings.Join(parts, ", ")
}

// shadow says what a policy that is not enforced would have done.
func shadow(s event.Shadow) string {
	text := printable(s.Policy)
	if s.Rule != "" {
		text += "/" + printable(s.Rule)
	}
	return text + " would " + printable(s.Action)
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatUint(n, 10) + " " + what + "s"
}

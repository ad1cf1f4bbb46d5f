package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/event"
)

func eventsCommand(flags *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "events", Short: "Read the events"}
	flags.bind(cmd)
	cmd.AddCommand(eventsTailCommand(flags))
	return cmd
}

func eventsTailCommand(flags *clientFlags) *cobra.Command {
	var q sink.EventQuery
	var since, filter string
	var last int
	cmd := &cobra.Command{Use: "tail", Short: "Print the last events, and with --follow those that come", Args: cobra.NoArgs}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with what comes, until interrupted; without --since, that only")
	cmd.Flags().StringVar(&since, "since", "", `begin there: "2h" ago, or an RFC 3339 time`)
	cmd.Flags().StringVar(&filter, "filter", "", `only these: "type", "type/target" or "/target"`)
	cmd.Flags().IntVarP(&last, "lines", "n", 200, "without --follow, at most so many")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		if q.Since, err = parseSince(since); err != nil {
			return err
		}
		if last < 1 || last > 100_000 {
			return fmt.Errorf("-n %d: want 1 to 100000", last)
		}
		kind, target, _ := strings.Cut(filter, "/")
		q.Type, q.Target = event.Type(kind), target
		show := func(e event.Event, line []byte) error { return printEvent(cmd.OutOrStdout(), e, line, asJSON) }
		if q.Follow {
			return flags.client().Events(cmd.Context(), q, show)
		}
		return tail(last, func(keep func(event.Event, []byte) error) error {
			return flags.client().Events(cmd.Context(), q, keep)
		}, show)
	}
	return cmd
}

// tail shows the last n of what read gives.
func tail(n int, read func(func(event.Event, []byte) error) error, show func(event.Event, []byte) error) error {
	type item struct {
		e    event.Event
		line string
	}
	ring := make([]item, 0, min(n, 1024))
	total := 0
	err := read(func(e event.Event, line []byte) error {
		it := item{e, string(line)}
		if len(ring) < n {
			ring = append(ring, it)
		} else {
			ring[total%n] = it
		}
		total++
		return nil
	})
	if err != nil {
		return err
	}
	for i := range ring {
		it := ring[(max(total-len(ring), 0)+i)%len(ring)]
		if err := show(it.e, []byte(it.line)); err != nil {
			return err
		}
	}
	return nil
}

// printEvent prints one event as its JSON line, or for people. The JSON of
// events holds no control character.
func printEvent(w io.Writer, e event.Event, line []byte, asJSON bool) error {
	if asJSON {
		_, err := fmt.Fprintf(w, "%s\n", line)
		return err
	}
	_, err := fmt.Fprintf(w, "%s  %-20s  %s\n", e.Time.Local().Format("15:04:05.000"), printable(string(e.Kind())), describe(e))
	return err
}

// describe says in one line what an event tells.
func describe(e event.Event) string {
	data, err := e.Payload()
	if err != nil {
		return brief(string(e.Data), 160)
	}
	switch d := data.(type) {
	case *event.SessionStarted:
		return fmt.Sprintf("%s  %s@%s (%s) to %s as %s", brief(d.Session, 40), brief(d.Principal.Subject, 40), brief(d.Principal.Issuer, 40),
			brief(d.Workload.Name, 40), brief(d.Target.Name, 40), brief(d.Credential, 63))
	case *event.SessionEnded:
		return fmt.Sprintf("%s  %s after %s: %s, %d denied, %s", brief(d.Session, 40), brief(d.Reason, 40), d.Duration.Round(time.Millisecond),
			plural(d.Commands, "command"), d.Denied, plural(d.Rows, "row"))
	case *event.SessionRefused:
		return brief(d.Reason, 40) + ": " + brief(d.Message, 200)
	case *event.Command:
		s := step{command: *d, over: true}
		return brief(d.Text, 100) + " → " + brief(s.outcome(), 200)
	case *event.MaskApplied:
		columns := make([]string, len(d.Columns))
		for i, c := range d.Columns {
			columns[i] = fmt.Sprintf("%s×%d (%s)", brief(c.Column, 63), c.Count, brief(c.Rule, 100))
		}
		return brief(d.Session, 40) + "  " + strings.Join(columns, ", ")
	case *event.CredentialIssued:
		return fmt.Sprintf("%s at %s for job %s, until %s", brief(d.Name, 63), brief(d.Target, 40), brief(d.Job, 60), d.Expires.Local().Format(time.TimeOnly))
	case *event.CredentialRevoked:
		text := fmt.Sprintf("%s at %s, %s", brief(d.Name, 63), brief(d.Target, 40), brief(d.Why, 40))
		if !d.Verified {
			text += "; NOT gone yet: " + brief(d.Error, 200)
		}
		return text
	case *event.Bypass:
		return fmt.Sprintf("%s (pid %d), %s to %s, stopped by %s, %d×", brief(d.Process.Comm, 20), d.Process.PID, brief(d.SocketType, 20), brief(d.Destination, 60), brief(d.Hook, 40), d.Count)
	case *event.PolicyLoaded:
		return "revision " + brief(d.Revision, 80)
	case *event.PolicyRejected:
		return "kept " + brief(d.Kept, 80) + ": " + brief(strings.Join(d.Errors, "; "), 300)
	case *event.ApprovalRequested:
		return describeRequest(d)
	case *event.ApprovalDecided:
		votes := make([]string, len(d.Votes))
		for i, v := range d.Votes {
			votes[i] = describeVote(v)
		}
		return brief(d.Request, 40) + "  " + brief(d.Outcome, 20) + ": " + strings.Join(votes, "; ")
	case *event.ApprovalExpired:
		text := brief(d.Request, 40) + "  " + brief(d.Outcome, 20)
		if d.Message != "" {
			text += ": " + brief(d.Message, 200)
		}
		return text
	case *event.ApprovalRejected:
		text := brief(d.Request, 40) + "  an answer did not count (" + brief(d.Reason, 40) + "): " + brief(d.Message, 200)
		if d.By != nil {
			text += "; said to be of " + person(*d.By)
		}
		return text
	case *event.LockApplied:
		return describeLock(d)
	case *event.LockEnded:
		text := brief(d.Lock, 40) + "  " + brief(d.Reason, 40)
		if d.By != nil {
			text += " by " + person(*d.By)
		}
		return text
	case *event.NodeStarted:
		return fmt.Sprintf("%s, kernel %s, recording key %s", brief(d.Version, 40), brief(d.Kernel, 60), brief(d.RecordingKey, 60))
	case *event.NodeDegraded:
		return brief(d.Component, 40) + ": " + brief(d.Message, 300)
	}
	return brief(string(e.Data), 160)
}

// person is who somebody is.
func person(p event.Principal) string { return brief(p.Subject, 40) + "@" + brief(p.Issuer, 40) }

// describeRequest says who wants what, by which rule that is asked, and of whom.
func describeRequest(d *event.ApprovalRequested) string {
	what := "a session"
	if d.Text != "" {
		what = brief(d.Text, 100)
	}
	text := fmt.Sprintf("%s  %s (%s) wants %s at %s, asked by %s/%s", brief(d.Request, 40), person(d.Principal), brief(d.Workload.Name, 40),
		what, brief(d.Target, 40), brief(d.Policy, 63), brief(d.Rule, 63))
	if d.Why != "" {
		text += " (" + brief(d.Why, 100) + ")"
	}
	var whom []string
	for _, group := range d.Groups {
		whom = append(whom, "group "+group)
	}
	if whom = append(whom, d.Subjects...); len(whom) > 0 {
		text += ", of " + brief(strings.Join(whom, ", "), 100)
	}
	if d.Count > 1 {
		text += fmt.Sprintf(", %d must say yes", d.Count)
	}
	return text + ", until " + d.Expires.Local().Format(time.TimeOnly)
}

// describeVote says who answered what.
func describeVote(v event.ApprovalVote) string {
	text := brief(v.Verdict, 20) + " by " + person(v.By)
	if v.Via != "" {
		text += " (" + brief(v.Via, 20) + ")"
	}
	if v.Standing > 0 {
		text += ", for " + v.Standing.String()
	}
	if v.Reason != "" {
		text += ": " + brief(v.Reason, 100)
	}
	return text
}

// describeLock says who or what is locked, by whom, and what that ended here.
func describeLock(d *event.LockApplied) string {
	var what []string
	for _, part := range [][2]string{{"principal ", d.Principal}, {"workload ", d.Workload}, {"target ", d.Target}, {"session ", d.Session}} {
		if part[1] != "" {
			what = append(what, part[0]+brief(part[1], 80))
		}
	}
	text := brief(d.Lock, 40) + "  " + strings.Join(what, ", ") + " locked by " + person(d.By) + " until " + d.Expires.Local().Format(time.DateTime)
	if d.Reason != "" {
		text += " (" + brief(d.Reason, 100) + ")"
	}
	return text + fmt.Sprintf("; ended %s, revoked %s", plural(uint64(max(d.Cut, 0)), "session"), plural(uint64(max(d.Revoked, 0)), "credential"))
}

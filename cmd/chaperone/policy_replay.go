package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
	"chaperone.dev/chaperone/pkg/recording"
)

func policyReplayCommand() *cobra.Command {
	flags := &clientFlags{}
	var dir string
	var changed bool
	cmd := &cobra.Command{
		Use:   "replay SESSION... --config DIR",
		Short: "Say what documents would have decided on recorded sessions",
		Long: `Decide the commands of recorded sessions by the documents of a folder, and show
what was decided then and what would be now. It changes nothing.

What a command is is read anew from its recorded text. A text that was cut, or
whose covered secrets leave no SQL, is decided by the facts on record instead, and
marked so: those don't say whether there was a WHERE, nor which columns were named.
The age of a session counts from its first command. The principal's claims, and the
node, labels, image and service account of the job are not on record: rules that
ask for them see none. Masks, the limits of sessions and locks have no part in it.`,
		Args: cobra.MinimumNArgs(1),
	}
	flags.bind(cmd)
	cmd.Flags().StringVar(&dir, "config", "", "the folder of documents (required)")
	cmd.Flags().BoolVar(&changed, "changed", false, "show only what would be decided otherwise")
	_ = cmd.MarkFlagRequired("config")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		runDir, err := cmd.Flags().GetString("run-dir")
		if err != nil {
			return err
		}
		flags.runDir = &runDir
		set, err := policy.Load(dir)
		if err != nil {
			return err
		}
		var replayed []replayedSession
		for _, id := range args {
			started, commands, err := recordedCommands(cmd.Context(), flags.client(), id)
			if err != nil && !errors.Is(err, recording.ErrTruncated) {
				return fmt.Errorf("session %s: %w", printable(id), err)
			}
			one, err := replaySession(set, started, commands)
			if err != nil {
				return fmt.Errorf("session %s: %w", printable(id), err)
			}
			if changed {
				one.Commands = slices.DeleteFunc(one.Commands, func(c replayedCommand) bool { return !c.Changed })
			}
			replayed = append(replayed, one)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), replayed)
		}
		return printReplay(cmd.OutOrStdout(), replayed)
	}
	return cmd
}

// replayedSession is what became of one session's commands.
type replayedSession struct {
	Session   string            `json:"session"`
	Principal string            `json:"principal"`
	Target    string            `json:"target"`
	Revision  string            `json:"revision"` // of the documents that decide now
	Open      replayedDecision  `json:"open"`
	Commands  []replayedCommand `json:"commands"`
	Total     int               `json:"total"`
	Same      int               `json:"same"`
	Changes   map[string]int    `json:"changes"` // "allow → deny" and so on
	Stale     int               `json:"byRecordedFacts"`
}

type replayedDecision struct {
	Decision string   `json:"decision"`
	By       []string `json:"by,omitempty"` // "policy/rule"
	Message  string   `json:"message,omitempty"`
	Shadows  []string `json:"shadows,omitempty"`
}

type replayedCommand struct {
	Seq     uint64           `json:"seq"`
	Text    string           `json:"text"`
	Old     replayedDecision `json:"old"`
	New     replayedDecision `json:"new"`
	Changed bool             `json:"changed"`
	// Note says what the new decision goes by, where it is not the text.
	Note string `json:"note,omitempty"`
}

// notDecided is what was refused before, or after, any rule could decide.
const notDecided = "refused"

// replaySession decides a session's commands anew, one after the other.
func replaySession(set *policy.Set, started event.SessionStarted, commands []recordedCommand) (replayedSession, error) {
	r := replayedSession{
		Session: started.Session, Principal: started.Principal.Subject + "@" + started.Principal.Issuer,
		Target: started.Target.Name, Revision: set.Revision, Total: len(commands), Changes: map[string]int{}, Commands: []replayedCommand{},
	}
	if p := started.Target.Protocol; p != "" && p != policy.ProtocolPostgres {
		return r, fmt.Errorf("commands of %s sessions can't be replayed", printable(p))
	}
	bound := bindRecorded(set, started)
	parse := readStatements()
	var facts policy.SessionFacts
	for i, c := range commands {
		if i == 0 {
			r.Open = newDecision(bound.Open(c.At))
		}
		facts.Age = max(0, c.At.Sub(commands[0].At))
		asked, note := askedAgain(parse, &c.Command)
		decision := policy.Decision{Action: policy.Deny, Message: note}
		if len(asked) > 0 || note == "" {
			decision = decideAll(bound, c.At, facts, asked)
		}
		one := replayedCommand{Seq: c.Command.Seq, Text: c.Command.Text, Old: oldDecision(&c.Command), New: newDecision(decision), Note: note}
		one.Changed = one.Old.Decision != one.New.Decision && one.Old.Decision != notDecided
		if one.Changed {
			r.Changes[one.Old.Decision+" → "+one.New.Decision]++
		} else {
			r.Same++
		}
		if note != "" {
			r.Stale++
		}
		r.Commands = append(r.Commands, one)
		facts.Rows += int64(c.Command.Rows)
		facts.Commands++
	}
	return r, nil
}

// bindRecorded binds the documents to who was recorded. A Target that the
// documents don't have any more has no labels, and no policy names it.
func bindRecorded(set *policy.Set, started event.SessionStarted) *policy.Bound {
	p := started.Principal
	target := policy.TargetFacts{Name: started.Target.Name, Protocol: started.Target.Protocol, Host: started.Target.Host}
	if known, err := targetFacts(set, started.Target.Name); err == nil {
		target.Port, target.Labels = known.Port, known.Labels
		if target.Host == "" {
			target.Host = known.Host
		}
	}
	workload := policy.WorkloadFacts{
		Name: started.Workload.Name, Unit: started.Workload.Unit,
		Executable: started.Process.Executable, UID: int64(started.Process.UID),
	}
	if started.Workload.Kind == "kubernetes" {
		workload.Namespace, _, _ = strings.Cut(started.Workload.Name, "/")
	}
	return set.Bind(policy.Principal{Subject: p.Subject, Issuer: p.Issuer, Groups: p.Groups}, workload, target)
}

// askedAgain are the facts of a recorded command: of its text where that is
// whole, else those on record, and then it says so.
func askedAgain(parse func(string) ([]policy.Statement, error), c *event.Command) (statements []policy.Statement, note string) {
	if !c.Cut {
		statements, err := parse(c.Text)
		if err == nil {
			return statements, ""
		}
		if len(c.Parsed.Kinds) == 0 {
			return nil, "it can't be read, whatever the documents say: " + err.Error()
		}
	}
	why := "its recorded text is cut"
	if !c.Cut {
		why = "its recorded text can't be read"
	}
	for _, kind := range c.Parsed.Kinds {
		statements = append(statements, policy.Statement{
			Text: c.Text, Kind: kind, Kinds: []string{kind}, ReadOnly: c.Parsed.ReadOnly, DDL: c.Parsed.DDL,
			Tables: c.Parsed.Tables, Relations: c.Parsed.Tables, Functions: c.Parsed.Functions, Multi: len(c.Parsed.Kinds) > 1,
		})
	}
	if len(statements) == 0 {
		return nil, why + ", and no facts are on record"
	}
	return statements, why + "; decided by the facts on record"
}

// decideAll decides statements that run together or not at all.
func decideAll(bound *policy.Bound, at time.Time, facts policy.SessionFacts, statements []policy.Statement) policy.Decision {
	result := policy.Decision{Action: policy.Allow}
	for i := range statements {
		d := bound.Statement(at, facts, &statements[i])
		shadows := append(slices.Clip(result.Shadows), d.Shadows...)
		switch {
		case d.Action == policy.Deny, result.Action == policy.Allow:
			result = d
		case d.Action == policy.Approve:
			result.Approvals = append(slices.Clip(result.Approvals), d.Approvals...)
		}
		result.Shadows = shadows
		if d.Action == policy.Deny {
			break
		}
	}
	return result
}

func newDecision(d policy.Decision) replayedDecision {
	r := replayedDecision{Decision: string(d.Action), Message: d.Message, Shadows: shadowsOf(d)}
	switch {
	case d.Action == policy.Approve:
		for _, n := range d.Approvals {
			if rule := n.Policy + "/" + n.Rule; !slices.Contains(r.By, rule) {
				r.By = append(r.By, rule)
			}
		}
	case d.Policy != "":
		r.By = []string{d.Policy + "/" + d.Rule}
	}
	return r
}

// oldDecision is what was decided at the time. Where people were asked that is
// "approve", whatever they said.
func oldDecision(c *event.Command) replayedDecision {
	r := replayedDecision{Decision: c.Decision, Message: c.Message}
	if c.Policy != "" {
		r.By = []string{c.Policy + "/" + c.Rule}
	}
	for _, s := range c.Shadows {
		r.Shadows = append(r.Shadows, strings.TrimSuffix(s.Policy+"/"+s.Rule, "/"))
	}
	switch {
	case len(c.Approvals) > 0 || c.Decision == "pending":
		r.Decision = string(policy.Approve)
	case c.Decision == string(policy.Deny) && c.Policy == "" && !strings.HasPrefix(c.Message, "no rule allows "):
		r.Decision = notDecided // a text that can't be read, a mask, a limit, a lock
	}
	return r
}

func printReplay(w io.Writer, sessions []replayedSession) error {
	for i, s := range sessions {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "session %s: %s to %s, by documents of revision %s\n", printable(s.Session), printable(s.Principal), printable(s.Target), s.Revision)
		if s.Open.Decision != string(policy.Allow) && s.Open.Decision != "" {
			fmt.Fprintf(w, "  the session itself: %s\n", s.Open)
		}
		table := newTable(w)
		for _, c := range s.Commands {
			mark := " "
			if c.Changed {
				mark = "*"
			}
			fmt.Fprintf(table, "%s %d\t%s\t%s\t→ %s\n", mark, c.Seq, brief(c.Text, 60), c.Old, c.New)
			if c.Note != "" {
				fmt.Fprintf(table, "\t  %s\t\t\n", brief(c.Note, 120))
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, s.summary()); err != nil {
			return err
		}
	}
	return nil
}

// String is the decision with the rules behind it, on one line.
func (d replayedDecision) String() string {
	text := d.Decision
	if len(d.By) > 0 {
		text += " (" + brief(strings.Join(d.By, ", "), 80) + ")"
	}
	if len(d.Shadows) > 0 {
		text += " [shadow " + brief(strings.Join(d.Shadows, ", "), 80) + "]"
	}
	return text
}

func (s *replayedSession) summary() string {
	text := fmt.Sprintf("%s: %d the same", plural(uint64(s.Total), "command"), s.Same)
	for _, change := range slices.Sorted(maps.Keys(s.Changes)) {
		text += fmt.Sprintf(", %d %s", s.Changes[change], change)
	}
	if s.Stale > 0 {
		text += fmt.Sprintf("; %d could not be read anew", s.Stale)
	}
	return text
}

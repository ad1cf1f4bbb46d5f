package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/desk/client"
	"chaperone.dev/chaperone/pkg/policy"
)

func approvalsCommand(flags *deskFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "approvals", Short: "See what waits for people, and answer", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags.bind(cmd)
	cmd.AddCommand(approvalsListCommand(flags), approvalsShowCommand(flags),
		approvalsAnswerCommand(flags, approval.Yes), approvalsAnswerCommand(flags, approval.No), approvalsWatchCommand(flags))
	return cmd
}

func approvalsListCommand(flags *deskFlags) *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "list", Short: "List requests that wait for people, newest first", Args: usageArgs(cobra.NoArgs)}
	cmd.Flags().BoolVar(&all, "all", false, "also those that are over")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return exitStatus{2, err}
		}
		state := "pending"
		if all {
			state = "all"
		}
		return flags.asks(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			list, err := c.Approvals(cmd.Context(), state)
			if err != nil {
				return err
			}
			if asJSON {
				return printAsJSON(cmd.OutOrStdout(), list, "  ")
			}
			return printViews(cmd.OutOrStdout(), list)
		})(cmd, args)
	}
	return cmd
}

func printViews(out io.Writer, list []api.View) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "Nothing waits.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REQUEST\tASKED\tSTATE\tYOU\tPRINCIPAL\tWORKLOAD\tTARGET\tRULE\tFOR")
	for _, v := range list {
		r := v.Request
		state := string(v.State)
		if v.State == approval.StatePending {
			state = span(time.Duration(v.Left)*time.Second) + " left"
		}
		you := ""
		if v.May {
			you = "may answer"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(r.ID), clock(r.Created), printable(state), you,
			personName(r.Principal.Subject, r.Principal.Issuer, ""), brief(r.Workload.Name, 30), brief(r.Target.Name, 30),
			brief(r.Policy+"/"+r.Rule, 40), asked(r, 60))
	}
	return w.Flush()
}

// asked is in one line what a request is for.
func asked(r approval.Request, length int) string {
	if r.About == approval.AboutSession {
		return "a session"
	}
	return brief(r.Text, length)
}

func approvalsShowCommand(flags *deskFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "Show all that is known of a request", Args: usageArgs(cobra.ExactArgs(1))}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return exitStatus{2, err}
		}
		return flags.asks(func(cmd *cobra.Command, c *client.Client, args []string) error {
			v, err := c.Approval(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printAsJSON(cmd.OutOrStdout(), v, "  ")
			}
			return printView(cmd.OutOrStdout(), v)
		})(cmd, args)
	}
	return cmd
}

// answerOptions are the flags of "chaperone approvals approve" and "deny".
type answerOptions struct {
	verdict  approval.Verdict
	reason   string
	standing time.Duration
	terminal *terminal // nil: it was said that nobody is to be asked
}

func approvalsAnswerCommand(flags *deskFlags, verdict approval.Verdict) *cobra.Command {
	o := answerOptions{verdict: verdict}
	var life string
	var sure bool
	cmd := &cobra.Command{Use: string(verdict) + " ID", Short: "Say no to a request, which decides it", Args: usageArgs(cobra.ExactArgs(1))}
	f := cmd.Flags()
	f.StringVar(&o.reason, "reason", "", "why, for who asks later")
	f.BoolVarP(&sure, "yes", "y", false, "answer without being asked again")
	if verdict == approval.Yes {
		cmd.Short = "Say yes to a request"
		f.StringVar(&life, "for", "", `let the same job do the same kind of thing for that long ("30m"), where the rule allows it`)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if o.standing, err = parseFor(life); err != nil {
			return err
		}
		if len(o.reason) > api.MaxReason {
			return usage("--reason: want at most %d bytes", api.MaxReason)
		}
		if !sure {
			var there bool
			if o.terminal, there = terminalOf(cmd.InOrStdin(), cmd.OutOrStdout()); !there {
				return usage("nobody can be asked whether to %s, as input comes from no terminal. Look at the request with \"chaperone approvals show %s\", and give --yes",
					verdict, printable(args[0]))
			}
		}
		return flags.asks(func(cmd *cobra.Command, c *client.Client, args []string) error {
			v, err := c.Approval(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return o.answer(cmd.Context(), cmd.OutOrStdout(), c, v)
		})(cmd, args)
	}
	return cmd
}

// errUnanswered is returned when a person decided not to answer.
var errUnanswered = errors.New("nothing was answered")

// answer shows the request and, if the person agrees, answers what was shown.
func (o *answerOptions) answer(ctx context.Context, out io.Writer, c *client.Client, v api.View) error {
	r := v.Request
	if err := printView(out, v); err != nil {
		return err
	}
	switch {
	case !v.May:
		return fmt.Errorf("you can't answer %s: %s", printable(r.ID), printable(v.MayNot))
	case o.standing > r.Standing && r.Standing == 0:
		return fmt.Errorf("--for: the rule has each such request asked for; leave it out to answer this one")
	case o.standing > r.Standing:
		return fmt.Errorf("--for: the rule lets an answer stand for %s at most", span(r.Standing))
	}
	if o.terminal != nil {
		typed, err := o.terminal.ask(ctx, fmt.Sprintf("\n%s? [y/N]", o.verdict))
		if errors.Is(err, context.Canceled) {
			return errUnanswered
		}
		if err != nil {
			return err
		}
		if !yes(typed) {
			return errUnanswered
		}
	}
	return o.vote(ctx, out, c, v)
}

// vote answers, for what the person was shown.
func (o *answerOptions) vote(ctx context.Context, out io.Writer, c *client.Client, v api.View) error {
	after, err := c.Vote(ctx, v.Request.ID, api.VoteRequest{
		Verdict: o.verdict, Digest: v.Request.Digest, Reason: o.reason, Standing: policy.Duration(o.standing),
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\n%s: %s\n", printable(after.Request.ID), outcome(after))
	return err
}

// outcome is what a request has come to.
func outcome(v api.View) string {
	switch v.State {
	case approval.StatePending:
		have, want := quorum(v)
		if have == 0 {
			return "it waits for people"
		}
		return fmt.Sprintf("%d of %d have said yes; it waits for more", have, want)
	case approval.StateApproved:
		if v.Request.Mode == policy.ModeRetry {
			return "approved; it runs when it is sent again"
		}
		return "approved"
	case approval.StateUsed:
		return "approved, and it ran"
	}
	text := printable(string(v.State))
	if v.Message != "" {
		text += ": " + printable(v.Message)
	}
	return text
}

// quorum is how many have said yes, and how many must.
func quorum(v api.View) (have, want int) {
	for _, vote := range v.Votes {
		if vote.Verdict == approval.Yes {
			have++
		}
	}
	return have, max(v.Request.Count, 1)
}

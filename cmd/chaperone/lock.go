package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/desk/client"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/pkg/policy"
)

func lockCommand(flags *deskFlags) *cobra.Command {
	var r api.LockRequest
	var life string
	cmd := &cobra.Command{
		Use:   "lock [--principal SUBJECT@ISSUER] [--workload W] [--target T] [--session S] --for 1h [--reason R]",
		Short: "Cut sessions on all nodes, and refuse new ones, until a time",
		Long:  "Cut what matches on all nodes, and refuse it until the time is over or the lock is released. All that is given must match.",
		Args:  usageArgs(cobra.NoArgs),
	}
	flags.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&r.Principal, "principal", "", "who the jobs act for, as subject@issuer")
	f.StringVar(&r.Workload, "workload", "", "a job's name or id, or its Workload document")
	f.StringVar(&r.Target, "target", "", "name of a Target document")
	f.StringVar(&r.Session, "session", "", "a session's id")
	f.StringVar(&life, "for", "", `how long it holds: "1h" (required)`)
	f.StringVar(&r.Reason, "reason", "", "why, for who asks later")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return exitStatus{2, err}
		}
		d, err := parseFor(life)
		switch {
		case err != nil:
			return err
		case d == 0:
			return usage(`--for: say how long the lock holds, such as "1h"`)
		case r.Principal == "" && r.Workload == "" && r.Target == "" && r.Session == "":
			return usage("say what to lock: --principal, --workload, --target or --session")
		case r.Principal != "" && !isPrincipal(r.Principal):
			return usage("--principal %q: want subject@issuer, where the issuer is an IdentityProvider document or local", r.Principal)
		}
		r.For = policy.Duration(d)
		return flags.asks(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			e, err := c.Lock(cmd.Context(), r)
			if err != nil {
				return err
			}
			if asJSON {
				return printAsJSON(cmd.OutOrStdout(), e, "  ")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Locked %s until %s: %s\nRelease it with: chaperone unlock %s\n",
				printable(e.Lock.ID), clock(e.Lock.Expires), locked(e.Lock), printable(e.Lock.ID))
			return err
		})(cmd, args)
	}
	return cmd
}

func isPrincipal(text string) bool {
	subject, issuer, found := cutLast(text, "@")
	return found && subject != "" && issuer != ""
}

func locksCommand(flags *deskFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "locks", Short: "List locks, newest first", Args: usageArgs(cobra.NoArgs)}
	return shows(flags, cmd, (*client.Client).Locks, func(out io.Writer, list []lock.Entry) error {
		return printLocks(out, list, time.Now())
	})
}

func printLocks(out io.Writer, list []lock.Entry, now time.Time) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "There are no locks.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LOCK\tSTATE\tLOCKED\tBY\tSINCE\tUNTIL\tREASON")
	for _, e := range list {
		l := e.Lock
		state, until, reason := "in force", l.Expires, l.Reason
		switch {
		case e.Released != nil:
			state, until = "released", *e.Released
			if e.ReleasedBy != nil {
				state += " by " + personName(e.ReleasedBy.Subject, e.ReleasedBy.Issuer, "")
			}
			if e.ReleaseReason != "" {
				reason = strings.TrimPrefix(reason+"; released: "+e.ReleaseReason, "; ")
			}
		case !now.Before(l.Expires):
			state = "over"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(l.ID), state, locked(l), personName(l.By.Subject, l.By.Issuer, ""),
			clock(l.Created), clock(until), brief(reason, 60))
	}
	return w.Flush()
}

// locked is what a lock is about.
func locked(l lock.Lock) string {
	var parts []string
	for _, p := range []struct{ name, value string }{{"principal", l.Principal}, {"workload", l.Workload}, {"target", l.Target}, {"session", l.Session}} {
		if p.value != "" {
			parts = append(parts, p.name+" "+brief(p.value, 80))
		}
	}
	return strings.Join(parts, ", ")
}

func unlockCommand(flags *deskFlags) *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "unlock ID", Short: "Release a lock before its time", Args: usageArgs(cobra.ExactArgs(1))}
	flags.bind(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for who asks later")
	cmd.RunE = flags.asks(func(cmd *cobra.Command, c *client.Client, args []string) error {
		list, err := c.Locks(cmd.Context())
		if err != nil {
			return err
		}
		id, err := lockID(list, args[0])
		if err != nil {
			return err
		}
		e, err := c.Unlock(cmd.Context(), id, reason)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Released %s: %s\n", printable(e.Lock.ID), locked(e.Lock))
		return err
	})
	return cmd
}

// lockID is the id that begins so. One that isn't in the list is left to the sink,
// which says why not.
func lockID(list []lock.Entry, begin string) (string, error) {
	begin = strings.ToLower(begin)
	if !strings.HasPrefix(begin, "l-") {
		begin = "l-" + begin
	}
	found := begin
	for n, e := range list {
		if !strings.HasPrefix(e.Lock.ID, begin) {
			continue
		}
		for _, other := range list[n+1:] {
			if strings.HasPrefix(other.Lock.ID, begin) {
				return "", usage("more than one lock begins with %q: give more of it", begin)
			}
		}
		found = e.Lock.ID
		break
	}
	return found, nil
}

package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/recording"
)

func sessionsCommand(flags *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "sessions", Short: "List, show, replay and verify recorded sessions"}
	flags.bind(cmd)
	cmd.AddCommand(sessionsListCommand(flags), sessionsShowCommand(flags), sessionsReplayCommand(flags), sessionsVerifyCommand(flags))
	return cmd
}

func sessionsListCommand(flags *clientFlags) *cobra.Command {
	var q sink.Query
	var since string
	cmd := &cobra.Command{Use: "list", Short: "List sessions, newest first", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&q.Principal, "principal", "", `only of this principal: "subject" or "subject@issuer"`)
	cmd.Flags().StringVar(&q.Target, "target", "", "only to this target")
	cmd.Flags().StringVar(&since, "since", "", `only those started since: "2h", or an RFC 3339 time`)
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", 100, "at most so many")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		if q.Since, err = parseSince(since); err != nil {
			return err
		}
		list, err := flags.client().Sessions(cmd.Context(), q)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "SESSION\tSTARTED\tLASTED\tPRINCIPAL\tWORKLOAD\tTARGET\tCOMMANDS\tDENIED\tROWS\tEND\tRECORDING")
		for _, s := range list {
			lasted, end := "", "open"
			if s.Ended != nil {
				lasted, end = s.Ended.Sub(s.Started).Round(time.Millisecond).String(), s.Reason
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", printable(s.ID), s.Started.Local().Format(time.DateTime), lasted,
				brief(s.Principal, 40), brief(s.Workload, 30), brief(s.Target, 30), s.Commands, s.Denied, s.Rows, brief(end, 30), s.State)
		}
		return w.Flush()
	}
	return cmd
}

func sessionsShowCommand(flags *clientFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "show SESSION", Short: "Show what is known of a session", Args: cobra.ExactArgs(1)}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return err
		}
		s, err := flags.client().Session(cmd.Context(), args[0])
		if err != nil {
			return notFound(err, args[0])
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), s)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		line := func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "%s\t%s\n", name, printable(value))
			}
		}
		line("Session", s.ID)
		line("Principal", s.Principal)
		line("Workload", s.Workload)
		line("Target", s.Target)
		line("Account", s.Credential)
		line("Application", s.Application)
		line("Node", s.Node)
		line("Started", s.Started.Local().Format(time.RFC3339))
		if s.Ended != nil {
			line("Ended", fmt.Sprintf("%s, %s", s.Ended.Local().Format(time.RFC3339), s.Reason))
		}
		line("Commands", fmt.Sprintf("%d, of them %d denied", s.Commands, s.Denied))
		line("Results", fmt.Sprintf("%d rows, %d bytes", s.Rows, s.BytesOut))
		line("Recording", fmt.Sprintf("%s, %d blocks, %d frames", s.State, s.Blocks, s.Frames))
		line("Root", s.Root)
		line("Fault", s.Fault)
		return w.Flush()
	}
	return cmd
}

func sessionsReplayCommand(flags *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "replay SESSION", Short: "Show what happened in a session, step by step", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client := flags.client()
			keys, err := client.Keys(cmd.Context())
			if err != nil {
				return err
			}
			codec, err := recording.NewCodec()
			if err != nil {
				return err
			}
			t := newTimeline(cmd.OutOrStdout())
			check := newChecker(codec, args[0], keys)
			err = client.Blocks(cmd.Context(), args[0], func(data []byte) error {
				b := check.add(data)
				if b == nil {
					return nil
				}
				return t.block(b)
			})
			if err != nil {
				return notFound(err, args[0])
			}
			if err := t.finish(); err != nil {
				return err
			}
			line, err := check.result()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), line)
			return err
		},
	}
}

func sessionsVerifyCommand(flags *clientFlags) *cobra.Command {
	var key, file string
	cmd := &cobra.Command{
		Use:   "verify [SESSION]",
		Short: "Check that a recording is whole and unchanged",
		Long: `Check that a recording is whole, unchanged and signed by its node. Exits with 1,
and says which block, when it is not.

Without --key the keys that the sink knows are trusted; give the node's own (it
is in its node.started event) to trust nobody in between. With --file a saved
recording is checked, and no sink is asked for it.`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVar(&key, "key", "", "the node's Ed25519 public key, base64")
	cmd.Flags().StringVar(&file, "file", "", "a recording's file, as the sink keeps it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file == "" && len(args) == 0 {
			return errors.New("name a session, or a --file")
		}
		id := ""
		if len(args) == 1 {
			id = args[0]
		}
		keys, err := trusted(cmd, flags, key)
		if err != nil {
			return err
		}
		codec, err := recording.NewCodec()
		if err != nil {
			return err
		}
		check := newChecker(codec, id, keys)
		each := func(data []byte) error {
			check.add(data)
			return nil
		}
		if file != "" {
			err = eachInFile(file, each)
		} else {
			err = notFound(flags.client().Blocks(cmd.Context(), id, each), id)
		}
		if err != nil {
			return err
		}
		line, err := check.result()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), line)
		return err
	}
	return cmd
}

// trusted are the keys that a signature may be of.
func trusted(cmd *cobra.Command, flags *clientFlags, given string) (map[string]ed25519.PublicKey, error) {
	if given == "" {
		return flags.client().Keys(cmd.Context())
	}
	raw, err := base64.StdEncoding.DecodeString(given)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("--key: want 32 bytes in base64, as in the node.started event")
	}
	return map[string]ed25519.PublicKey{"given": raw}, nil
}

func eachInFile(path string, f func([]byte) error) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	return sink.ReadBlocks(in, f)
}

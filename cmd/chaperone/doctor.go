package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/doctor"
)

// exitUsage is the exit code of "doctor" for words that it doesn't understand.
const exitUsage = 2

func doctorCommand() *cobra.Command {
	var opts doctor.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor [--config DIR] [--state DIR] [--json]",
		Short: "Say what this machine has of what a node needs, and what to do about the rest",
		Long: `Say what this machine has of what a node needs, and what to do about the rest:
kernel, cgroups, capabilities, files, NATS, issuers and targets.

It changes nothing, logs in to no target, and works beside a running daemon and
without one. Run it as root: another user is told what could not be seen.

Exits with 0 when no check failed, 1 when one did, and 2 for wrong usage.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return exitStatus{exitUsage, err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			results, err := doctor.Run(cmd.Context(), opts)
			if err != nil {
				return err
			}
			write := doctor.Write
			if asJSON {
				write = doctor.WriteJSON
			}
			if err := write(cmd.OutOrStdout(), results); err != nil {
				return err
			}
			if n := doctor.Failed(results); n > 0 {
				return fmt.Errorf("%d of %d checks failed", n, len(results))
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitStatus{exitUsage, err} })
	cmd.Flags().StringVar(&opts.Config, "config", "/etc/chaperone", "folder of the documents")
	cmd.Flags().StringVar(&opts.State, "state", "/var/lib/chaperone", "the daemon's state folder")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array of {check, status, found, missing, do}")
	return cmd
}

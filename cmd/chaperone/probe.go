package main

import (
	"os"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/intercept"
)

// probeCommand is what the daemon runs inside of a planner's cgroup at its
// start, to see with its own eyes that connections are diverted.
func probeCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "probe ADDRESS",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return intercept.Probe(cmd.Context(), os.Stdout, args[0])
		},
	}
}

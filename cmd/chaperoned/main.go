// Command chaperoned is the node daemon for a cluster of nodes: it publishes to
// the NATS servers that its Node document names. On one machine "chaperone up"
// is the same daemon with NATS and the sink in its process.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/logging"
	"chaperone.dev/chaperone/internal/node"
	"chaperone.dev/chaperone/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaperoned:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var config, state, level string
	var takeOver bool
	var drainTimeout time.Duration
	cmd := &cobra.Command{
		Use:           "chaperoned --config DIR [--state DIR]",
		Short:         "Enforce on this node and publish to NATS",
		Version:       version.Version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logging.New(os.Stderr, level)
			if err != nil {
				return err
			}
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			return node.Run(cmd.Context(), node.Options{
				Config: config, State: state, TakeOver: takeOver, DrainTimeout: drainTimeout, Reload: reload, Probe: []string{"/proc/self/exe", "probe"}, Log: log,
				Ready: func(s node.Status) {
					fmt.Fprintf(cmd.OutOrStdout(), "chaperoned enforces on node %s, documents %s, and publishes to %s\n", s.Node, s.Revision, s.NATS)
				},
			})
		},
	}
	cmd.Flags().StringVar(&config, "config", "/etc/chaperone", "folder of the documents")
	cmd.Flags().StringVar(&state, "state", "/var/lib/chaperone", "folder of keys, ledger and journal")
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "have a daemon that runs already hand over to this one; its sessions go on")
	cmd.Flags().DurationVar(&drainTimeout, "drain-timeout", time.Hour, "how long this daemon goes on with its sessions after it has handed over")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.AddCommand(probeCommand())
	return cmd
}

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

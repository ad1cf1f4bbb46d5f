package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/logging"
	"chaperone.dev/chaperone/internal/node"
)

func upCommand() *cobra.Command {
	var config, state, level, natsListen string
	var takeOver bool
	var drainTimeout time.Duration
	cmd := &cobra.Command{
		Use:   "up --config DIR [--state DIR]",
		Short: "Run the daemon, NATS and the sink in one process on this machine",
		Long: `Run the daemon, a NATS server with JetStream, and the sink in one process: all
that one machine needs.

SIGHUP reads the documents again; a set that is refused changes nothing.
SIGTERM stops the process, ends its sessions and revokes what it granted. The
kernel goes on to divert planners' connections, which are then refused, until
the daemon runs again or "chaperone detach" ends enforcement.

With --take-over a daemon that runs already hands over to this one, with no
connection refused: it goes on with the sessions that it has, and ends with the
last of them. If this one can't start, the other goes on as before.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logging.New(os.Stderr, level)
			if err != nil {
				return err
			}
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			return node.Run(cmd.Context(), node.Options{
				Config: config, State: state, Embedded: true, NATSListen: natsListen,
				TakeOver: takeOver, DrainTimeout: drainTimeout, Reload: reload, Probe: []string{"/proc/self/exe", "probe"}, Log: log,
				Ready: func(s node.Status) { printStatus(cmd.OutOrStdout(), s) },
			})
		},
	}
	cmd.Flags().StringVar(&config, "config", "/etc/chaperone", "folder of the documents")
	cmd.Flags().StringVar(&state, "state", "/var/lib/chaperone", "folder of keys, ledger, journal, events and recordings")
	cmd.Flags().StringVar(&natsListen, "nats-listen", "127.0.0.1:4222", "where the NATS server listens; empty for nowhere")
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "have a daemon that runs already hand over to this one; its sessions go on")
	cmd.Flags().DurationVar(&drainTimeout, "drain-timeout", time.Hour, "how long this daemon goes on with its sessions after it has handed over")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func printStatus(w io.Writer, s node.Status) {
	fmt.Fprintf(w, "chaperone enforces on node %s, documents %s\n", s.Node, s.Revision)
	fmt.Fprintf(w, "  run a planner   chaperone run --name NAME -- COMMAND\n")
	fmt.Fprintf(w, "  see events      chaperone events tail --follow\n")
	fmt.Fprintf(w, "  or with nats    nats sub --server %s --nkey %s 'chaperone.event.>'\n", s.NATS, s.Auditor)
}

func detachCommand() *cobra.Command {
	var pinDir string
	cmd := &cobra.Command{
		Use:   "detach",
		Short: "End enforcement: take the kernel programs of a stopped daemon away",
		Long: `End enforcement on this machine: take the kernel programs and maps away that a
stopped daemon left in force. Planners that still run then reach targets
directly, as they did before Chaperone was installed.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return intercept.Detach(pinDir) },
	}
	cmd.Flags().StringVar(&pinDir, "pin-dir", "/sys/fs/bpf/chaperone", "the Node document's pinDir")
	return cmd
}

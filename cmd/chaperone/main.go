// Command chaperone is what people type: it runs planner jobs, starts the
// one-machine daemon, and shows what was recorded.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/version"
)

func main() {
	// A planner's process is never held up by our own handling of signals:
	// "run" replaces this process before any could come.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := rootCommand().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "chaperone:", err)
	var status exitStatus
	if errors.As(err, &status) {
		os.Exit(status.code)
	}
	os.Exit(1)
}

// exitStatus is an error with an exit code of its own.
type exitStatus struct {
	code int
	err  error
}

func (e exitStatus) Error() string { return e.err.Error() }
func (e exitStatus) Unwrap() error { return e.err }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "chaperone",
		Short:         "Keep AI planner jobs on short-lived credentials, policy, masks and records",
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	runDir := root.PersistentFlags().String("run-dir", envOr("CHAPERONE_RUN_DIR", "/run/chaperone"),
		"folder of the daemon's and the sink's sockets ($CHAPERONE_RUN_DIR)")
	root.AddCommand(
		upCommand(),
		runCommand(runDir),
		admitCommand(runDir),
		detachCommand(),
		doctorCommand(),
		policyCommand(),
		natsCommand(),
		demoCommand(),
		probeCommand(),
	)
	addSinkCommands(root, runDir)
	addDeskCommands(root, runDir)
	return root
}

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/control"
)

// exitNotAdmitted is the one exit code of an ExecCondition= that makes the unit fail.
// Those from 1 to 254 have it skipped, as if nothing were wrong (systemd.service(5)).
const exitNotAdmitted = 255

// awayPause is how long to wait for a daemon that may be about to start.
const awayPause = 100 * time.Millisecond

func admitCommand(runDir *string) *cobra.Command {
	var timeout time.Duration
	var planner bool
	cmd := &cobra.Command{
		Use:   "admit [--planner] [--timeout 30s]",
		Short: "Hold a systemd unit until the daemon enforces what it may do",
		Long: `Hold a systemd unit until the daemon enforces what it may do. As a drop-in,

  [Service]
  ExecCondition=/usr/bin/chaperone admit --planner

it runs in the unit's own cgroup before the unit does. It ends with 0 when that
cgroup is a planner's and is served in the unit's network namespace, and, without
--planner, also when it is known to be no planner's. Otherwise, and when the
daemon does not answer in time, it ends with 255, which makes the unit fail.`,
		Args: func(cmd *cobra.Command, args []string) error { return notAdmitted(cobra.NoArgs(cmd, args)) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			return notAdmitted(admit(cmd.Context(), cmd.OutOrStdout(), filepath.Join(*runDir, control.SocketName), timeout, planner))
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait, for the daemon too")
	cmd.Flags().BoolVar(&planner, "planner", false, "fail if the unit is known to be no planner")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return notAdmitted(err) })
	return cmd
}

func notAdmitted(err error) error {
	if err == nil {
		return nil
	}
	return exitStatus{exitNotAdmitted, err}
}

// admit returns nil when the calling process may go on.
func admit(ctx context.Context, out io.Writer, socket string, timeout time.Duration, planner bool) error {
	if timeout < time.Millisecond || timeout > control.MaxAdmissionWait {
		return fmt.Errorf("--timeout %s must be between 1ms and %s", timeout, control.MaxAdmissionWait)
	}
	reply, err := waitAdmission(ctx, socket, timeout)
	switch {
	case err != nil:
		return fmt.Errorf("not admitted: %w", err)
	case reply.Planner:
		fmt.Fprintf(out, "admitted as planner job %s of workload %s\n", reply.Job, reply.Workload)
	case planner:
		return fmt.Errorf("not admitted: no Workload document selects the unit of cgroup %s, so it would run as no planner", reply.Cgroup)
	default:
		fmt.Fprintln(out, "admitted as no planner")
	}
	return nil
}

// waitAdmission asks until the daemon has an answer. One that is away may be starting.
func waitAdmission(ctx context.Context, socket string, timeout time.Duration) (control.AdmissionReply, error) {
	deadline := time.Now().Add(timeout)
	// The daemon knows better what was waited for, so it gives up first.
	const grace = 2 * time.Second
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(grace))
	defer cancel()
	for {
		left := max(time.Until(deadline).Milliseconds(), 1)
		reply, err := control.Admit(ctx, socket, control.AdmissionRequest{WaitMillis: left})
		if err == nil || !errors.Is(err, control.ErrAway) || !time.Now().Add(awayPause).Before(deadline) {
			return reply, err
		}
		select {
		case <-ctx.Done():
			return reply, err
		case <-time.After(awayPause):
		}
	}
}

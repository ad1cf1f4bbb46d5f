package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"chaperone.dev/chaperone/internal/confine"
	"chaperone.dev/chaperone/internal/control"
)

// startTimeout bounds the wait for the daemon to open a job.
const startTimeout = 30 * time.Second

// Exit codes of "run" itself; any other is the command's own. They are those
// that a shell gives (POSIX 2.8.2).
const (
	exitNotStarted = 125 // the job was not opened
	exitNotRunable = 126
	exitNotFound   = 127
)

func runCommand(runDir *string) *cobra.Command {
	var name, tokenFile, user string
	cmd := &cobra.Command{
		Use:   "run --name NAME [--token-file FILE] [--user USER] -- COMMAND [ARG...]",
		Short: "Run a command as a planner job",
		Long: `Run a command as a planner job.

The command's connections to protected targets go through the local daemon,
from its first instruction on and for all of its children. The command needs
no change: it keeps its host names and its clients, and needs no password.

The command replaces this process, so signals, the terminal and the exit code
are its own. The job ends when its last process is gone, and its credentials
with it.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := run(cmd.Context(), runOptions{
				socket: filepath.Join(*runDir, control.SocketName), name: name, tokenFile: tokenFile, user: user,
			}, args)
			var status exitStatus
			if errors.As(err, &status) {
				return err
			}
			return exitStatus{exitNotStarted, err}
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the job, which Workload documents select by (required)")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the job's OIDC token, which is read again before it expires")
	cmd.Flags().StringVar(&user, "user", "", "run the command as this user (root only)")
	_ = cmd.MarkFlagRequired("name")
	return cmd
}

type runOptions struct {
	socket    string
	name      string
	tokenFile string
	user      string
}

// run turns this process into the job's first process, and that into the
// command. It returns only when it fails.
func run(ctx context.Context, opts runOptions, args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return exitStatus{exitNotRunable, err}
		}
		return exitStatus{exitNotFound, err}
	}
	tokenFile, err := tokenPath(opts.tokenFile)
	if err != nil {
		return err
	}
	var identity *confine.Identity
	if opts.user != "" {
		if identity, err = confine.LookUp(opts.user); err != nil {
			return err
		}
	}
	// What is open now was opened outside of the job, and a socket keeps the
	// cgroup that it was made in.
	if err := confine.CloseInheritedSockets(); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	reply, err := startJob(ctx, opts.socket, control.JobRequest{Name: opts.name, TokenFile: tokenFile})
	if err != nil {
		return fmt.Errorf("job %q was not started: %w", opts.name, err)
	}
	if err := confine.ShowKnownHosts(reply.KnownHosts); err != nil {
		return err
	}
	if err := confine.HideEnforcement(); err != nil {
		return err
	}
	if err := confine.Drop(identity); err != nil {
		return err
	}
	env := environment(environment(os.Environ(), identity.Environment()), reply.Environment)
	err = syscall.Exec(path, args, env)
	return exitStatus{exitNotRunable, fmt.Errorf("%s: %w", path, err)}
}

// upgradeTime is how long a daemon may be away while another one takes over from it.
const upgradeTime = 3 * time.Second

// startJob asks again while no daemon answers, for as long as an upgrade takes.
func startJob(ctx context.Context, socket string, req control.JobRequest) (control.JobReply, error) {
	away := time.NewTimer(upgradeTime)
	defer away.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		reply, err := control.StartJob(ctx, socket, req)
		if !errors.Is(err, control.ErrAway) {
			return reply, err
		}
		select {
		case <-again.C:
		case <-away.C:
			return reply, err
		case <-ctx.Done():
			return reply, err
		}
	}
}

// tokenPath is where the daemon finds the token, which it reads with the rights of who
// asks, now and whenever it is renewed. What is plainly wrong is told without it.
func tokenPath(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("token %s: it is no regular file; the daemon reads it again before the token expires, so it must stay where it is", file)
	}
	return path, nil
}

// environment replaces variables: a client must trust the node's CA even
// where the job's own configuration names another.
func environment(inherited []string, set map[string]string) []string {
	result := make([]string, 0, len(inherited)+len(set))
	for _, entry := range inherited {
		name, _, _ := strings.Cut(entry, "=")
		if _, replaced := set[name]; !replaced {
			result = append(result, entry)
		}
	}
	for name, value := range set {
		result = append(result, name+"="+value)
	}
	return result
}

package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"chaperone.dev/chaperone/internal/stage"
)

// stay leaves everything up and hands the person a shell inside of it.
func (d *demo) stay(ctx context.Context) error {
	d.say(`
Everything stays up until you leave this shell. Try:

  chaperone run --name nightly-mine -- psql '%s'
  chaperone run --name nightly-mine -- psql '%s' -c '\d customers' -c 'SELECT c FROM customers c'
  chaperone sessions list
  chaperone sessions replay %s
  chaperone events tail --follow
  $EDITOR %s && kill -HUP %d
`, stage.ConnString, stage.ConnString, d.session, filepath.Join(d.stage.ConfigDir(), "policy.yaml"), d.daemon.PID())
	shell := os.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	// Not bounded by ctx: an interrupt typed in the shell is the shell's.
	cmd := exec.Command(shell)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(),
		"CHAPERONE_RUN_DIR="+d.stage.RunDir(),
		"PATH="+filepath.Dir(d.options.Binary)+":"+os.Getenv("PATH"))
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		if _, exited := err.(*exec.ExitError); !exited {
			return fmt.Errorf("the shell: %w", err)
		}
	}
	return nil
}

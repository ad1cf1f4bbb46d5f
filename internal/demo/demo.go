// Package demo walks through the main job on a real machine: it says before
// each step what will happen, does it with the commands that a person would
// type, shows what they print, and checks that it did happen.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/stage"
)

// Options configure a demonstration.
type Options struct {
	// Binary is the chaperone binary. Required.
	Binary string
	// Stay leaves everything up after the last step, until the shell that is
	// started in it ends.
	Stay bool
	// Out is where the demonstration is told.
	Out io.Writer
}

// stepTimeout bounds each step: what takes longer did not happen.
const stepTimeout = 60 * time.Second

// demo is a running demonstration.
type demo struct {
	options Options
	stage   *stage.Stage
	daemon  *stage.Daemon
	company *company
	job     *planner
	session string
	steps   int
}

// Run demonstrates, and returns the first thing that did not happen as it was
// said. The calling process is in the namespace of [stage.Isolate].
func Run(ctx context.Context, options Options) (err error) {
	d := &demo{options: options}
	log, err := os.CreateTemp("", "chaperone-demo-*.log")
	if err != nil {
		return err
	}
	defer log.Close()
	d.say("Setting up: PostgreSQL with TLS behind the host name %s, sample data, documents, an OpenID provider.", stage.Host)
	if d.company, err = openCompany(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.company.provider.Close()) }()
	d.stage, err = stage.New(ctx, stage.Options{Binary: options.Binary, Log: log, Documents: d.company.documents()})
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
		defer cancel()
		err = errors.Join(err, d.stage.Close(closing))
		if err != nil {
			err = fmt.Errorf("%w\nWhat the daemon and the server logged is in %s", err, log.Name())
			return
		}
		os.Remove(log.Name())
		d.say("\nAll %d steps did what they said. Nothing is left behind.", d.steps)
	}()
	if err := os.WriteFile(d.stage.Path("idp-ca.pem"), d.company.provider.CAPEM(), 0o644); err != nil {
		return err
	}
	for _, step := range d.script() {
		if err := d.perform(ctx, step); err != nil {
			return err
		}
	}
	if options.Stay {
		return d.stay(ctx)
	}
	return nil
}

// step is one thing that is said and then done.
type step struct {
	title string
	do    func(context.Context) error
}

func (d *demo) perform(ctx context.Context, s step) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	d.steps++
	d.say("\n%d. %s", d.steps, s.title)
	if err := s.do(ctx); err != nil {
		return fmt.Errorf("step %d (%s): %w", d.steps, s.title, err)
	}
	d.say("   ✓")
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.options.Out, format+"\n", args...) }

// show runs a command, shows it and what it prints, and returns that with the
// error of its exit code.
func (d *demo) show(cmd *exec.Cmd) (string, error) {
	d.say("   $ %s", quoted(cmd.Args))
	out, err := cmd.CombinedOutput()
	d.print(string(out))
	return string(out), err
}

func (d *demo) print(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprint(d.options.Out, "     ", line)
	}
	if text != "" {
		fmt.Fprintln(d.options.Out)
	}
}

// quoted writes a command as one would type it.
func quoted(args []string) string {
	plain := regexp.MustCompile(`^[\w@%+=:,./-]+$`)
	words := make([]string, len(args))
	for i, arg := range args {
		if i == 0 {
			arg = filepath.Base(arg)
		}
		if !plain.MatchString(arg) {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words[i] = arg
	}
	return strings.Join(words, " ")
}

// expect checks that what was said is there, and what must not be is not.
func expect(output string, err error, want []string, never ...string) error {
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(output))
	}
	for _, text := range want {
		if !strings.Contains(output, text) {
			return fmt.Errorf("there is no %q in what it printed: %s", text, output)
		}
	}
	for _, text := range never {
		if strings.Contains(output, text) {
			return fmt.Errorf("%q is in what it printed", text)
		}
	}
	return nil
}

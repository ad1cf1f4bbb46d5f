package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"chaperone.dev/chaperone/internal/stage"
)

// planner is a program inside of a planner job, psql or a shell, that is
// spoken to line by line.
type planner struct {
	demo   *demo
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string
	asked  int
	prompt string // shown before what is typed
	echo   string // the program's command that prints a word
	quit   string // shown when it is left
}

// startPsql starts a planner job whose only process is psql.
func (d *demo) startPsql(name string) (*planner, error) {
	p := &planner{prompt: "planner=>", echo: `\echo`, quit: `\q`}
	return p, p.start(d, name, stage.Psql("-v", "ON_ERROR_STOP=0")...)
}

// startShell starts a planner job whose first process is a shell.
func (d *demo) startShell(name string) (*planner, error) {
	p := &planner{prompt: "planner$", echo: "echo", quit: "exit"}
	return p, p.start(d, name, "sh")
}

// startPsqlAs starts such a job that proves with a token who it acts for.
func (d *demo) startPsqlAs(name, tokenFile string) (*planner, error) {
	p := &planner{prompt: "refund=>", echo: `\echo`, quit: `\q`}
	words := append([]string{"run", "--name", name, "--token-file", tokenFile, "--"}, stage.Psql("-v", "ON_ERROR_STOP=0")...)
	return p, p.run(d, d.stage.Command(context.Background(), words...))
}

func (p *planner) start(d *demo, name string, command ...string) error {
	// The job lives as long as its processes, not as long as a step.
	return p.run(d, d.stage.Planner(context.Background(), name, command...))
}

func (p *planner) run(d *demo, cmd *exec.Cmd) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	d.say("   $ %s", quoted(cmd.Args))
	if err := cmd.Start(); err != nil {
		return err
	}
	p.demo, p.cmd, p.in, p.lines = d, cmd, in, make(chan string)
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	return nil
}

// ask types lines, and returns what the program prints until it has run them.
func (p *planner) ask(ctx context.Context, lines ...string) (string, error) {
	p.asked++
	mark := fmt.Sprintf("-- %d --", p.asked)
	p.demo.say("   %s %s", p.prompt, strings.TrimSpace(strings.Join(lines, " ")))
	if _, err := fmt.Fprintf(p.in, "%s\n%s '%s'\n", strings.Join(lines, "\n"), p.echo, mark); err != nil {
		return "", fmt.Errorf("the planner is gone: %w", err)
	}
	var said strings.Builder
	for {
		select {
		case <-ctx.Done():
			return said.String(), errors.New("the planner did not answer in time")
		case line, ok := <-p.lines:
			if !ok {
				return said.String(), errors.New("the planner ended")
			}
			if line == mark {
				return said.String(), nil
			}
			said.WriteString(line + "\n")
		}
	}
}

// leave ends the program, and with it the job.
func (p *planner) leave(ctx context.Context) error {
	p.demo.say("   %s %s", p.prompt, p.quit)
	if err := p.in.Close(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("the planner did not end in time"), p.cmd.Process.Kill())
		case _, ok := <-p.lines:
			if !ok {
				return p.cmd.Wait()
			}
		}
	}
}

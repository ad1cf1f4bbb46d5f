package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"chaperone.dev/chaperone/internal/desk/client"
	"chaperone.dev/chaperone/internal/node"
	"chaperone.dev/chaperone/internal/stage"
)

// world is a stage with a daemon, and a person at the sink's socket.
type world struct {
	stage *stage.Stage
	desk  *client.Client
	log   *os.File
	self  string // this program, where every user may run it
}

func setUp(ctx context.Context, dir, binary string, o options) (_ *world, err error) {
	w := &world{self: filepath.Join(dir, "planner")}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(context.WithoutCancel(ctx)))
		}
	}()
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "install", "-m", "0755", own, w.self).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("install: %w\n%s", err, out)
	}
	if w.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	w.stage, err = stage.New(ctx, stage.Options{
		Binary: binary, Log: w.log, Documents: documents(o),
		Postgres: map[string]string{"max_connections": strconv.Itoa(o.sessions + 100)},
	})
	if err != nil {
		return nil, err
	}
	if _, err := w.stage.Up(ctx); err != nil {
		return nil, err
	}
	w.desk, err = client.New(client.Options{Socket: filepath.Join(w.stage.RunDir(), node.SinkSocket)})
	return w, err
}

// documents are the stage's, with room for the sessions and a rule that asks.
func documents(o options) map[string]string {
	all := stage.Documents()
	limits := fmt.Sprintf("  limits: {sessions: %d, sessionsPerJob: %d, connectTimeout: 1m}\n", o.sessions+100, perJob(o)+1)
	ask := `  rules:
    - name: ask
      when: "'orders' in statement.tables || 'public.orders' in statement.tables"
      then: approve
      approval: {from: {subjects: ["root@local"]}}
`
	return map[string]string{
		"node.yaml":   all["node.yaml"] + limits,
		"policy.yaml": strings.Replace(all["policy.yaml"], "  rules:\n", ask, 1),
		"target.yaml": strings.TrimRight(all["target.yaml"], "\n") + fmt.Sprintf("\n      connectionLimit: %d\n", perJob(o)+1),
	}
}

// perJob is the most sessions that a job has.
func perJob(o options) int { return (o.sessions + o.jobs - 1) / o.jobs }

func (w *world) close(ctx context.Context) error {
	var err error
	if w.desk != nil {
		w.desk.Close()
	}
	if w.stage != nil {
		err = w.stage.Close(ctx)
	}
	if w.log != nil {
		err = errors.Join(err, w.log.Close())
	}
	return err
}

// planner is a job that runs this program as a client.
type planner struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// nobodysID is the user whom the jobs act for: nobody answers for a job of their own, and it is
// root who answers here.
const nobodysID = 65534

func (w *world) planner(ctx context.Context, name string, args ...string) (*planner, error) {
	p := &planner{cmd: w.stage.Planner(ctx, name, append([]string{w.self, clientWord}, args...)...)}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = "/", append(p.cmd.Env, "HOME=/nonexistent"), w.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodysID, Gid: nobodysID}}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(out)
	return p, p.cmd.Start()
}

// line is the next that the planner prints. What it prints begins with a word.
func (p *planner) line(word string) ([]string, error) {
	if !p.out.Scan() {
		return nil, errors.New("the client ended")
	}
	words := strings.Fields(p.out.Text())
	if len(words) == 0 || words[0] != word {
		return nil, fmt.Errorf("the client said %q, want %q", p.out.Text(), word)
	}
	return words[1:], nil
}

func (p *planner) end() error {
	p.in.Close()
	kill := time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	for p.out.Scan() { // until it closes its output
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("the client: %w", err)
	}
	return nil
}

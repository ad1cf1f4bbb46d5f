// Command bench measures what a planner pays for Chaperone: the same client
// and the same server, directly, through pgbouncer, through HAProxy, through a
// plain relay, and through Chaperone with policy, masks and recording on. All run in one
// run, in turn, round by round; what is told are medians and ratios. It writes
// docs/benchmarks.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"chaperone.dev/chaperone/internal/stage"
)

func main() {
	// The program is its own client, too, and a relay: see client.go and relay.go.
	if len(os.Args) > 1 && os.Args[1] == clientWord {
		exit(runClient(context.Background(), os.Args[2:]))
	}
	if len(os.Args) == 4 && os.Args[1] == relayWord {
		exit(relay(os.Args[2], os.Args[3]))
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each measurement is made")
	flag.DurationVar(&o.each, "each", 5*time.Second, "how long each pgbench runs")
	only := flag.String("run", "", "measure only what matches this regular expression; writes no report")
	paths := flag.String("paths", "", "measure only the paths that match this regular expression; writes no report")
	flag.StringVar(&o.report, "report", "docs/benchmarks.md", "the file that is written; empty writes none")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		exit(err)
	}
	if o.paths, err = regexp.Compile(*paths); err != nil {
		exit(err)
	}
	if *only != "" || *paths != "" {
		o.report = ""
	}
	exit(run(o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

type options struct {
	rounds int
	each   time.Duration
	report string
	only   *regexp.Regexp
	paths  *regexp.Regexp
}

func run(o options) error {
	if err := stage.Isolate(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "chaperone-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	built, err := buildAll(ctx, dir)
	if err != nil {
		return err
	}
	world, err := setUp(ctx, dir, built)
	if err != nil {
		return err
	}
	results, err := world.measure(ctx, o)
	closing, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if closeErr := world.close(closing); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	text := results.markdown(o)
	fmt.Print(text)
	if o.report == "" {
		return nil
	}
	return os.WriteFile(o.report, []byte(text), 0o644)
}

// binaries are what the paths are made of.
type binaries struct{ chaperone, chaperoned, nats string }

func buildAll(ctx context.Context, dir string) (binaries, error) {
	b := binaries{filepath.Join(dir, "chaperone"), filepath.Join(dir, "chaperoned"), filepath.Join(dir, "nats-server")}
	for path, pkg := range map[string]string{
		b.chaperone: stage.Program, b.chaperoned: "./cmd/chaperoned", b.nats: "github.com/nats-io/nats-server/v2",
	} {
		if err := stage.Build(ctx, path, pkg); err != nil {
			return b, err
		}
	}
	return b, nil
}

// program runs a command to its end and returns what it printed.
func program(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out), nil
}

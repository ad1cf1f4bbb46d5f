// Command benchpeople measures how soon what people say has its effect: the time
// from an approval to the answer of the query that was held for it, and from a lock to the end of
// the last of many sessions. Everything is the product's own: the binary, the sink's socket, a real
// PostgreSQL, and pgx as the client.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"chaperone.dev/chaperone/internal/stage"
)

// clientWord is the first argument of this program as a planner.
const clientWord = "client"

type options struct {
	approvals int // runs of the first measurement
	sessions  int // of the second
	jobs      int // that have them
	locks     int // runs of the second
	report    string
}

// warmUp is how many runs of the first measurement come before those that count.
const warmUp = 20

func main() {
	if len(os.Args) > 1 && os.Args[1] == clientWord {
		exit(runClient(context.Background(), os.Args[2:]))
	}
	var o options
	flag.IntVar(&o.approvals, "approvals", 200, "how many approvals are measured")
	flag.IntVar(&o.sessions, "sessions", 1000, "how many sessions a lock cuts")
	flag.IntVar(&o.jobs, "jobs", 20, "how many jobs have these sessions")
	flag.IntVar(&o.locks, "locks", 3, "how many locks are measured")
	flag.StringVar(&o.report, "o", "", "also write the report to this file, as Markdown")
	flag.Parse()
	if o.approvals < 1 || o.locks < 1 || o.jobs < 1 || o.sessions < o.jobs {
		exit(errors.New("-approvals, -locks and -jobs are at least 1, and -sessions at least one for each job"))
	}
	exit(run(o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchpeople:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(o options) error {
	if err := stage.Isolate(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "chaperone-benchpeople-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // planners of any user run what is in it
		return err
	}
	binary := filepath.Join(dir, "chaperone")
	if err := stage.Build(ctx, binary, stage.Program); err != nil {
		return err
	}
	r, err := measure(ctx, dir, binary, o)
	if err != nil {
		return err
	}
	text := r.markdown(o)
	fmt.Print(text)
	if o.report == "" {
		return nil
	}
	return os.WriteFile(o.report, []byte(text), 0o644)
}

// measure makes the world, both measurements in it, and takes it down again.
func measure(ctx context.Context, dir, binary string, o options) (r results, err error) {
	w, err := setUp(ctx, dir, binary, o)
	if err != nil {
		return results{}, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, w.close(closing))
	}()
	if r.approvals, err = w.measureApprovals(ctx, o); err != nil {
		return r, fmt.Errorf("approvals: %w", err)
	}
	if r.locks, err = w.measureLocks(ctx, o); err != nil {
		return r, fmt.Errorf("locks: %w", err)
	}
	return r, nil
}

package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	openingTitle = "opening a session"
	// Further sessions of one client process, which is one job.
	openingsPerRun = 20
	openingRuns    = 5 // per round
)

// opening is how long it took to open sessions by one path.
type opening struct {
	first   []time.Duration // of a fresh client process, one each
	further []time.Duration // the median of each process
}

// measureOpening opens sessions directly and through Chaperone. A process is a job of its
// own, so its first session has a role made for it.
func measureOpening(ctx context.Context, o options, paths ...*path) (map[string]*opening, error) {
	all := map[string]*opening{}
	for range o.rounds * openingRuns {
		for _, p := range paths {
			var first, further int64
			if err := p.client(ctx, []string{"open", strconv.Itoa(openingsPerRun)}, &first, &further); err != nil {
				return nil, err
			}
			if all[p.name] == nil {
				all[p.name] = &opening{}
			}
			all[p.name].first = append(all[p.name].first, time.Duration(first))
			all[p.name].further = append(all[p.name].further, time.Duration(further))
		}
	}
	return all, nil
}

// openClient opens sessions one after the other, each with its first query. It prints the
// nanoseconds that the first took, and the median of the others.
func openClient(ctx context.Context, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	var took []time.Duration
	for range n + 1 {
		started := time.Now()
		conn, err := pgconn.Connect(ctx, "")
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "SELECT 1").ReadAll(); err != nil {
			return err
		}
		took = append(took, time.Since(started))
		if err := conn.Close(ctx); err != nil {
			return err
		}
	}
	fmt.Println(took[0].Nanoseconds(), median(took[1:]).Nanoseconds())
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/pkg/policy"
)

// lockTimes are those of each lock, from the moment when its POST was sent.
type lockTimes struct {
	answered series // the desk's answer was there
	cut      series // the last client's connection was closed
	revoked  series // the last account was gone at the server
	told     int    // sessions, of all locks, whose client was told of the lock
	sessions int    // of all locks
}

func (w *world) measureLocks(ctx context.Context, o options) (times lockTimes, err error) {
	for n := range o.locks {
		if err := w.lock(ctx, o, &times); err != nil {
			return times, fmt.Errorf("lock %d: %w", n+1, err)
		}
	}
	return times, nil
}

// lock is one lock of a target with many sessions.
func (w *world) lock(ctx context.Context, o options, times *lockTimes) (err error) {
	var planners []*planner
	defer func() {
		for _, p := range planners {
			err = errors.Join(err, p.end())
		}
	}()
	opened := time.Now()
	var opening errgroup.Group
	for n := range o.jobs {
		sessions := (o.sessions + n) / o.jobs
		p, err := w.planner(ctx, fmt.Sprintf("nightly-%d", n), "hold", strconv.Itoa(sessions))
		if err != nil {
			return err
		}
		planners = append(planners, p)
		opening.Go(func() error {
			_, err := p.line("ready")
			return err
		})
	}
	if err := opening.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d sessions opened in %v\n", o.sessions, time.Since(opened).Round(time.Millisecond))

	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	sent := time.Now()
	e, err := w.desk.Lock(limit, api.LockRequest{Target: "orders-db", Reason: "benchmark", For: policy.Duration(time.Hour)})
	if err != nil {
		return err
	}
	answered := time.Since(sent)
	var last int64
	for _, p := range planners {
		words, err := p.line("cut")
		if err != nil {
			return err
		}
		at, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil {
			return err
		}
		told, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		if otherwise := strings.Join(words[2:], " "); otherwise != "-" {
			fmt.Fprintf(os.Stderr, "a client was told something else: %s\n", otherwise)
		}
		last = max(last, at)
		times.told += told
	}
	times.answered = append(times.answered, answered)
	times.cut = append(times.cut, time.Duration(last-sent.UnixNano()))
	times.sessions += o.sessions
	revoked, err := w.noRoles(limit)
	if err != nil {
		return err
	}
	times.revoked = append(times.revoked, revoked.Sub(sent))
	fmt.Fprintf(os.Stderr, "lock to cut: %v, to no account at the server: %v\n", times.cut[len(times.cut)-1], revoked.Sub(sent))
	_, err = w.desk.Unlock(limit, e.Lock.ID, "benchmark")
	return err
}

// noRoles waits until no minted role is left, and says when that was, about.
func (w *world) noRoles(ctx context.Context) (time.Time, error) {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		roles, err := w.stage.Roles(ctx)
		if err != nil || len(roles) == 0 {
			return time.Now(), err
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%d accounts are left: %w", len(roles), ctx.Err())
		case <-look.C:
		}
	}
}

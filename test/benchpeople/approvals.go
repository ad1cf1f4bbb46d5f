package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
)

// approvalTimes are those of each approval, from the moment when its POST was sent.
type approvalTimes struct {
	answered series // the desk's answer was there
	had      series // the client had its result
}

func (w *world) measureApprovals(ctx context.Context, o options) (_ approvalTimes, err error) {
	ctx, cancel := context.WithCancel(ctx)
	pending := make(chan api.View, 16)
	watched := make(chan error, 1)
	go func() { watched <- w.watch(ctx, pending) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-watched)
	}()
	p, err := w.planner(ctx, "nightly-ask", "ask")
	if err != nil {
		return approvalTimes{}, err
	}
	defer func() { err = errors.Join(err, p.end()) }()
	if _, err := p.line("ready"); err != nil {
		return approvalTimes{}, err
	}
	var times approvalTimes
	for n := range warmUp + o.approvals {
		answered, had, err := w.approve(ctx, p, pending)
		if err != nil {
			return times, err
		}
		if n >= warmUp {
			times.answered, times.had = append(times.answered, answered), append(times.had, had)
		}
	}
	fmt.Fprintf(os.Stderr, "approve to result: %s\n", times.had)
	return times, nil
}

// watch passes on what people are asked.
func (w *world) watch(ctx context.Context, pending chan<- api.View) error {
	return w.desk.Watch(ctx, func(v api.View) error {
		if v.State == approval.StatePending && len(v.Votes) == 0 {
			select {
			case pending <- v:
			case <-ctx.Done():
			}
		}
		return nil
	})
}

// approve is one query and the approval of it.
func (w *world) approve(ctx context.Context, p *planner, pending <-chan api.View) (answered, had time.Duration, err error) {
	if _, err := fmt.Fprintln(p.in, "go"); err != nil {
		return 0, 0, err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var v api.View
	select {
	case v = <-pending:
	case <-limit.Done():
		return 0, 0, errors.New("nobody was asked")
	}
	sent := time.Now()
	_, err = w.desk.Vote(limit, v.Request.ID, api.VoteRequest{Verdict: approval.Yes, Digest: v.Request.Digest})
	answered = time.Since(sent)
	if err != nil {
		return 0, 0, err
	}
	words, err := p.line("had")
	if err != nil {
		return 0, 0, err
	}
	at, err := strconv.ParseInt(words[0], 10, 64)
	return answered, time.Duration(at - sent.UnixNano()), err
}

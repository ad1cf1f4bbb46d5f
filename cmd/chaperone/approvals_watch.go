package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/desk/client"
)

func approvalsWatchCommand(flags *deskFlags) *cobra.Command {
	var ask bool
	cmd := &cobra.Command{Use: "watch", Short: "Show requests as they come and are decided, until interrupted", Args: usageArgs(cobra.NoArgs)}
	cmd.Flags().BoolVar(&ask, "ask", false, "show each one that you may answer, and ask you")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, err := output()
		if err != nil {
			return exitStatus{2, err}
		}
		var at *terminal
		if ask {
			var there bool
			switch at, there = terminalOf(cmd.InOrStdin(), cmd.OutOrStdout()); {
			case asJSON:
				return usage("--ask and -o json: want one of them")
			case !there:
				return usage("--ask: nobody can be asked, as input comes from no terminal")
			}
		}
		return flags.asks(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			if at != nil {
				return askEach(cmd.Context(), c, at, cmd.ErrOrStderr())
			}
			seen := seenViews{}
			return follow(cmd.Context(), c, cmd.ErrOrStderr(), func(v api.View) error {
				if !seen.isNew(v) {
					return nil
				}
				if asJSON {
					return printAsJSON(cmd.OutOrStdout(), v, "")
				}
				return printChange(cmd.OutOrStdout(), v)
			})
		})(cmd, args)
	}
	return cmd
}

func printChange(out io.Writer, v api.View) error {
	r := v.Request
	state := outcome(v)
	if v.State == approval.StatePending {
		state += ", " + span(time.Duration(v.Left)*time.Second) + " left"
		if v.May {
			state += "; you may answer"
		}
	}
	_, err := fmt.Fprintf(out, "%s  %s  %s, job %s, to %s (%s): %s → %s\n", v.Changed.Local().Format(time.TimeOnly), printable(r.ID),
		personName(r.Principal.Subject, r.Principal.Issuer, ""), brief(r.Workload.Name, 30), brief(r.Target.Name, 30),
		brief(r.Policy+"/"+r.Rule, 60), asked(r, 100), state)
	return err
}

// seenViews tells what is new from what the sink says again.
type seenViews map[string]viewStamp

type viewStamp struct {
	state approval.State
	votes int
	may   bool
}

// maxSeen bounds what is remembered: the sink shows no more at once.
const maxSeen = 5000

func (s seenViews) isNew(v api.View) bool {
	now := viewStamp{v.State, len(v.Votes), v.May}
	if s[v.Request.ID] == now {
		return false
	}
	if len(s) >= maxSeen {
		clear(s)
	}
	s[v.Request.ID] = now
	return true
}

const (
	againAfter    = time.Second
	againAtLatest = 30 * time.Second
)

// follow gives f all that the sink shows, until ctx is done. When the connection
// ends it connects again, and says so.
func follow(ctx context.Context, c *client.Client, notices io.Writer, f func(api.View) error) error {
	wait, connected := againAfter, false
	for {
		var failed error
		err := c.Watch(ctx, func(v api.View) error {
			wait, connected = againAfter, true
			failed = f(v)
			return failed
		})
		broken := errors.Is(err, client.ErrBroken)
		switch {
		case ctx.Err() != nil:
			return nil
		case failed != nil:
			return failed
		case !broken && !(connected && passing(err)):
			return err
		}
		connected = true
		fmt.Fprintf(notices, "The sink is out of reach: %v. Trying again in %s…\n", told(err), span(wait))
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		wait = min(2*wait, againAtLatest)
	}
}

// passing tells whether a failure may be over in a while.
func passing(err error) bool {
	var refused *api.Error
	if errors.As(err, &refused) {
		return refused.Status >= 500
	}
	return !errors.Is(err, errLogin)
}

// askEach asks the person about each request that they may answer.
func askEach(ctx context.Context, c *client.Client, at *terminal, notices io.Writer) error {
	if _, err := fmt.Fprintln(at.out, "Waiting for requests that you may answer. Ctrl-C ends it."); err != nil {
		return err
	}
	box := newInbox()
	work, inner := errgroup.WithContext(ctx)
	work.Go(func() error { return follow(inner, c, notices, box.put) })
	work.Go(func() error {
		for {
			v, open, err := box.next(inner)
			if err != nil {
				return nil // interrupted, or the other one says why
			}
			err = askOne(open, c, at, v)
			box.done()
			if inner.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	return work.Wait()
}

// askOne asks about one request, for as long as it is open.
func askOne(ctx context.Context, c *client.Client, at *terminal, v api.View) error {
	if _, err := fmt.Fprintln(at.out); err != nil {
		return err
	}
	if err := printView(at.out, v); err != nil {
		return err
	}
	typed, err := at.ask(ctx, "\napprove? [y/n, Enter: not now]")
	if errors.Is(err, errOver) {
		_, err := fmt.Fprintf(at.out, "%s: %v\n", printable(v.Request.ID), err)
		return err
	}
	if err != nil {
		return err
	}
	o := answerOptions{}
	switch {
	case yes(typed):
		o.verdict = approval.Yes
	case typed == "n" || typed == "no":
		o.verdict = approval.No
	default:
		_, err := fmt.Fprintf(at.out, "It waits on. Later: chaperone approvals show %s\n", printable(v.Request.ID))
		return err
	}
	// The answer itself ends the context: what it does is shown before it is told.
	err = o.vote(context.WithoutCancel(ctx), at.out, c, v)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Status < 500 && refused.Status != 401 { // others were first, or it is over
		_, err = fmt.Fprintf(at.out, "%s: %v\n", printable(v.Request.ID), told(err))
	}
	return err
}

// errOver ends a question that nobody needs to answer any more.
var errOver = errors.New("it needs no answer of yours any more")

// inbox holds the requests that the person was not asked about yet.
type inbox struct {
	mu      sync.Mutex
	waiting []api.View
	asked   map[string]bool // until they are over
	current string
	close   context.CancelCauseFunc // of the current one
	changed chan struct{}
}

func newInbox() *inbox { return &inbox{asked: map[string]bool{}, changed: make(chan struct{}, 1)} }

// put takes what the sink shows.
func (b *inbox) put(v api.View) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := v.Request.ID
	open := v.State == approval.StatePending && v.May
	if v.State != approval.StatePending {
		delete(b.asked, id)
	}
	if id == b.current {
		if !open {
			b.close(fmt.Errorf("%w: %s", errOver, outcome(v)))
		}
		return nil
	}
	for n := range b.waiting {
		if b.waiting[n].Request.ID != id {
			continue
		}
		if open {
			b.waiting[n] = v
		} else {
			b.waiting = append(b.waiting[:n], b.waiting[n+1:]...)
		}
		return nil
	}
	if open && !b.asked[id] && len(b.waiting) < maxSeen {
		b.waiting = append(b.waiting, v)
		select {
		case b.changed <- struct{}{}:
		default:
		}
	}
	return nil
}

// next waits for a request, and returns it with a context that ends when it needs no
// answer any more. done must be called before the next one.
func (b *inbox) next(ctx context.Context) (api.View, context.Context, error) {
	for {
		b.mu.Lock()
		if len(b.waiting) > 0 {
			v := b.waiting[0]
			b.waiting = b.waiting[1:]
			if len(b.asked) >= maxSeen {
				clear(b.asked)
			}
			b.asked[v.Request.ID], b.current = true, v.Request.ID
			var open context.Context
			open, b.close = context.WithCancelCause(ctx)
			b.mu.Unlock()
			return v, open, nil
		}
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			return api.View{}, nil, ctx.Err()
		case <-b.changed:
		}
	}
}

func (b *inbox) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.close(nil)
	b.current = ""
}

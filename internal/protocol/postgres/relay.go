package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"chaperone.dev/chaperone/pkg/event"
)

// RelayOptions are the options of [Relay]. The zero value has its defaults.
type RelayOptions struct {
	// MaxMessage bounds, in bytes, each message that must be seen as a whole:
	// a query, the parameters of a Bind, a row that is covered (default 64
	// MiB). It bounds as well the parameters that open portals keep together.
	MaxMessage int
	// MaxStatements and MaxPortals bound the prepared statements (default
	// 10,000) and the portals (default 1,000) of the session.
	MaxStatements, MaxPortals int
	// MaxOutstanding bounds the messages that wait for the server's answer
	// (default 4,096). A client that sends more isn't read for a while.
	MaxOutstanding int
	// Cancels is where the session's cancel key is registered, for Owner.
	// Without it the client gets a key that cancels nothing.
	Cancels *Cancels
	Owner   string
	// DrainTimeout bounds how long commands may go on after the client has
	// said goodbye (default 10 s).
	DrainTimeout time.Duration
}

// limits are the bounds that hold within a relay.
type limits struct{ message, statements, portals, outstanding int }

func (o RelayOptions) limits() limits {
	l := limits{o.MaxMessage, o.MaxStatements, o.MaxPortals, o.MaxOutstanding}
	for _, d := range []struct {
		value *int
		def   int
	}{{&l.message, 64 << 20}, {&l.statements, 10000}, {&l.portals, 1000}, {&l.outstanding, 4096}} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	l.outstanding = max(l.outstanding, 2) // a Parse makes two
	return l
}

// Result is how a session ended.
type Result struct {
	Reason   string // a Reason… constant of package event
	Message  string // the sentence behind it
	Err      error  // the cause, for the node's log; nil when the client said goodbye
	BytesIn  uint64 // from the client
	BytesOut uint64 // to the client
}

// Relay runs a session: it tells the client that it is let in, and then
// carries messages both ways until one side ends or ctx does. When ctx ends
// its cause, if that is a *[Refusal], is what the client is told. Both
// connections are closed, each command has had its End, and no goroutine is
// left when Relay returns.
func Relay(ctx context.Context, client *Client, up *Upstream, s Session, options RelayOptions) Result {
	lim := options.limits()
	r := &relay{client: client, up: up, ledger: newLedger(lim.outstanding), drainTimeout: options.DrainTimeout}
	if r.drainTimeout <= 0 {
		r.drainTimeout = 10 * time.Second
	}
	r.front = newFrontend(client.conn, up.conn, r.ledger, s, lim)
	r.back = newBackend(up.conn, client.conn, r.ledger, s, lim, func() { r.cancelUpstream(ctx) })

	key, unregister := options.Cancels.register(client.startup.Minor, options.Owner, up, &r.holding)
	defer unregister()
	r.front.hold = r.hold
	end := r.greet(key, s)
	if end.err == nil {
		end = r.run(ctx)
	}
	return r.finish(ctx, end)
}

// relay is one session on the wire.
type relay struct {
	client       *Client
	up           *Upstream
	ledger       *ledger
	front        *frontend
	back         *backend
	holding      holding
	drainTimeout time.Duration
}

// ending is what ended the relay.
type ending struct {
	err       error
	fromFront bool // the goroutine that it came from
}

// greet tells the client that it is let in.
func (r *relay) greet(key CancelKey, s Session) ending {
	out := r.client.letIn(nil)
	out, err := r.up.greeting(out, s)
	if err != nil {
		return ending{err: err}
	}
	out = appendBackendKeyData(out, key)
	out = appendMessage(out, msgReadyForQuery, []byte{'I'})
	if err := r.back.out.made(out); err != nil {
		return ending{err: err}
	}
	return ending{err: r.back.out.flush()}
}

// run returns once both directions have ended.
func (r *relay) run(ctx context.Context) ending {
	inner, stop := context.WithCancel(ctx)
	defer stop()
	interrupted := make(chan struct{})
	context.AfterFunc(inner, func() {
		r.interrupt()
		close(interrupted)
	})
	front, back := make(chan error, 1), make(chan error, 1)
	go func() { front <- guard(func() error { return r.front.run(inner) }) }()
	go func() { back <- guard(r.back.run) }()

	var end ending
	select {
	case err := <-front:
		end = ending{err, true}
		if errors.Is(err, errTerminate) || r.front.out.failed {
			// What is under way comes to its end, or the server's last words
			// are heard.
			if err, ok := r.drain(ctx, back); ok {
				back <- err
				if !errors.Is(end.err, errTerminate) {
					end = ending{err, false}
				}
			}
		}
		stop()
		<-back
	case err := <-back:
		end = ending{err, false}
		stop()
		if err := <-front; errors.Is(err, errTerminate) {
			// The server closed because the client had said goodbye.
			end = ending{err, true}
		}
	case <-ctx.Done():
		stop()
		<-front
		<-back
	}
	<-interrupted
	if ctx.Err() != nil {
		end = ending{err: cutOff(ctx)}
	}
	return end
}

func (r *relay) drain(ctx context.Context, back <-chan error) (error, bool) {
	timer := time.NewTimer(r.drainTimeout)
	defer timer.Stop()
	select {
	case err := <-back:
		return err, true
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil, false
}

// interrupt makes both directions end: at once, but for what is just being
// written to the client, so that it can still be told something.
func (r *relay) interrupt() {
	r.ledger.end()
	r.up.conn.SetDeadline(time.Unix(1, 0))
	r.client.conn.SetReadDeadline(time.Unix(1, 0))
	r.client.conn.SetWriteDeadline(time.Now().Add(lingerTime))
}

// guard keeps a fault of one session from ending the daemon.
func guard(run func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Refusal{
				Reason: event.ReasonInternal, SQLState: "XX000", Message: "internal error",
				Err: fmt.Errorf("panic: %v\n%s", p, debug.Stack()),
			}
		}
	}()
	return run()
}

// cutOff is what the client is told when ctx ends.
func cutOff(ctx context.Context) *Refusal {
	var r *Refusal
	if errors.As(context.Cause(ctx), &r) {
		return r
	}
	return &Refusal{
		Reason: event.ReasonShutdown, SQLState: "57P01",
		Message: "terminating connection: the proxy is shutting down", Err: context.Cause(ctx),
	}
}

// finish says goodbye to both sides.
func (r *relay) finish(ctx context.Context, end ending) Result {
	result, tell := r.explain(end)
	running := r.finishCommands()
	told := make(chan struct{})
	go func() {
		defer close(told)
		r.finishClient(result.Reason == event.ReasonClientClosed && !errors.Is(end.err, errTerminate), tell)
	}()
	if result.Reason == event.ReasonLocked && !running {
		// A lock may end a thousand sessions at once, and the ends of as many server
		// processes would keep their clients from being told.
		time.Sleep(lockedPause)
	}
	r.finishUpstream(ctx, end, running)
	<-told
	result.BytesIn, result.BytesOut = r.front.in.total, r.back.out.total
	return result
}

// explain says what an ending means, and what the client is to be told.
func (r *relay) explain(end ending) (result Result, tell *Refusal) {
	switch {
	case errors.Is(end.err, errTerminate):
		return Result{Reason: event.ReasonClientClosed, Message: "the client ended the session"}, nil
	case errors.Is(end.err, ErrClientGone):
		return Result{Reason: event.ReasonClientClosed, Message: "the client went away while it waited", Err: end.err}, nil
	case errors.As(end.err, &tell):
		return Result{Reason: tell.Reason, Message: tell.Message, Err: end.err}, tell
	case end.fromFront && !r.front.out.failed, !end.fromFront && r.back.out.failed:
		return Result{Reason: event.ReasonClientClosed, Message: "the client's connection broke off", Err: end.err}, nil
	}
	result = Result{Reason: event.ReasonUpstreamClosed, Message: "the target closed the connection", Err: end.err}
	if r.back.goodbye {
		return result, nil // it said why
	}
	return result, &Refusal{
		Reason: event.ReasonUpstreamClosed, SQLState: "08006",
		Message: "the target closed the connection unexpectedly",
	}
}

// finishCommands ends the commands that had no answer, and reports whether
// there were any that the server may still run.
func (r *relay) finishCommands() (running bool) {
	unfinished := r.ledger.drain()
	for i, c := range unfinished {
		var o Outcome
		if i == 0 && r.back.answering && r.back.current.command != nil {
			o = r.back.result.outcome
		}
		o.Unfinished = true
		c.End(o)
	}
	return len(unfinished) > 0 && !r.back.goodbye
}

// finishUpstream closes the server's side. A server finds out that its client
// is gone only when it next writes, so what runs is cancelled first: more than
// once, for a request that comes before the query has begun has no effect.
func (r *relay) finishUpstream(ctx context.Context, end ending, running bool) {
	defer r.up.Close()
	if !r.front.out.middle && !errors.Is(end.err, errTerminate) {
		r.up.conn.SetWriteDeadline(time.Now().Add(lingerTime))
		r.up.conn.Write(appendMessage(nil, msgTerminate))
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	for pause := 50 * time.Millisecond; running && ctx.Err() == nil; pause *= 2 {
		if r.up.Cancel(ctx) != nil {
			return // closing is all that is left
		}
		// Once it is idle it reads Terminate, and closes.
		r.up.conn.SetReadDeadline(time.Now().Add(pause))
		_, err := io.Copy(io.Discard, r.up.conn)
		running = errors.Is(err, os.ErrDeadlineExceeded)
	}
}

// lockedPause is how long the server's side of a session that is locked, and does
// nothing, outlives the client's.
const lockedPause = 300 * time.Millisecond

func (r *relay) finishClient(gone bool, tell *Refusal) {
	if gone {
		r.client.Close()
		return
	}
	if tell != nil && !r.back.out.middle {
		r.client.conn.SetWriteDeadline(time.Now().Add(lingerTime))
		if out, err := r.back.out.room(); err == nil {
			if r.back.out.made(appendRefusal(out, severityFatal, tell)) == nil {
				r.back.out.flush()
			}
		}
	}
	r.client.linger()
}

// cancelTimeout bounds one cancel request.
const cancelTimeout = 5 * time.Second

func (r *relay) cancelUpstream(ctx context.Context) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	// If it fails, the server finds out when the connection closes.
	_ = r.up.Cancel(ctx)
}

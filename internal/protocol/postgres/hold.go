package postgres

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/pkg/event"
)

// ErrClientGone is the cause of a wait that ends because the client has closed
// its connection.
var ErrClientGone = errors.New("the client has closed the connection")

// holding is the command of a relay that is held, if one is.
type holding struct {
	mu  sync.Mutex
	end context.CancelCauseFunc // nil: none is
}

// cancel ends the wait as PostgreSQL ends a query that its client cancels, and
// tells whether there was one.
func (h *holding) cancel() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end == nil {
		return false
	}
	h.end(&Refusal{
		Reason: event.ReasonClientClosed, SQLState: "57014",
		Message: "canceling statement due to user request",
	})
	return true
}

// set makes end what cancels the wait; nil ends that.
func (h *holding) set(end context.CancelCauseFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end = end
}

// hold waits for a held command. Nothing is with the server meanwhile.
func (r *relay) hold(ctx context.Context, held *Held) (Command, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	ctx, stop := r.client.watch(ctx)
	defer stop()
	r.holding.set(end)
	defer r.holding.set(nil)
	command, err := held.Wait(ctx, func(n Notice) {
		// A client that can't be told is gone, which the watch sees.
		_ = r.back.out.inject(appendOwnNotice(nil, n))
	})
	if err != nil && errors.Is(context.Cause(ctx), ErrClientGone) {
		return nil, ErrClientGone
	}
	return command, err
}

// lookEvery is how often it is looked whether a client that waits is still there.
const lookEvery = 100 * time.Millisecond

// watch returns a context that ends, with cause [ErrClientGone], when the client
// closes its side. Nothing of what it sent is read. stop waits for the watch to end.
func (c *Client) watch(ctx context.Context) (_ context.Context, stop func()) {
	ctx, end := context.WithCancelCause(ctx)
	socket, ok := c.socket.(syscall.Conn)
	if !ok {
		return ctx, func() { end(nil) }
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		end(ErrClientGone)
		return ctx, func() {}
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if closed(raw) {
				end(ErrClientGone)
				return
			}
		}
	})
	return ctx, func() {
		end(nil)
		watching.Wait()
	}
}

// closed tells whether the peer has shut down its side (poll(2), POLLRDHUP).
func closed(raw syscall.RawConn) bool {
	var gone bool
	err := raw.Control(func(fd uintptr) {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(polled, 0)
		gone = err == nil && n > 0
	})
	return gone || err != nil
}

// appendOwnNotice appends a NoticeResponse of ours (SQLSTATE 01000, warning).
func appendOwnNotice(dst []byte, n Notice) []byte {
	dst, start := beginMessage(dst, msgNoticeResponse)
	dst = appendErrorField(dst, 'S', "NOTICE")
	dst = appendErrorField(dst, 'V', "NOTICE")
	dst = appendErrorField(dst, 'C', "01000")
	dst = appendErrorField(dst, 'M', n.Message)
	dst = appendErrorField(dst, 'D', n.Detail)
	dst = appendErrorField(dst, 'H', n.Hint)
	return endMessage(append(dst, 0), start)
}

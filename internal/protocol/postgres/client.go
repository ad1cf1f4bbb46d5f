package postgres

import (
	"context"
	"io"
	"net"
	"time"
)

// Client is the client's side of a connection, after its startup packet.
type Client struct {
	conn    net.Conn // TLS, if it wanted that
	socket  net.Conn // below it
	startup Startup
	cancel  *CancelKey
	broken  bool // nothing can be said to it
	in      bool // it was told that it is authenticated
}

// Startup is what the client said. It is the zero value for a cancel request.
func (c *Client) Startup() Startup { return c.startup }

// CancelKey is the key that the client wants to cancel with, when that is what
// the connection is for. Hand it to [Cancels.Cancel] and close the connection:
// a cancel request gets no answer.
func (c *Client) CancelKey() (CancelKey, bool) {
	if c.cancel == nil {
		return CancelKey{}, false
	}
	return *c.cancel, true
}

// Refuse tells the client why there is no session for it, as a FATAL error,
// and closes the connection.
func (c *Client) Refuse(r *Refusal) error {
	c.conn.SetWriteDeadline(time.Now().Add(lingerTime))
	_, err := c.conn.Write(appendRefusal(nil, severityFatal, r))
	c.linger()
	return err
}

// letIn appends that the client is authenticated, unless it was told so.
func (c *Client) letIn(dst []byte) []byte {
	if c.in {
		return dst
	}
	c.in = true
	return appendMessage(dst, msgAuthentication, make([]byte, 4))
}

// Hold calls wait while the client is kept from entering. wait may tell it
// something, and its ctx ends, with cause [ErrClientGone], when the client goes
// away. The client's libraries take a notice only once they are authenticated, so
// that is what they are told first: it promises nothing, and a refusal may follow.
func (c *Client) Hold(ctx context.Context, wait func(ctx context.Context, notify func(Notice))) {
	ctx, stop := c.watch(ctx)
	defer stop()
	wait(ctx, func(n Notice) {
		c.conn.SetWriteDeadline(time.Now().Add(lingerTime))
		// A client that can't be told is gone, which the watch sees.
		_, _ = c.conn.Write(appendOwnNotice(c.letIn(nil), n))
		c.conn.SetWriteDeadline(time.Time{})
	})
}

// Close closes the connection without a word.
func (c *Client) Close() error { return c.socket.Close() }

// What a client still sends when it is told goodbye is read for that long and
// that much. Otherwise the kernel would answer it with a reset, and the client
// might never read what it was told.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 10
)

// linger closes the connection so that the client reads all that was written.
func (c *Client) linger() {
	c.socket.SetDeadline(time.Now().Add(lingerTime))
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() // for TLS: its close_notify
	}
	if half, ok := c.socket.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	io.CopyN(io.Discard, c.socket, lingerBytes)
	c.socket.Close()
}

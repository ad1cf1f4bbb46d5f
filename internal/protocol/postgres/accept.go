package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"chaperone.dev/chaperone/pkg/event"
)

// ALPN is the protocol name that TLS clients negotiate (RFC 7301).
const ALPN = "postgresql"

// ErrSilent is returned by [Accept] for a client that went away before it said
// what it wants: a port scan, a health check, a psql that tries again.
var ErrSilent = errors.New("the client closed the connection before its startup packet was complete")

// AcceptOptions are the options of [Accept].
type AcceptOptions struct {
	// Certificate is asked for the certificate to show a TLS client that
	// wants serverName, which is empty when the client connects to an
	// address. Without it TLS isn't offered.
	Certificate func(ctx context.Context, serverName string) (*tls.Certificate, error)
	// Timeout bounds the time until the startup packet is complete (default
	// 30 s).
	Timeout time.Duration
}

const defaultAcceptTimeout = 30 * time.Second

// Accept reads what a client sends first, in the orders that clients use:
// GSSENCRequest (declined) and SSLRequest, each at most once, or a TLS
// handshake right away, then a startup packet or a cancel request. It takes
// conn over: after an error it is closed, and the client was told why where
// that is possible. An error that the client caused is a *[Refusal] or wraps
// [ErrSilent].
func Accept(ctx context.Context, conn net.Conn, options AcceptOptions) (*Client, error) {
	if options.Timeout <= 0 {
		options.Timeout = defaultAcceptTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, options.Timeout)
	defer cancel()
	stop := interruptOn(ctx, conn)
	c := &Client{conn: conn, socket: conn}
	err := c.accept(ctx, options)
	if !stop() {
		// The deadline of the socket was moved to the past.
		err = errors.Join(err, context.Cause(ctx))
	}
	if err == nil {
		return c, nil
	}
	if ctx.Err() != nil {
		conn.SetDeadline(time.Now().Add(lingerTime))
		if err = context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) {
			err = &Refusal{
				Reason: event.ReasonTimeout, SQLState: "08P01", Err: err,
				Message: fmt.Sprintf("no startup packet within %v", options.Timeout),
			}
		}
	}
	var r *Refusal
	if errors.As(err, &r) && !c.broken {
		c.Refuse(r)
		return nil, err
	}
	conn.Close()
	return nil, err
}

// interruptOn makes reads and writes of conn fail once ctx ends. The result
// undoes it; it reports false when it was too late.
func interruptOn(ctx context.Context, conn net.Conn) (stop func() bool) {
	done := make(chan struct{})
	undo := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
		close(done)
	})
	return func() bool {
		if undo() {
			return true
		}
		<-done
		return false
	}
}

func (c *Client) accept(ctx context.Context, options AcceptOptions) error {
	first := make([]byte, 1)
	if err := c.readFull(first); err != nil {
		return err
	}
	if first[0] == recordHandshake {
		if err := c.startTLS(ctx, options, first); err != nil {
			return err
		}
		if c.conn.(*tls.Conn).ConnectionState().NegotiatedProtocol != ALPN {
			return protocolError("direct TLS connection without ALPN protocol "+ALPN, nil)
		}
		first = nil
	}
	// Packets are read to their exact length, so what a client sends behind a
	// request in clear is never taken for something that came through TLS.
	for asked := map[uint32]bool{}; ; first = nil {
		packet, err := c.readPacket(first)
		if err != nil {
			return err
		}
		code := binary.BigEndian.Uint32(packet)
		switch {
		case code == codeCancelRequest:
			return c.readCancel(packet)
		case (code == codeSSLRequest || code == codeGSSENCRequest) && len(packet) == 4 && !asked[code] && !c.startup.TLS:
			asked[code] = true
			if code == codeGSSENCRequest || options.Certificate == nil {
				err = c.writeAll([]byte{'N'})
			} else if err = c.writeAll([]byte{'S'}); err == nil {
				err = c.startTLS(ctx, options, nil)
			}
			if err != nil {
				return err
			}
		default:
			return c.readStartup(packet)
		}
	}
}

// recordHandshake is the first byte of a TLS handshake (RFC 8446, 5.1). No
// startup packet is long enough to begin with it.
const recordHandshake = 0x16

func (c *Client) startTLS(ctx context.Context, options AcceptOptions, peeked []byte) error {
	if options.Certificate == nil {
		c.broken = true
		return protocolError("TLS isn't offered here", nil)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{ALPN},
		// The configuration is this connection's own: no ticket could be
		// read again.
		SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return options.Certificate(ctx, hello.ServerName)
		},
	}
	conn := tls.Server(&peekedConn{Conn: c.socket, peeked: peeked}, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		c.broken = true
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w (in the TLS handshake)", ErrSilent)
		}
		return protocolError("the TLS handshake failed", err)
	}
	c.conn = conn
	c.startup.TLS, c.startup.ServerName = true, conn.ConnectionState().ServerName
	return nil
}

// peekedConn gives back bytes that were read too early.
type peekedConn struct {
	net.Conn
	peeked []byte
}

func (c *peekedConn) Read(p []byte) (int, error) {
	if len(c.peeked) > 0 {
		n := copy(p, c.peeked)
		c.peeked = c.peeked[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// readPacket reads a packet without a type byte; the result is what follows
// its length. first is what was read of it already.
func (c *Client) readPacket(first []byte) ([]byte, error) {
	var length [4]byte
	if err := c.readFull(length[copy(length[:], first):]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < 8 || n > maxStartupPacket {
		return nil, protocolError(fmt.Sprintf("invalid length of startup packet: %d", n), nil)
	}
	packet := make([]byte, n-4)
	return packet, c.readFull(packet)
}

func (c *Client) readFull(p []byte) error {
	_, err := io.ReadFull(c.conn, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrSilent
	}
	return err
}

func (c *Client) writeAll(p []byte) error {
	_, err := c.conn.Write(p)
	return err
}

func (c *Client) readCancel(packet []byte) error {
	// Process id and secret: four bytes in 3.0, up to 256 in 3.2.
	if n := len(packet) - 8; n < 4 || n > 256 {
		c.broken = true // a cancel request is never answered
		return protocolError("invalid length of cancel request", nil)
	}
	c.cancel = &CancelKey{Process: binary.BigEndian.Uint32(packet[4:]), Secret: packet[8:]}
	return nil
}

func (c *Client) readStartup(packet []byte) error {
	p, err := readStartup(packet)
	if err != nil {
		return err
	}
	overTLS, serverName := c.startup.TLS, c.startup.ServerName
	if c.startup, err = p.startup(); err != nil {
		return err
	}
	c.startup.TLS, c.startup.ServerName = overTLS, serverName
	if negotiation := appendNegotiation(nil, p); negotiation != nil {
		return c.writeAll(negotiation)
	}
	return nil
}

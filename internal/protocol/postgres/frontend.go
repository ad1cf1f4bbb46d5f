package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// errTerminate says that the client said goodbye.
var errTerminate = errors.New("the client ended the session")

// smallMessage bounds the messages that hold only names, as PostgreSQL's
// PQ_SMALL_MESSAGE_LIMIT does.
const smallMessage = 10000

// frontend reads the client's messages, asks the session, and sends them on.
//
// A refused message is replaced by one that must fail in the server, and the
// server's error by ours: so the server itself keeps the state of transaction
// and batch true.
type frontend struct {
	in      *reader
	out     *writer
	ledger  *ledger
	session Session
	watcher NameWatcher // nil: the session is none
	limits  limits

	// nowhere names no statement and no portal: it can't be guessed.
	nowhere string
	params  Params // used again

	hold func(context.Context, *Held) (Command, error)
}

func newFrontend(client io.Reader, upstream io.Writer, l *ledger, s Session, lim limits) *frontend {
	f := &frontend{out: &writer{dst: upstream}, ledger: l, session: s, limits: lim}
	f.in = newReader(client, f.out.flush)
	f.watcher, _ = s.(NameWatcher)
	f.nowhere = "refused-" + rand.Text()
	return f
}

// run ends with an error, always: errTerminate, errEnded, a *Refusal that the
// client is to be told, or one of reading or writing.
func (f *frontend) run(ctx context.Context) error {
	for {
		typ, size, err := f.in.header()
		if err == nil {
			err = f.message(ctx, typ, size)
		}
		if errors.Is(err, errMessageLength) {
			return protocolError("invalid message length", err)
		}
		if err != nil {
			return err
		}
	}
}

func (f *frontend) message(ctx context.Context, typ byte, size int) error {
	limit := smallMessage
	switch typ {
	case msgQuery, msgParse, msgBind, msgFunctionCall:
		limit = f.limits.message
	case msgCopyData:
		return f.copyData(size)
	case msgCopyDone, msgCopyFail, msgDescribe, msgExecute, msgClose, msgSync, msgFlush, msgTerminate:
	default:
		return protocolError(fmt.Sprintf("invalid frontend message type %d", typ), nil)
	}
	if size-1 > limit {
		return tooLarge(fmt.Sprintf("a message of %d bytes", size-1), limit)
	}
	frame, err := f.in.frame(size)
	if err != nil {
		return err
	}
	switch typ {
	case msgCopyDone, msgCopyFail:
		return f.copyEnd(frame)
	case msgFlush:
		if size != headerSize {
			return malformed(typ)
		}
		return f.out.pass(frame)
	case msgTerminate:
		if size != headerSize {
			return malformed(typ)
		}
		if err := f.out.pass(frame); err != nil {
			return err
		}
		if err := f.out.flush(); err != nil {
			return err
		}
		return errTerminate
	}
	if copying, err := f.afterCopy(); err != nil {
		return err
	} else if copying {
		if typ == msgSync {
			return nil // the server would ignore it, and never answer
		}
		return protocolError(fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", typ), nil)
	}
	if err := f.await(func() bool { return f.ledger.n+2 <= f.ledger.limit }); err != nil {
		return err
	}
	if typ == msgSync {
		if size != headerSize {
			return malformed(typ)
		}
		f.ledger.push(request{kind: kindSync})
		return f.out.pass(frame)
	}
	if f.ledger.holds(func() bool { return f.ledger.skipping }) {
		return nil
	}
	switch typ {
	case msgQuery:
		return f.query(ctx, frame)
	case msgParse:
		return f.parse(ctx, frame)
	case msgBind:
		return f.bind(frame)
	case msgExecute:
		return f.execute(ctx, frame)
	case msgFunctionCall:
		return f.functionCall(ctx, frame)
	case msgDescribe:
		return f.describe(frame)
	default:
		return f.close(frame)
	}
}

// lookup returns what a name stands for, nil for nothing.
func lookup[T any](f *frontend, n *names[T], name []byte) (*T, error) {
	l := f.ledger
	key := string(name)
	if err := f.await(func() bool { return l.renames == 0 && n.known(key, l.batch) }); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return n.lookup(key, l.batch), nil
}

// await waits until cond, called with the ledger's lock held, is true. What
// the server answered it may keep to itself until a Sync; a Flush makes it
// speak.
func (f *frontend) await(cond func() bool) error {
	if f.ledger.holds(cond) {
		return nil
	}
	out, err := f.out.room()
	if err != nil {
		return err
	}
	if err := f.out.made(appendMessage(out, msgFlush)); err != nil {
		return err
	}
	if err := f.out.flush(); err != nil {
		return err
	}
	return f.ledger.wait(cond)
}

// begin decides one execution, and waits where it is to be waited for. What was
// sent before is answered first: the client knows then what it waits for, and
// whether the server would skip the command.
func (f *frontend) begin(ctx context.Context, p Prepared, params Params) (Command, error) {
	command, err := f.session.Begin(ctx, p, params)
	var held *Held
	if !errors.As(err, &held) {
		return command, err
	}
	if err := f.await(func() bool { return f.ledger.n == 0 }); err != nil {
		return nil, err
	}
	if f.ledger.holds(func() bool { return f.ledger.skipping }) {
		return nil, errSkipped
	}
	return f.hold(ctx, held)
}

// errSkipped says that the server would skip the message.
var errSkipped = errors.New("an earlier message of the batch failed")

// send queues a message unchanged.
func (f *frontend) send(r request, frame []byte) error {
	if !f.ledger.push(r) {
		if r.command != nil {
			r.command.End(Outcome{Skipped: true})
		}
		return nil
	}
	return f.out.pass(frame)
}

// refuse queues, in place of a message that err refuses, one that fails.
func (f *frontend) refuse(r request, err error) error {
	if errors.Is(err, errSkipped) {
		return nil
	}
	if !errors.As(err, &r.refusal) || r.refusal.Fatal {
		return err
	}
	r.command, r.statement, r.portal = nil, nil, nil
	if !f.ledger.push(r) {
		return nil
	}
	out, err := f.out.room()
	if err != nil {
		return err
	}
	switch r.kind {
	case kindQuery:
		out = appendMessage(out, msgQuery, []byte(refusedText))
	case kindParse:
		// A Parse that fails also drops the unnamed statement, as ours does.
		name := r.name
		if r.refusal.SQLState == stateBadName {
			name = f.nowhere
		}
		out = appendMessage(out, msgParse, append([]byte(name), 0), []byte(refusedText), []byte{0, 0})
	case kindBind:
		out = appendMessage(out, msgBind, append([]byte(f.nowhere), 0), append([]byte(f.nowhere), 0), make([]byte, 6))
	case kindExecute:
		out = appendMessage(out, msgExecute, append([]byte(f.nowhere), 0), make([]byte, 4))
	case kindDescribeStatement:
		out = appendNamed(out, msgDescribe, 'S', f.nowhere)
	default:
		out = appendNamed(out, msgDescribe, 'P', f.nowhere)
	}
	return f.out.made(out)
}

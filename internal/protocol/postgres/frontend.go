package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"chaperone.dev/chaperone/pkg/event"
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
	limits  limits

	// nowhere names no statement and no portal: it can't be guessed.
	nowhere string
	params  Params // used again
}

func newFrontend(client io.Reader, upstream io.Writer, l *ledger, s Session, lim limits) *frontend {
	f := &frontend{out: &writer{dst: upstream}, ledger: l, session: s, limits: lim}
	f.in = newReader(client, f.out.flush)
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
	case msgQuery, msgParse, msgBind:
		limit = f.limits.message
	case msgCopyData:
		return f.copyData(size)
	case msgCopyDone, msgCopyFail, msgDescribe, msgExecute, msgClose, msgSync, msgFlush, msgTerminate:
	case msgFunctionCall:
		return &Refusal{
			Reason: event.ReasonProtocol, SQLState: "0A000",
			Message: "the fast-path function call can't be inspected",
			Hint:    "Call the function with SELECT.",
		}
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
	case msgDescribe:
		return f.describe(frame)
	default:
		return f.close(frame)
	}
}

// query is the simple protocol's one message.
func (f *frontend) query(ctx context.Context, frame []byte) error {
	text, ok := readQuery(frame)
	if !ok {
		return malformed(msgQuery)
	}
	r := request{kind: kindQuery, renames: mentions(text)}
	prepared, err := f.session.Prepare(ctx, string(text))
	if err == nil {
		r.prepared = prepared
		r.command, err = f.session.Begin(ctx, prepared, Params{})
	}
	if err != nil {
		return f.refuse(r, err)
	}
	for i := range prepared.Statements() {
		r.copyIn = r.copyIn || prepared.Copy(i) == CopyIn
	}
	return f.send(r, frame)
}

func (f *frontend) parse(ctx context.Context, frame []byte) error {
	m, ok := readParse(frame)
	if !ok {
		return malformed(msgParse)
	}
	r := request{kind: kindParse, name: string(m.name)}
	if !plainName(m.name) {
		return f.refuse(r, badName("prepared statement"))
	}
	if !f.ledger.holds(func() bool { return f.ledger.statements.room(r.name, f.limits.statements) }) {
		return f.refuse(r, tooMany("prepared statements", f.limits.statements))
	}
	prepared, err := f.session.Prepare(ctx, string(m.text))
	if err != nil {
		return f.refuse(r, err)
	}
	r.statement = &statement{prepared: prepared, types: m.typeOIDs(), renames: mentions(m.text)}
	if err := f.send(r, frame); err != nil {
		return err
	}
	// What the rows look like must be known at each Execute, whether or not
	// the client ever asks: so we ask, once.
	learn := request{kind: kindLearn, statement: r.statement}
	if !f.ledger.push(learn) {
		return nil
	}
	out, err := f.out.room()
	if err != nil {
		return err
	}
	return f.out.made(appendNamed(out, msgDescribe, 'S', r.name))
}

func (f *frontend) bind(frame []byte) error {
	m, ok := readBind(frame)
	if !ok {
		return malformed(msgBind)
	}
	r := request{kind: kindBind, name: string(m.portal)}
	if !plainName(m.portal) || !plainName(m.statement) {
		return f.refuse(r, badName("prepared statement or portal"))
	}
	s, err := lookup(f, &f.ledger.statements, m.statement)
	if err != nil {
		return err
	}
	if s == nil {
		return f.refuse(r, &Refusal{
			Reason: event.ReasonProtocol, SQLState: "26000",
			Message: fmt.Sprintf("prepared statement %q does not exist", m.statement),
		})
	}
	if !f.ledger.holds(func() bool { return f.ledger.portals.room(r.name, f.limits.portals) }) {
		return f.refuse(r, tooMany("portals", f.limits.portals))
	}
	r.portal = &portal{statement: s}
	if m.values > 0 {
		full, err := f.full(r.name, len(m.params))
		if err != nil {
			return err
		}
		if full {
			return f.refuse(r, tooLarge("the parameters of open portals", f.limits.message))
		}
		r.portal.params = append([]byte(nil), m.params...)
	}
	if len(m.results) > 0 {
		r.portal.results = append([]byte(nil), m.results...)
	}
	return f.send(r, frame)
}

// full reports whether n more bytes of parameters, for the portal of that
// name, are too many. What requests that are under way keep may be given back
// by and by, so it waits for these; what the portal of that name keeps now
// will be.
func (f *frontend) full(name string, n int) (bool, error) {
	l := f.ledger
	fits := func() bool {
		held := l.held
		if replaced := l.portals.settled[name]; replaced != nil {
			held -= len(replaced.params)
		}
		return held+n <= f.limits.message
	}
	err := f.await(func() bool { return fits() || l.n == 0 })
	return !l.holds(fits), err
}

func (f *frontend) execute(ctx context.Context, frame []byte) error {
	name, ok := readExecute(frame)
	if !ok {
		return malformed(msgExecute)
	}
	r := request{kind: kindExecute}
	if !plainName(name) {
		return f.refuse(r, badName("portal"))
	}
	p, err := lookup(f, &f.ledger.portals, name)
	if err != nil {
		return err
	}
	if p == nil {
		return f.refuse(r, &Refusal{
			Reason: event.ReasonProtocol, SQLState: "34000",
			Message: fmt.Sprintf("portal %q does not exist", name),
			Detail:  "Only a portal that was made by Bind can be executed.",
		})
	}
	readParams(&f.params, p.params)
	f.ledger.mu.Lock()
	f.params.Types = p.statement.types
	f.ledger.mu.Unlock()
	r.portal, r.prepared = p, p.statement.prepared
	r.command, err = f.session.Begin(ctx, p.statement.prepared, f.params)
	if err != nil {
		return f.refuse(r, err)
	}
	r.renames = p.statement.renames
	r.copyIn = r.prepared.Statements() > 0 && r.prepared.Copy(0) == CopyIn
	return f.send(r, frame)
}

// describe needs no decision: it shows names and types of a result, which the
// server answers by itself, errors included.
func (f *frontend) describe(frame []byte) error {
	kind, name, ok := readNamed(frame)
	if !ok {
		return malformed(msgDescribe)
	}
	r := request{kind: kindDescribePortal}
	if kind == 'S' {
		r.kind = kindDescribeStatement
	}
	if !plainName(name) {
		return f.refuse(r, badName("prepared statement or portal"))
	}
	return f.send(r, frame)
}

func (f *frontend) close(frame []byte) error {
	kind, name, ok := readNamed(frame)
	if !ok {
		return malformed(msgClose)
	}
	r := request{kind: kindClosePortal, name: string(name)}
	if kind == 'S' {
		r.kind = kindCloseStatement
	}
	if !plainName(name) {
		// Nothing has that name, and closing nothing is no error.
		r.name = f.nowhere
		if !f.ledger.push(r) {
			return nil
		}
		out, err := f.out.room()
		if err != nil {
			return err
		}
		return f.out.made(appendNamed(out, msgClose, kind, r.name))
	}
	return f.send(r, frame)
}

// copyData sends on what a COPY FROM STDIN reads. Without one the server
// ignores it, and so do we.
func (f *frontend) copyData(size int) error {
	if size-1 > f.limits.message {
		return tooLarge(fmt.Sprintf("a message of %d bytes", size-1), f.limits.message)
	}
	if !f.ledger.holds(func() bool { return f.ledger.copies > 0 }) {
		return f.in.discard(size)
	}
	if !f.in.fits(size) {
		return f.out.stream(f.in, size)
	}
	frame, err := f.in.frame(size)
	if err != nil {
		return err
	}
	return f.out.pass(frame)
}

func (f *frontend) copyEnd(frame []byte) error {
	if frame[0] == msgCopyDone && len(frame) != headerSize || frame[0] == msgCopyFail && !readCopyFail(frame) {
		return malformed(frame[0])
	}
	copying, err := f.afterCopy()
	if err != nil || !copying {
		return err
	}
	f.ledger.mu.Lock()
	f.ledger.copying = false
	f.ledger.mu.Unlock()
	return f.out.pass(frame)
}

// afterCopy waits, while a statement that may ask for COPY data is with the
// server, until it asked or is over. It reports whether the server reads COPY
// data now. What the server makes of any other message depends on it, so
// nothing else may be on its way meanwhile.
func (f *frontend) afterCopy() (copying bool, err error) {
	l := f.ledger
	if err := f.await(func() bool { return l.copies == 0 || l.copying }); err != nil {
		return false, err
	}
	return l.holds(func() bool { return l.copying }), nil
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

package postgres

import (
	"context"
	"fmt"

	"chaperone.dev/chaperone/pkg/event"
)

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
		r.command, err = f.begin(ctx, prepared, Params{})
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
	f.named('S', m.name)
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
	r.statement = &statement{prepared: prepared, types: m.typeOIDs(), renames: mentions(m.text), fetches: fetches(m.text)}
	if err := f.send(r, frame); err != nil {
		return err
	}
	// What the rows look like must be known at each Execute, whether or not
	// the client ever asks: so we ask, once.
	return f.learn(request{kind: kindLearn, statement: r.statement}, 'S', r.name)
}

// learn asks the server, for ourselves, to describe a statement or portal.
func (f *frontend) learn(r request, kind byte, name string) error {
	if !f.ledger.push(r) {
		return nil
	}
	out, err := f.out.room()
	if err != nil {
		return err
	}
	return f.out.made(appendNamed(out, msgDescribe, kind, name))
}

// named tells the session of a name that a message uses.
func (f *frontend) named(kind byte, name []byte) {
	if len(name) > 0 && f.watcher != nil {
		f.watcher.Named(kind, string(name))
	}
}

func (f *frontend) bind(frame []byte) error {
	m, ok := readBind(frame)
	if !ok {
		return malformed(msgBind)
	}
	f.named('P', m.portal)
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
	r.command, err = f.begin(ctx, p.statement.prepared, f.params)
	if err != nil {
		return f.refuse(r, err)
	}
	if p.statement.fetches {
		if err := f.learn(request{kind: kindLearnPortal, portal: p}, 'P', string(name)); err != nil {
			r.command.End(Outcome{Unfinished: true})
			return err
		}
	}
	r.renames = p.statement.renames
	r.copyIn = r.prepared.Statements() > 0 && r.prepared.Copy(0) == CopyIn
	if err := f.send(r, frame); err != nil {
		return err
	}
	if c, ok := r.command.(Canceled); !ok || !c.Timed() {
		return nil
	}
	// Else the server may keep to itself until a Sync that the command is over.
	out, err := f.out.room()
	if err != nil {
		return err
	}
	return f.out.made(appendMessage(out, msgFlush))
}

// functionCall is libpq's fast path, which large objects go by. To the server it
// is a command of its own, with no Sync, like a Query.
func (f *frontend) functionCall(ctx context.Context, frame []byte) error {
	m, ok := readFunctionCall(frame)
	if !ok {
		return malformed(msgFunctionCall)
	}
	r := request{kind: kindFunctionCall}
	function, err := f.session.Function(ctx, m.oid, m.values)
	if err == nil {
		readParams(&f.params, m.params)
		f.params.Types = function.Types
		function.Result.Format = m.result
		r.prepared, r.result = function.Prepared, []Field{function.Result}
		r.command, err = f.begin(ctx, function.Prepared, f.params)
	}
	if err != nil {
		r.kind = kindQuery // which is answered in the same way when it fails
		return f.refuse(r, err)
	}
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
	f.named(kind, name)
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

package postgres

import (
	"errors"
	"fmt"
	"io"

	"chaperone.dev/chaperone/pkg/event"
)

// backend reads the server's messages, matches them to the requests that they
// answer, covers what the session says, and sends them on.
type backend struct {
	in      *reader
	out     *writer
	ledger  *ledger
	session Session
	limits  limits
	cancel  func() // has the server cancel what it runs; returns when it was told

	current   request // the request that is being answered,
	answering bool    // if there is one
	result    result  // what became of it so far

	// muted: rows were withheld, the client got an error in their place. What
	// the server still answers up to its next ReadyForQuery is swallowed.
	muted    bool
	withheld *Refusal
	failed   bool // the server itself failed a request since its last ReadyForQuery

	goodbye bool // the server sent a FATAL error: it closes next
	scratch []byte
	row     []byte // last RowDescription and its fields: clients repeat queries
	fields  []Field
}

// result is what became of a request so far.
type result struct {
	outcome Outcome
	index   int  // statements of the string that are over
	shaped  bool // the session knows the shape of the rows that come
	inspect bool // and wants to see them
	copyOut bool // COPY data comes
}

func newBackend(upstream io.Reader, client io.Writer, l *ledger, s Session, lim limits, cancel func()) *backend {
	b := &backend{out: &writer{dst: client}, ledger: l, session: s, limits: lim, cancel: cancel}
	b.in = newReader(upstream, b.out.flush)
	return b
}

// run ends with an error, always: a *Refusal that the client is to be told, or
// one of reading or writing.
func (b *backend) run() error {
	for {
		typ, size, err := b.in.header()
		if err == nil {
			err = b.message(typ, size)
		}
		if errors.Is(err, errMessageLength) {
			return unexpected(err.Error())
		}
		if err != nil {
			return err
		}
	}
}

func (b *backend) message(typ byte, size int) error {
	switch typ {
	case msgDataRow:
		return b.dataRow(size)
	case msgCopyData:
		return b.copyData(size)
	}
	if size-1 > b.limits.message {
		return tooLarge(fmt.Sprintf("a message of type %q from the server", typ), b.limits.message)
	}
	frame, err := b.in.frame(size)
	if err != nil {
		return err
	}
	switch typ {
	case msgErrorResponse:
		return b.errorResponse(frame)
	case msgNoticeResponse:
		return b.notice(frame)
	case msgNotificationResponse:
		return b.notification(frame)
	case msgParameterStatus:
		return b.parameterStatus(frame)
	}
	if !b.load() {
		return unexpected(fmt.Sprintf("message %q while nothing was asked", typ))
	}
	if b.current.refusal != nil && typ != msgReadyForQuery {
		return unexpected(fmt.Sprintf("message %q to a refused request", typ))
	}
	switch typ {
	case msgParseComplete:
		return b.simple(frame, kindParse)
	case msgBindComplete:
		return b.simple(frame, kindBind)
	case msgCloseComplete:
		return b.simple(frame, kindCloseStatement, kindClosePortal)
	case msgParameterDescription:
		return b.parameterDescription(frame)
	case msgRowDescription:
		return b.rowDescription(frame)
	case msgNoData:
		switch b.current.kind {
		case kindLearn:
			b.current.statement.described = true
			b.next(true)
			return nil
		case kindLearnPortal:
			b.current.portal.fields, b.current.portal.described = nil, true
			b.next(true)
			return nil
		}
		return b.simple(frame, kindDescribeStatement, kindDescribePortal)
	case msgCommandComplete, msgEmptyQueryResponse, msgPortalSuspended:
		return b.statementDone(frame)
	case msgCopyInResponse:
		return b.copyInResponse(frame)
	case msgCopyOutResponse:
		return b.copyOutResponse(frame)
	case msgCopyDone:
		if !b.result.copyOut {
			return unexpected("CopyDone outside COPY")
		}
		b.result.copyOut = false
		return b.pass(frame)
	case msgFunctionCallResponse:
		return b.functionCallResponse(frame)
	case msgReadyForQuery:
		return b.readyForQuery(frame)
	default:
		return unexpected(fmt.Sprintf("message type %q", typ))
	}
}

// load makes the request that the server answers now the current one.
func (b *backend) load() bool {
	if !b.answering {
		b.current, b.answering = b.ledger.first()
	}
	return b.answering
}

// next is called when the current request was answered.
func (b *backend) next(succeeded bool) {
	b.ledger.done(succeeded)
	b.answering, b.current = false, request{}
}

// finish ends the current request's command.
func (b *backend) finish() {
	if b.current.command != nil {
		b.current.command.End(b.result.outcome)
	}
	b.result = result{outcome: Outcome{Tags: b.result.outcome.Tags[:0]}}
}

func (b *backend) pass(frame []byte) error {
	if b.muted {
		return nil
	}
	return b.out.pass(frame)
}

// simple is for answers that are the whole answer and hold nothing to look at.
func (b *backend) simple(frame []byte, kinds ...kind) error {
	for _, k := range kinds {
		if b.current.kind == k {
			b.next(true)
			return b.pass(frame)
		}
	}
	return b.outOfPlace(frame)
}

func (b *backend) outOfPlace(frame []byte) error {
	return unexpected(fmt.Sprintf("message %q, request of kind %d", frame[0], b.current.kind))
}

func (b *backend) malformed(frame []byte) error {
	return unexpected(fmt.Sprintf("malformed message %q", frame[0]))
}

func (b *backend) parameterDescription(frame []byte) error {
	switch b.current.kind {
	case kindLearn:
		types, ok := readParameterDescription(frame)
		if !ok {
			return b.malformed(frame)
		}
		b.ledger.learn(b.current.statement, types)
		return nil
	case kindDescribeStatement:
		return b.pass(frame)
	default:
		return b.outOfPlace(frame)
	}
}

func (b *backend) rowDescription(frame []byte) error {
	switch b.current.kind {
	case kindDescribeStatement, kindDescribePortal:
		return b.simple(frame, b.current.kind)
	case kindLearn, kindLearnPortal:
		fields, ok := readRowDescription(frame)
		if !ok {
			return b.malformed(frame)
		}
		if b.current.kind == kindLearn {
			b.current.statement.fields, b.current.statement.described = fields, true
		} else {
			b.current.portal.fields, b.current.portal.described = fields, true
		}
		b.next(true)
		return nil
	case kindQuery:
		return b.queryFields(frame)
	default:
		return b.outOfPlace(frame)
	}
}

// queryFields is for the RowDescription before the rows of a simple query.
func (b *backend) queryFields(frame []byte) error {
	if string(frame) != string(b.row) || len(frame) == 0 {
		fields, ok := readRowDescription(frame)
		if !ok {
			return b.malformed(frame)
		}
		b.row, b.fields = nil, fields
		if len(frame) <= restBuffer {
			b.row = append(b.row, frame...)
		}
	}
	if err := b.shape(b.fields); err != nil {
		return b.withhold(err)
	}
	b.result.outcome.Bytes += uint64(len(frame))
	return b.pass(frame)
}

func (b *backend) shape(fields []Field) (err error) {
	if b.muted {
		return nil
	}
	b.result.inspect, err = b.current.command.Fields(b.result.index, fields)
	b.result.shaped = err == nil
	return err
}

func (b *backend) dataRow(size int) error {
	if !b.load() || b.current.command == nil {
		return unexpected("a row that nothing asked for")
	}
	if !b.result.shaped && !b.muted {
		if b.current.kind != kindExecute {
			return unexpected("a row without a description")
		}
		fields := b.current.portal.columns()
		if fields == nil {
			// No server does that. What can't be told apart can't be covered.
			err := b.withhold(&Refusal{
				Reason: event.ReasonMaskUntraceable, SQLState: "0A000",
				Message: "the statement returns rows that the server didn't describe",
			})
			if err != nil {
				return err
			}
		} else if err := b.shape(fields); err != nil {
			if err := b.withhold(err); err != nil {
				return err
			}
		}
	}
	return b.payload(size, Command.Row)
}

func (b *backend) copyData(size int) error {
	if !b.load() || !b.result.copyOut {
		return unexpected("COPY data that nothing asked for")
	}
	return b.payload(size, Command.CopyData)
}

// payload is for the messages that hold what was asked for.
func (b *backend) payload(size int, cover func(Command, []byte) ([]byte, error)) error {
	if b.muted {
		return b.in.discard(size)
	}
	b.result.outcome.Rows++
	b.result.outcome.Bytes += uint64(size)
	if !b.result.inspect && !b.in.fits(size) {
		return b.out.stream(b.in, size)
	}
	if size-1 > b.limits.message {
		if err := b.withhold(tooLarge(fmt.Sprintf("a row of %d bytes", size-1), b.limits.message)); err != nil {
			return err
		}
		return b.in.discard(size)
	}
	frame, err := b.in.frame(size)
	if err != nil {
		return err
	}
	if !b.result.inspect {
		return b.out.pass(frame)
	}
	body := frame[headerSize:]
	covered, err := cover(b.current.command, body)
	if err != nil {
		b.result.outcome.Rows--
		b.result.outcome.Bytes -= uint64(size)
		return b.withhold(err)
	}
	if len(covered) == len(body) && (len(body) == 0 || &covered[0] == &body[0]) {
		return b.out.pass(frame)
	}
	b.result.outcome.Bytes += uint64(len(covered)) - uint64(len(body))
	out, err := b.out.room()
	if err != nil {
		return err
	}
	return b.out.made(appendMessage(out, frame[0], covered))
}

// statementDone is for what ends a statement: CommandComplete,
// EmptyQueryResponse and PortalSuspended.
func (b *backend) statementDone(frame []byte) error {
	if b.current.kind != kindQuery && b.current.kind != kindExecute {
		return b.outOfPlace(frame)
	}
	if frame[0] == msgCommandComplete {
		tag, ok := readCommandComplete(frame)
		if !ok {
			return b.malformed(frame)
		}
		name := string(tag)
		b.ledger.ran(name)
		b.result.outcome.Tags = append(b.result.outcome.Tags, name)
	}
	b.result.index++
	b.result.shaped, b.result.copyOut = false, false
	if err := b.pass(frame); err != nil {
		return err
	}
	if b.current.kind == kindExecute {
		b.finish()
		b.next(true)
	}
	return nil
}

func (b *backend) copyInResponse(frame []byte) error {
	if _, ok := readCopyResponse(frame); !ok {
		return b.malformed(frame)
	}
	if !b.current.copyIn || b.result.index >= b.current.prepared.Statements() ||
		b.current.prepared.Copy(b.result.index) != CopyIn {
		return unexpected("it asks for COPY data")
	}
	if b.muted {
		// The client was told of an error and won't send any.
		return b.broken()
	}
	b.ledger.startCopy()
	return b.pass(frame)
}

func (b *backend) copyOutResponse(frame []byte) error {
	binary, ok := readCopyResponse(frame)
	if !ok {
		return b.malformed(frame)
	}
	if b.current.command == nil || b.result.index >= b.current.prepared.Statements() ||
		b.current.prepared.Copy(b.result.index) != CopyOut {
		return unexpected("it sends COPY data")
	}
	b.result.copyOut = true
	if b.muted {
		return nil
	}
	var err error
	if b.result.inspect, err = b.current.command.CopyOut(b.result.index, binary); err != nil {
		return b.withhold(err)
	}
	return b.pass(frame)
}

func (b *backend) readyForQuery(frame []byte) error {
	status, ok := readReadyForQuery(frame)
	if !ok {
		return b.malformed(frame)
	}
	if !b.current.kind.ready() ||
		b.current.refusal != nil && !b.failed {
		return b.outOfPlace(frame)
	}
	if b.muted && !b.failed && status == 'T' {
		// The client was told that the statement failed, and it didn't.
		return b.broken()
	}
	if status == 'I' {
		b.ledger.idle()
	}
	b.finish()
	b.next(true)
	b.muted, b.withheld, b.failed = false, nil, false
	return b.pass(frame)
}

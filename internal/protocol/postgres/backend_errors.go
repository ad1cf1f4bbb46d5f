package postgres

import "errors"

// errorResponse is for the server's errors: they fail the current request.
func (b *backend) errorResponse(frame []byte) error {
	e, ok := readErrorResponse(frame)
	if !ok {
		return b.malformed(frame)
	}
	working := b.load()
	frame, message := b.cover(frame, e.message)
	if why := b.cancelled(e); why != nil {
		frame, message = appendRefusal(nil, severityError, why), why.Message
	}
	if e.fatal() {
		b.goodbye = true
		if working && b.current.command != nil {
			b.result.outcome.SQLState, b.result.outcome.Error = e.sqlState, message
		}
		return b.emit(frame)
	}
	if !working {
		return b.emit(frame)
	}
	b.failed = true
	if b.withheld == nil {
		b.result.outcome.SQLState, b.result.outcome.Error = e.sqlState, message
	}
	if r := b.current.refusal; r != nil && e.sqlState == standInState(b.current.kind) {
		out, err := b.out.room()
		if err != nil {
			return err
		}
		frame = nil
		if !b.muted {
			if err := b.out.made(appendRefusal(out, severityError, r)); err != nil {
				return err
			}
		}
	}
	if frame != nil && !b.muted {
		if err := b.emit(frame); err != nil {
			return err
		}
	}
	if b.current.kind.ready() {
		return nil // ReadyForQuery follows
	}
	b.finish()
	b.answering, b.current = false, request{}
	for _, c := range b.ledger.fail() {
		c.End(Outcome{Skipped: true})
	}
	return nil
}

// cancelled is what is told in place of the server's error that it has cancelled what
// runs; nil: the error itself.
func (b *backend) cancelled(e serverError) *Refusal {
	if command, ok := b.current.command.(Canceled); ok && e.sqlState == stateQueryCanceled {
		return command.Cancelled()
	}
	return nil
}

// standInState is the SQLSTATE by which the message that stands in for a
// refused one fails. Any other is the server's own, for another reason.
func standInState(k kind) string {
	switch k {
	case kindQuery, kindParse:
		return stateSyntaxError
	case kindBind, kindDescribeStatement:
		return stateNoStatement
	default:
		return stateNoPortal
	}
}

// withhold tells the client err in place of the rows that may not be shown,
// and has the server stop.
func (b *backend) withhold(err error) error {
	var r *Refusal
	if !errors.As(err, &r) || r.Fatal {
		return err
	}
	b.muted, b.withheld = true, r
	b.result.outcome.SQLState, b.result.outcome.Error = r.SQLState, r.Message
	if b.current.kind == kindExecute {
		b.ledger.skip()
	}
	out, err := b.out.room()
	if err != nil {
		return err
	}
	if err := b.out.made(appendRefusal(out, severityError, r)); err != nil {
		return err
	}
	if err := b.out.flush(); err != nil {
		return err
	}
	b.cancel()
	return nil
}

// broken ends the session when the server went on after rows were withheld.
// Closing its connection rolls the transaction back.
func (b *backend) broken() error {
	r := *b.withheld
	r.Fatal = true
	r.Detail = "The connection ends so that the transaction is rolled back."
	return &r
}

// cover covers the free text of an error or notice.
func (b *backend) cover(frame []byte, message string) (covered []byte, coveredMessage string) {
	out, changed := coverError(b.scratch, frame, func(field byte, s string) string {
		s = b.session.Text(b.current.command, field, s)
		if field == 'M' {
			message = s
		}
		return s
	})
	if changed {
		b.keep(out)
	}
	return out, message
}

// keep keeps a buffer for the next use, unless it is a big one.
func (b *backend) keep(buf []byte) {
	if b.scratch = buf; cap(buf) > flushAt {
		b.scratch = nil
	}
}

// emit sends a frame that may have been made here.
func (b *backend) emit(frame []byte) error {
	out, err := b.out.room()
	if err != nil {
		return err
	}
	return b.out.made(append(out, frame...))
}

func (b *backend) notice(frame []byte) error {
	e, ok := readErrorResponse(frame)
	if !ok {
		return b.malformed(frame)
	}
	b.load()
	frame, _ = b.cover(frame, e.message)
	return b.emit(frame)
}

func (b *backend) notification(frame []byte) error {
	covered, ok := coverNotification(b.scratch, frame, func(s string) string {
		return b.session.Text(nil, 0, s)
	})
	if !ok {
		return b.malformed(frame)
	}
	return b.emit(covered)
}

func (b *backend) parameterStatus(frame []byte) error {
	name, value, ok := readParameterStatus(frame)
	if !ok {
		return b.malformed(frame)
	}
	if err := checkParameter(b.session, name, value); err != nil {
		return err
	}
	return b.emit(frame)
}

package postgres

import "context"

// Session is what a PostgreSQL connection asks of the session it belongs to:
// may this run, write it down, cover what may not be seen. The wire package
// knows no policy, no recorder and no masking rule beyond it.
//
// Prepare, Function and Begin are called from the goroutine that reads the client, in
// the order of the client's messages; Text, Parameter and the methods of a
// [Command] from the one that reads the upstream, in the order of its answers.
// The two goroutines run side by side.
type Session interface {
	// Prepare reads a query string: that of a Query message or of a Parse
	// message. It decides nothing. An error is a *Refusal: the text can't be
	// let through at all (unparsable, or its result can't be masked).
	//
	// What a prepared statement or a portal is called is followed by this
	// package as far as the protocol shows it. A function or DO block that
	// runs PREPARE, DEALLOCATE, DECLARE or CLOSE inside the server isn't
	// visible here: where that matters, refuse what may do it.
	Prepare(ctx context.Context, text string) (Prepared, error)

	// Function reads a FunctionCall message, as Prepare does a query string: it
	// finds out what function has the OID, and what it returns. Begin decides the
	// call then, as it would one in a SELECT.
	Function(ctx context.Context, oid uint32, arguments int) (Function, error)

	// Begin decides one execution of p. When it returns without an error the
	// command is allowed and has been written down: the caller may send it
	// upstream, and calls the Command's End exactly once. An error is a
	// *Refusal and is on record already, or a *Held. It must return soon after
	// ctx ends.
	//
	// What changes client_encoding or standard_conforming_strings changes how
	// the server reads the next query, which can be on its way before the
	// change is reported: Begin should refuse it. A report of a value that
	// can't be inspected ends the session, but that may be a query late.
	Begin(ctx context.Context, p Prepared, params Params) (Command, error)

	// Text covers what may not be seen in free text from the server: the
	// fields of errors and notices, and notification payloads. It returns s
	// itself when there is nothing to cover. c is the command that runs, nil
	// outside one; field is the field's code in ErrorResponse ('M' message,
	// 'D' detail, 'H' hint, 'W' where, 'q' internal query, or one that is not
	// known here), 0 for a payload.
	Text(c Command, field byte, s string) string

	// Parameter tells a run-time parameter that the server reports
	// (client_encoding, standard_conforming_strings, search_path from
	// PostgreSQL 18 on, …): first all of them, before the first command, then
	// each change. An error is a *Refusal that ends the session.
	Parameter(name, value string) error
}

// NameWatcher is a Session that is told when a message of the client makes or
// closes a prepared statement ('S') or a portal ('P') that has a name, before the
// message goes upstream: SQL's EXECUTE and FETCH know them by the same names.
type NameWatcher interface {
	Named(kind byte, name string)
}

// Held is the error of a Begin whose command waits for something outside of the
// connection.
type Held struct {
	// Wait returns once the command is decided, as Begin does (but never with a
	// *Held), and with an error soon after ctx ends: when the client has gone, when
	// it cancels the command, or when the session ends. The cause of ctx is a
	// *Refusal then, but where the client has gone. notify tells the client
	// something meanwhile. The parameters that Begin was given are valid until
	// Wait returns.
	Wait func(ctx context.Context, notify func(Notice)) (Command, error)
}

// Error implements error.
func (h *Held) Error() string { return "the command waits to be decided" }

// Notice is told to the client beside the answers to its commands.
type Notice struct{ Message, Detail, Hint string }

// Prepared is a query string that was read. Values are immutable.
type Prepared interface {
	// Statements is how many SQL statements the string holds.
	Statements() int
	// Copy says whether the i-th statement is COPY … FROM STDIN or
	// COPY … TO STDOUT.
	Copy(i int) CopyDirection
}

// Function is a function that is called by its OID. Its result is one row of one
// column, as if it were called in a SELECT.
type Function struct {
	Prepared Prepared
	Types    []uint32 // type OIDs of its arguments
	Result   Field    // all but its format
}

// CopyDirection says which way COPY data flows on the connection.
type CopyDirection uint8

// The directions.
const (
	CopyNone CopyDirection = iota
	CopyIn                 // client to server
	CopyOut                // server to client
)

// Params are the parameters of a Bind message, for the record. The slices
// alias the message and are valid during the call only.
type Params struct {
	Formats []int16  // none: all text; one: for all; else one each
	Values  [][]byte // nil: NULL
	Types   []uint32 // type OIDs as far as they are known (0: not); may be shorter than Values
}

// Field describes one result column, from RowDescription and, in the extended
// protocol, the Bind message's result formats.
type Field struct {
	Name   string
	Table  uint32 // OID of the table, 0 when it is no plain column
	Column uint16 // attribute number, 0 likewise
	Type   uint32 // type OID
	Format int16  // 0 text, 1 binary
}

// Command is one execution on its way through the upstream.
//
// An error of Fields, Row, CopyOut or CopyData is a *Refusal: the client gets
// it in place of the rows, the running statement is cancelled, and whatever it
// still answers is swallowed. The statement may have taken effect all the
// same, unless it ran in a transaction block, which is then rolled back.
type Command interface {
	// Fields tells the shape of the rows that follow for the i-th statement
	// of the string. The slice must not be changed and may be kept. With
	// inspect false the rows go to the client as they are and Row isn't
	// called.
	Fields(i int, fields []Field) (inspect bool, err error)
	// Row covers a DataRow. body is the message's body; the result is body
	// itself when nothing was covered, else a new body, valid until the next
	// call.
	Row(body []byte) ([]byte, error)
	// CopyOut tells that data of a COPY … TO STDOUT follows for the i-th
	// statement, in binary or text (CSV included) format. With inspect false
	// CopyData isn't called.
	CopyOut(i int, binary bool) (inspect bool, err error)
	// CopyData covers one CopyData message, as Row does a row. In text
	// formats PostgreSQL sends one line in each.
	CopyData(body []byte) ([]byte, error)
	// End says how the command went. It never blocks for long.
	End(Outcome)
}

// Canceled is a [Command] that may be cancelled by others than its client.
type Canceled interface {
	Command
	// Timed tells whether it matters when exactly the command is over.
	Timed() bool
	// Cancelled is called when the server says that it has cancelled the command. The
	// result is what the client is told instead; nil: it did so for the client.
	Cancelled() *Refusal
}

// Outcome is how a command went.
type Outcome struct {
	Tags       []string // command tags, one per finished statement; valid during End only
	Rows       uint64   // rows sent to the client
	Bytes      uint64   // bytes of result messages sent to the client
	SQLState   string   // of the error, or empty
	Error      string   // its message, covered
	Skipped    bool     // the server never ran it: an earlier message of the same batch failed
	Unfinished bool     // the connection went away first
}

// Refusal is an error that the client is told in its own protocol.
type Refusal struct {
	Reason   string // a Reason… constant of package event
	SQLState string // five characters, PostgreSQL appendix A
	Message  string
	Detail   string
	Hint     string
	Position int   // 1-based character index into the query, 0: none
	Fatal    bool  // it ends the session, not just the command
	Err      error // cause, for the node's log only
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Err }

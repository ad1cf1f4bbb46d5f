package postgres

import "context"

// Session is what a PostgreSQL connection asks of the session it belongs to:
// may this run, write it down, cover what may not be seen. The wire package
// knows no policy, no recorder and no masking rule beyond it.
//
// Prepare, Begin and Text are called from the goroutine that reads the client
// in the order of the client's messages, the methods of a [Command] from the
// one that reads the upstream, in the order of its answers.
type Session interface {
	// Prepare reads a query string: that of a Query message or of a Parse
	// message. It decides nothing. An error is a *Refusal: the text can't be
	// let through at all (unparsable, or its result can't be masked).
	Prepare(ctx context.Context, text string) (Prepared, error)

	// Begin decides one execution of p. When it returns without an error the
	// command is allowed and has been written down: the caller may send it
	// upstream, and calls the Command's End exactly once. An error is a
	// *Refusal and is on record already.
	Begin(ctx context.Context, p Prepared, params Params) (Command, error)

	// Text covers what may not be seen in free text from the server: the
	// fields of errors and notices, and notification payloads. It returns s
	// itself when there is nothing to cover.
	Text(s string) string
}

// Prepared is a query string that was read. Values are immutable.
type Prepared interface {
	// Statements is how many SQL statements the string holds.
	Statements() int
	// CopyIn, CopyOut: whether the i-th statement is COPY … FROM STDIN or
	// COPY … TO STDOUT.
	Copy(i int) CopyDirection
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
	Formats []int16
	Values  [][]byte // nil: NULL
	Types   []uint32 // type OIDs as far as they are known; may be shorter than Values
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
type Command interface {
	// Fields tells the shape of the rows that follow for the i-th statement
	// of the string. An error is a *Refusal: the rows can't be shown.
	Fields(i int, fields []Field) error
	// Row covers a DataRow. body is the message's body; the result is body
	// itself when nothing was covered, else a new body, valid until the next
	// call. An error is a *Refusal: the row must not be shown.
	Row(body []byte) ([]byte, error)
	// CopyData covers one CopyData message of a COPY TO STDOUT, likewise.
	CopyData(body []byte) ([]byte, error)
	// End says how the command went. It never blocks for long.
	End(Outcome)
}

// Outcome is how a command went.
type Outcome struct {
	Tags       []string // command tags, one per finished statement
	Rows       uint64   // rows sent to the client
	Bytes      uint64   // bytes of result messages sent to the client
	SQLState   string   // of the error, or empty
	Error      string   // its message, covered
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
	Err      error // cause, for the node's log only
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Err }

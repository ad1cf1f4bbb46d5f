package policy

import "time"

// LocalIssuer is the issuer of principals that are local users: the user that
// "chaperone run" was started by, as the kernel tells it.
const LocalIssuer = "local"

// Principal is who a job acts for. It was verified before it got here.
type Principal struct {
	Subject string
	// Issuer is the IdentityProvider document's name, or [LocalIssuer].
	Issuer  string
	Groups  []string
	Claims  map[string]any
	Expires time.Time // zero: it does not expire by itself
}

// WorkloadFacts are what policies see of the job, as variable "workload".
type WorkloadFacts struct {
	Name       string
	Node       string
	Executable string
	UID        int64
	// Unit is the systemd unit of a job that is one.
	Unit string
	// The rest is a pod's.
	Namespace      string
	ServiceAccount string
	Labels         map[string]string
}

// TargetFacts are what policies see of the target, as variable "target".
type TargetFacts struct {
	Name     string
	Protocol string
	Host     string
	Port     int64
	Labels   map[string]string
}

// SessionFacts are what policies see of the session so far, as "session".
type SessionFacts struct {
	Age      time.Duration
	Rows     int64
	Commands int64
}

// Statement is what policies see of one SQL statement, as "statement".
// A value is shared between sessions and must not be changed.
type Statement struct {
	Text      string   // the whole query string that the statement is part of
	Kind      string   // "SELECT", "INSERT", "CREATE TABLE", …: the command's name in PostgreSQL's own terms
	ReadOnly  bool     // it can't change data, schema or the server's state
	DDL       bool     // it changes the schema
	Tables    []string // "schema.table", or "table" where the statement doesn't qualify it
	Columns   []string // as written
	Functions []string // lower case, as written
	HasWhere  bool     // UPDATE, DELETE, SELECT with a WHERE
	Multi     bool     // the query string holds more than one statement
}

// Action is what a rule, or a whole decision, comes to.
type Action string

// The actions.
const (
	Allow Action = "allow"
	Deny  Action = "deny"
)

// Decision is the outcome of an evaluation.
type Decision struct {
	Action  Action
	Policy  string // document that decided; empty: nothing allowed it
	Rule    string
	Message string // for the client, on a denial
	// Lasting is true when nothing but time-independent facts was asked, so
	// the same statement of the same session is decided the same way again.
	Lasting bool
}

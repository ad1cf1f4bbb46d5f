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
	Image          string // of the container
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
	Kinds     []string // Kind first, then whatever else it does
	ReadOnly  bool     // it can't change data, schema or the server's state
	DDL       bool     // it changes the schema
	Tables    []string // "schema.table", or "table" where the statement doesn't qualify it
	Relations []string // "schema.table": all that the names in Tables may stand for
	Columns   []string // as written
	Functions []string // lower case, as written
	HasWhere  bool     // UPDATE, DELETE, SELECT with a WHERE
	Multi     bool     // the query string holds more than one statement
}

// Asked is what a decision is about: one of its fields is set. With none, it
// is whether a session may be opened.
type Asked struct {
	Statement *Statement
	Command   *Command
	File      *File
	Request   *Request
}

// Action is what a rule, or a whole decision, comes to.
type Action string

// The actions.
const (
	Allow   Action = "allow"
	Approve Action = "approve" // allowed once people have said yes
	Deny    Action = "deny"
)

// Decision is the outcome of an evaluation.
type Decision struct {
	Action  Action
	Policy  string // document that decided; empty: nothing allowed it
	Rule    string
	Message string // for the client, on a denial
	// Approvals are all that must be given where Action is Approve, in the order
	// of the policies' names; Policy and Rule are those of the first.
	Approvals []Needed
	// Shadows are what policies with "enforce: shadow" would have done.
	Shadows []Shadow
	// Lasting is true when nothing but time-independent facts was asked, so
	// the same statement of the same session is decided the same way again.
	Lasting bool
}

// Needed is one approval that a decision waits for.
type Needed struct {
	Policy, Rule string
	Message      string // why, in the rule's words; may be empty
	// Spec has its defaults filled in. It is the document's and must not be changed.
	Spec *ApprovalSpec
}

// Shadow is what one policy would have decided, had it been enforced.
type Shadow struct {
	Policy, Rule string // Rule is empty when nothing in the policy matched
	Action       Action
}

// Command is what policies see of one SSH command, as variable "command".
type Command struct {
	Text        string   // as the client sent it
	Argv        []string // of the first program; empty where it can't be told
	Program     string   // base name of the first program
	Programs    []string // base names of all programs of the command line
	Interactive bool     // a terminal was asked for
	Subsystem   string   // "sftp", …; empty for a shell or a command
	Forward     string   // "local", "remote", "dynamic", "agent", "x11"; empty: it forwards nothing
}

// File is what policies see of one SFTP or scp operation, as variable "file".
type File struct {
	Op   string // "read", "write", "remove", "rename", "mkdir", "rmdir", "list", "stat", "setstat", "link"
	Path string // absolute and clean
	Size int64  // bytes, where known
}

// Request is what policies see of one Kubernetes API request, as variable
// "request". The terms are those of
// https://kubernetes.io/docs/reference/access-authn-authz/authorization/.
type Request struct {
	Verb            string
	Group           string // API group; empty is the core group
	Version         string
	Resource        string
	Subresource     string
	Namespace       string
	Name            string
	NonResourcePath string // "/healthz"; empty for resources
}

package event

import "time"

// Principal is who a job acts for.
type Principal struct {
	Subject string   `json:"subject"`
	Issuer  string   `json:"issuer"`
	Groups  []string `json:"groups,omitempty"`
}

// Workload is which planner a connection came from.
type Workload struct {
	Name string `json:"name"`           // as given to "chaperone run", the unit's, or NAMESPACE/POD
	Job  string `json:"job"`            // the job's id, unique on the node
	Kind string `json:"kind"`           // "run", "systemd" or "kubernetes"
	Unit string `json:"unit,omitempty"` // systemd unit
}

// Process is the client process, as the kernel saw it at connect(2).
type Process struct {
	PID        uint32 `json:"pid"`
	UID        uint32 `json:"uid"`
	GID        uint32 `json:"gid"`
	Comm       string `json:"comm,omitempty"`
	Executable string `json:"executable,omitempty"`
}

// Target is where a session leads.
type Target struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Host     string `json:"host"`    // the host name by which the client or the registry knows it
	Address  string `json:"address"` // true destination, "ip:port"
	Database string `json:"database,omitempty"`
}

// SessionStarted is published when a connection was given an upstream.
type SessionStarted struct {
	Session        string    `json:"session"`
	Principal      Principal `json:"principal"`
	Workload       Workload  `json:"workload"`
	Target         Target    `json:"target"`
	Process        Process   `json:"process"`
	Credential     string    `json:"credential"`              // name of the account at the target, never its secret
	RequestedUser  string    `json:"requestedUser,omitempty"` // what the client asked to be, recorded and not used
	Application    string    `json:"application,omitempty"`   // what the client calls itself
	PolicyRevision string    `json:"policyRevision"`
	Record         string    `json:"record"` // "durable" or "strict"
}

// SessionEnded is published when that connection is over.
type SessionEnded struct {
	Session   string        `json:"session"`
	Reason    string        `json:"reason"`            // a Reason… constant
	Message   string        `json:"message,omitempty"` // the sentence behind the reason
	Commands  uint64        `json:"commands"`
	Denied    uint64        `json:"denied"`
	Rows      uint64        `json:"rows"`
	BytesIn   uint64        `json:"bytesIn"`  // from the client
	BytesOut  uint64        `json:"bytesOut"` // to the client
	Duration  time.Duration `json:"durationNs"`
	RootHash  string        `json:"rootHash,omitempty"` // hex SHA-256 that closes the recording's chain
	Recording uint64        `json:"recordingBlocks,omitempty"`
}

// SessionRefused is published when a connection was given no upstream.
type SessionRefused struct {
	Reason      string     `json:"reason"`  // a Reason… constant
	Message     string     `json:"message"` // what the client was told
	Principal   *Principal `json:"principal,omitempty"`
	Workload    *Workload  `json:"workload,omitempty"`
	Process     *Process   `json:"process,omitempty"`
	Destination string     `json:"destination,omitempty"` // true destination, "ip:port"; empty when not diverted
	Peer        string     `json:"peer,omitempty"`        // the connecting address, when that is all there is
	Target      string     `json:"target,omitempty"`
	// Untold is how many refusals of the same job, or of no job, before this event
	// were counted and not told singly.
	Untold uint64 `json:"untold,omitempty"`
}

// Reasons of SessionRefused and SessionEnded.
const (
	ReasonNotDiverted     = "not_diverted"     // the connection came straight to the listener
	ReasonNoTarget        = "no_target"        // no target document covers the destination
	ReasonAmbiguousTarget = "ambiguous_target" // more than one does, and nothing tells them apart
	ReasonUnknownWorkload = "unknown_workload" // the socket's cgroup belongs to no live job
	ReasonNoIdentity      = "no_identity"      // the job proved no principal, or it expired
	ReasonDenied          = "denied"           // policy
	ReasonUpstreamDown    = "upstream_unreachable"
	ReasonUpstreamTLS     = "upstream_certificate"
	ReasonUpstreamAuth    = "upstream_authentication"
	ReasonCredential      = "credential_unavailable"
	ReasonProtocol        = "protocol_error"
	ReasonRecording       = "recording_unavailable"
	ReasonLimit           = "limit"    // a bound of the session or of the node
	ReasonShutdown        = "shutdown" // the daemon stops
	ReasonJobEnded        = "job_ended"
	ReasonClientClosed    = "client_closed"
	ReasonUpstreamClosed  = "upstream_closed"
	ReasonTruncated       = "truncated" // the daemon died; closed at its next start
	ReasonTimeout         = "timeout"
	ReasonMaskUntraceable = "untraceable" // a column's source can't be told, so it can't be masked
	ReasonFlood           = "flood"       // refusals that were counted, and have no event of their own
	ReasonInternal        = "internal"
	ReasonApproval        = "approval" // people are to approve it, did not, or can't be asked
	ReasonLocked          = "locked"   // a lock is in force
)

// Command is published once per statement, exec or request, when it is over
// or was refused.
type Command struct {
	Session string `json:"session"`
	Seq     uint64 `json:"seq"`           // counts from 1 in its session
	Text    string `json:"text"`          // secrets covered; cut at MaxText bytes
	Cut     bool   `json:"cut,omitempty"` // Text was cut
	// Parameters are the values of its parameters, secrets covered: at most 32,
	// each cut at 256 bytes, in hex where the client sent no text.
	Parameters []string `json:"parameters,omitempty"`
	Digest     string   `json:"digest"` // hex SHA-256 of the full text as sent
	Parsed     Parsed   `json:"parsed"`
	Decision   string   `json:"decision"`         // "allow", "deny", or "pending": it waits for people, and is to be sent again
	Policy     string   `json:"policy,omitempty"` // document that decided
	Rule       string   `json:"rule,omitempty"`   // its rule
	Message    string   `json:"message,omitempty"`
	// Approvals are the ids of the requests that people answered, or are to answer.
	Approvals []string `json:"approvals,omitempty"`
	// Shadows are what policies that are not enforced would have done.
	Shadows []Shadow `json:"shadows,omitempty"`
	// PolicyRevision is that of the documents that decided.
	PolicyRevision string        `json:"policyRevision"`
	Rows           uint64        `json:"rows"`
	Bytes          uint64        `json:"bytes"`         // result bytes sent to the client
	Tag            string        `json:"tag,omitempty"` // command tags, ";"-separated for a multi-statement string
	SQLState       string        `json:"sqlstate,omitempty"`
	Error          string        `json:"error,omitempty"`
	Duration       time.Duration `json:"durationNs"`
	Unfinished     bool          `json:"unfinished,omitempty"` // the session ended before the command did
	Skipped        bool          `json:"skipped,omitempty"`    // the server never ran it: an earlier one of its batch failed
}

// Shadow is what a policy with "enforce: shadow" would have decided.
type Shadow struct {
	Policy string `json:"policy"`
	Rule   string `json:"rule,omitempty"` // empty: nothing in it matched
	Action string `json:"action"`         // "allow", "approve" or "deny"
}

// MaxText is the longest command text, in bytes, that an event carries. The
// recording holds the whole.
const MaxText = 16 << 10

// Parsed are the facts that policy saw of a command. An event lists at most 256
// of each, the recording all.
type Parsed struct {
	Kinds     []string `json:"kinds,omitempty"` // of each statement in the string, in order
	ReadOnly  bool     `json:"readOnly"`
	DDL       bool     `json:"ddl,omitempty"`
	Tables    []string `json:"tables,omitempty"`
	Functions []string `json:"functions,omitempty"`
}

// CredentialIssued is published when a credential was minted.
type CredentialIssued struct {
	Grant   string    `json:"grant"`
	Issuer  string    `json:"issuer"` // kind of credential: "postgresRole", …
	Name    string    `json:"name"`   // the account at the target
	Target  string    `json:"target"`
	Job     string    `json:"job"`
	Expires time.Time `json:"expires"`
}

// CredentialRevoked is published when the credential was verified to be gone,
// or when an attempt to revoke it failed and will be repeated.
type CredentialRevoked struct {
	Grant    string `json:"grant"`
	Issuer   string `json:"issuer"`
	Name     string `json:"name"`
	Target   string `json:"target"`
	Job      string `json:"job"`
	Why      string `json:"why"`      // "job_ended", "expired", "recovered", …
	Verified bool   `json:"verified"` // false: still there, see Error; it is tried again
	Error    string `json:"error,omitempty"`
}

// MaskApplied is published per result in which values were covered.
type MaskApplied struct {
	Session string       `json:"session"`
	Seq     uint64       `json:"seq"` // the command's
	Columns []MaskColumn `json:"columns"`
}

// MaskColumn counts covered values of one result column. It never holds one.
type MaskColumn struct {
	Column string `json:"column"` // result column's name
	Rule   string `json:"rule"`   // "<mask document>: <column pattern>" or "<mask document>: detect <detector>"
	Count  uint64 `json:"count"`
}

// Bypass is published when a planner's packet or socket toward a protected
// address was stopped outside the proxy.
type Bypass struct {
	Process     Process `json:"process"`
	Job         string  `json:"job,omitempty"`
	SocketType  string  `json:"socketType"` // "tcp", "udp", "raw", …
	Destination string  `json:"destination"`
	Hook        string  `json:"hook"`  // kernel hook that stopped it
	Count       uint64  `json:"count"` // attempts since the last report of the same kind
}

// PolicyLoaded is published when a set of documents came into force.
type PolicyLoaded struct {
	Revision  string         `json:"revision"`
	Documents map[string]int `json:"documents"` // kind → how many
}

// PolicyRejected is published when a set was refused.
type PolicyRejected struct {
	Kept   string   `json:"kept"` // revision that stays in force
	Errors []string `json:"errors"`
}

// NodeStarted is published when a daemon has begun to enforce.
type NodeStarted struct {
	Version      string `json:"version"`
	Kernel       string `json:"kernel"`
	RecordingKey string `json:"recordingKey"` // base64 Ed25519 public key that signs this node's recordings
}

// NodeDegraded is published when a daemon can't do all of its work.
type NodeDegraded struct {
	Component string `json:"component"`
	Message   string `json:"message"`
}

// ApprovalRequested is published when people are asked.
type ApprovalRequested struct {
	Request    string    `json:"request"` // its id
	About      string    `json:"about"`   // "session" or "command"
	Session    string    `json:"session,omitempty"`
	Principal  Principal `json:"principal"`
	Workload   Workload  `json:"workload"`
	Target     string    `json:"target"`
	Text       string    `json:"text,omitempty"` // secrets covered; cut at MaxText bytes
	Parameters []string  `json:"parameters,omitempty"`
	Parsed     Parsed    `json:"parsed"`
	Digest     string    `json:"digest"` // what an answer is bound to
	Policy     string    `json:"policy"`
	Rule       string    `json:"rule"`
	Why        string    `json:"why,omitempty"`
	Groups     []string  `json:"groups,omitempty"`   // who may answer
	Subjects   []string  `json:"subjects,omitempty"` // who may answer
	Count      int       `json:"count"`              // how many must say yes
	Mode       string    `json:"mode"`               // "hold" or "retry"
	Expires    time.Time `json:"expires"`
}

// ApprovalVote is one person's answer, as the authority signed it and the node verified it.
type ApprovalVote struct {
	By        Principal     `json:"by"`
	IssuerURL string        `json:"issuerURL,omitempty"`
	Name      string        `json:"name,omitempty"` // for people to read; signed like the rest
	Via       string        `json:"via"`            // "terminal", "page" or "chat"
	Verdict   string        `json:"verdict"`
	Reason    string        `json:"reason,omitempty"`
	Standing  time.Duration `json:"standingNs,omitempty"` // it stands for more of the kind
	At        time.Time     `json:"at"`
	Until     time.Time     `json:"until"`
	Key       string        `json:"signer"` // id of the key that signed
	Signature []byte        `json:"signature"`
}

// ApprovalDecided is published when people have decided.
type ApprovalDecided struct {
	Request string         `json:"request"`
	Session string         `json:"session,omitempty"`
	Outcome string         `json:"outcome"` // "approved" or "denied"
	Digest  string         `json:"digest"`
	Votes   []ApprovalVote `json:"votes"`
}

// ApprovalExpired is published when a request has ended without people's decision.
type ApprovalExpired struct {
	Request string `json:"request"`
	Session string `json:"session,omitempty"`
	Outcome string `json:"outcome"` // "expired" or "cancelled"
	Message string `json:"message,omitempty"`
}

// ApprovalRejected is published when an answer did not count.
type ApprovalRejected struct {
	Request string `json:"request"`
	// By is who is said to have answered; where the signature is wrong that proves nothing.
	By      *Principal `json:"by,omitempty"`
	Reason  string     `json:"reason"` // "signature", "digest", "late", "replayed", "self", "not_asked", "standing"
	Message string     `json:"message"`
}

// LockApplied is published by each node that has put a lock in force.
type LockApplied struct {
	Lock      string    `json:"lock"`
	Principal string    `json:"principal,omitempty"`
	Workload  string    `json:"workload,omitempty"`
	Target    string    `json:"target,omitempty"`
	Session   string    `json:"session,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	By        Principal `json:"by"`
	Expires   time.Time `json:"expires"`
	// Cut is how many live sessions it ended, Revoked how many credentials.
	Cut     int `json:"cut"`
	Revoked int `json:"revoked"`
}

// LockEnded is published by each node when a lock is not in force any more.
type LockEnded struct {
	Lock   string     `json:"lock"`
	Reason string     `json:"reason"` // "expired" or "released"
	By     *Principal `json:"by,omitempty"`
}

// EventType implementations.

func (SessionStarted) EventType() Type    { return TypeSessionStarted }
func (SessionEnded) EventType() Type      { return TypeSessionEnded }
func (SessionRefused) EventType() Type    { return TypeSessionRefused }
func (Command) EventType() Type           { return TypeCommand }
func (CredentialIssued) EventType() Type  { return TypeCredentialIssued }
func (CredentialRevoked) EventType() Type { return TypeCredentialRevoked }
func (MaskApplied) EventType() Type       { return TypeMaskApplied }
func (Bypass) EventType() Type            { return TypeBypass }
func (PolicyLoaded) EventType() Type      { return TypePolicyLoaded }
func (PolicyRejected) EventType() Type    { return TypePolicyRejected }
func (NodeStarted) EventType() Type       { return TypeNodeStarted }
func (NodeDegraded) EventType() Type      { return TypeNodeDegraded }
func (ApprovalRequested) EventType() Type { return TypeApprovalRequested }
func (ApprovalDecided) EventType() Type   { return TypeApprovalDecided }
func (ApprovalExpired) EventType() Type   { return TypeApprovalExpired }
func (ApprovalRejected) EventType() Type  { return TypeApprovalRejected }
func (LockApplied) EventType() Type       { return TypeLockApplied }
func (LockEnded) EventType() Type         { return TypeLockEnded }

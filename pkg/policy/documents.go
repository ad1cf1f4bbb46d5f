package policy

// APIVersion is the only version of the documents that this release reads.
const APIVersion = "chaperone.dev/v1alpha1"

// Metadata names a document. Names are unique within a kind: lower-case
// letters, digits, "-" and ".", at most 63 characters.
type Metadata struct {
	Name   string            `json:"name" yaml:"name"`
	Labels map[string]string `json:"labels,omitempty" yaml:"labels,omitempty"`
}

// Target is something a planner may be let through to.
type Target struct {
	Metadata Metadata   `json:"metadata" yaml:"metadata"`
	Spec     TargetSpec `json:"spec" yaml:"spec"`
}

// TargetSpec is the body of a Target document.
type TargetSpec struct {
	// Protocol is the wire protocol: ProtocolPostgres, ProtocolSSH or ProtocolKubernetes.
	Protocol string `json:"protocol" yaml:"protocol"`
	// Hosts are "name:port", "address:port" or "CIDR:port"; see [ParseHost].
	Hosts []string `json:"hosts" yaml:"hosts"`
	// TLS is not for ssh. A Kubernetes API server is never reached without.
	TLS TLSSpec `json:"tls,omitzero" yaml:"tls,omitempty"`
	// HostKeys is for ssh alone.
	HostKeys *HostKeysSpec `json:"hostKeys,omitempty" yaml:"hostKeys,omitempty"`
	// Credential says how a job gets its account at the target.
	Credential CredentialSpec `json:"credential" yaml:"credential"`
}

// The protocols of targets.
const (
	ProtocolPostgres   = "postgres"
	ProtocolSSH        = "ssh"
	ProtocolKubernetes = "kubernetes"
)

// The modes of TLSSpec.
const (
	TLSVerifyFull = "verify-full" // the server's certificate is valid and for its name
	TLSDisable    = "disable"     // no TLS at all, for networks that are trusted
)

// TLSSpec says how the daemon verifies the target.
type TLSSpec struct {
	// Mode is TLSVerifyFull (the default) or TLSDisable. Nothing between them
	// verifies anything that is worth the name.
	Mode string `json:"mode,omitempty" yaml:"mode,omitempty"`
	// CAFile holds the PEM certificates to trust; empty means the system's.
	CAFile string `json:"caFile,omitempty" yaml:"caFile,omitempty"`
	// ServerName is the name to verify when Hosts holds only addresses.
	ServerName string `json:"serverName,omitempty" yaml:"serverName,omitempty"`
}

// HostKeysSpec says how the daemon verifies an SSH server.
type HostKeysSpec struct {
	// KnownHostsFile holds the servers' keys, and the authorities that certify
	// such keys, in the form of sshd(8)'s ssh_known_hosts (default
	// /etc/ssh/ssh_known_hosts).
	KnownHostsFile string `json:"knownHostsFile,omitempty" yaml:"knownHostsFile,omitempty"`
}

// CredentialSpec holds exactly one kind of credential, that of the target's
// protocol.
type CredentialSpec struct {
	// PostgresRole is for postgres: a role per job.
	PostgresRole *PostgresRoleSpec `json:"postgresRole,omitempty" yaml:"postgresRole,omitempty"`
	// PostgresCert is for postgres: a client certificate per job.
	PostgresCert *PostgresCertSpec `json:"postgresCert,omitempty" yaml:"postgresCert,omitempty"`
	// PostgresSecret is for postgres: a role that is there, and its password.
	PostgresSecret *PostgresSecretSpec `json:"postgresSecret,omitempty" yaml:"postgresSecret,omitempty"`
	// SSHCert is for ssh.
	SSHCert *SSHCertSpec `json:"sshCert,omitempty" yaml:"sshCert,omitempty"`
	// KubeToken is for kubernetes.
	KubeToken *KubeTokenSpec `json:"kubeToken,omitempty" yaml:"kubeToken,omitempty"`
}

// SSHCertSpec has the node's SSH authority certify a key per job. The server
// trusts that authority (sshd_config: TrustedUserCAKeys).
type SSHCertSpec struct {
	// Principals are the names that the certificate is good for: accounts, or what
	// the server's AuthorizedPrincipalsFile lists.
	Principals []string `json:"principals" yaml:"principals"`
	// TTL is how long the certificate opens connections (default 5m, from 1m to
	// 24h); a connection that is open goes on.
	TTL Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
	// ForceCommand is the critical option force-command: the server runs it
	// whatever is asked for.
	ForceCommand string `json:"forceCommand,omitempty" yaml:"forceCommand,omitempty"`
	// SourceAddress is the critical option source-address: addresses and CIDRs
	// that the certificate may be used from, as the server sees them.
	SourceAddress []string `json:"sourceAddress,omitempty" yaml:"sourceAddress,omitempty"`
}

// KubeTokenSpec requests a service account's token per job.
type KubeTokenSpec struct {
	// AdminFrom is where the kubeconfig of who may create such tokens is.
	AdminFrom SecretSource `json:"adminFrom" yaml:"adminFrom"`
	// ServiceAccount is "namespace/name".
	ServiceAccount string `json:"serviceAccount" yaml:"serviceAccount"`
	// TTL bounds the token (default 10m, from 10m, the API server's least, to
	// 24h). It is renewed while its job lives.
	TTL Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
}

// PostgresRoleSpec mints a role per job.
type PostgresRoleSpec struct {
	// AdminFrom is where the connection string of a role with CREATEROLE is.
	AdminFrom SecretSource `json:"adminFrom" yaml:"adminFrom"`
	// MemberOf are the roles that the minted one is made a member of.
	MemberOf []string `json:"memberOf,omitempty" yaml:"memberOf,omitempty"`
	// Owner is the role that gets what the minted one leaves behind (default: the
	// first of MemberOf that isn't predefined, else chaperone_orphans).
	Owner string `json:"owner,omitempty" yaml:"owner,omitempty"`
	// TTL bounds the role's life (default 15m, from 1m to 24h). It is renewed
	// while its job lives.
	TTL Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
	// ConnectionLimit bounds the role's connections at once (default 20).
	ConnectionLimit int `json:"connectionLimit,omitempty" yaml:"connectionLimit,omitempty"`
}

// PostgresCertSpec has the node sign an X.509 client certificate per job, for a
// role that is there. The server trusts the authority (ssl_ca_file), and its
// pg_hba.conf lets the role in by the method cert.
type PostgresCertSpec struct {
	// User is the role that sessions are of.
	User string `json:"user" yaml:"user"`
	// CommonName is the certificate's (default: User). Another one needs a map of
	// the server's pg_ident.conf.
	CommonName string `json:"commonName,omitempty" yaml:"commonName,omitempty"`
	// CAFile holds the authority's certificate in PEM. Others behind it, up to the
	// one that the server knows, are sent along.
	CAFile string `json:"caFile" yaml:"caFile"`
	// KeyFile holds the authority's private key in PEM.
	KeyFile string `json:"keyFile" yaml:"keyFile"`
	// TTL is how long a certificate opens connections (default 5m, from 1m to
	// 24h). A new one is made while the job lives; a connection that is open goes on.
	TTL Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
	// AdminFrom is where the connection string of a role is that may end the job's
	// sessions at the server. Without one the daemon cuts them off alone.
	AdminFrom *SecretSource `json:"adminFrom,omitempty" yaml:"adminFrom,omitempty"`
}

// PostgresSecretSpec has all jobs share a role that is there. They never see its
// password.
type PostgresSecretSpec struct {
	// User is the role that sessions are of.
	User string `json:"user" yaml:"user"`
	// PasswordFrom is where its password is. It is read for each connection.
	PasswordFrom SecretSource `json:"passwordFrom" yaml:"passwordFrom"`
	// AdminFrom is where the connection string of a role is that may end the job's
	// sessions at the server. Without one the daemon cuts them off alone.
	AdminFrom *SecretSource `json:"adminFrom,omitempty" yaml:"adminFrom,omitempty"`
}

// SecretSource says where a secret is read from. Exactly one field is set.
type SecretSource struct {
	// File is an absolute path.
	File string `json:"file,omitempty" yaml:"file,omitempty"`
}

// IdentityProvider is an OpenID issuer.
type IdentityProvider struct {
	Metadata Metadata             `json:"metadata" yaml:"metadata"`
	Spec     IdentityProviderSpec `json:"spec" yaml:"spec"`
}

// IdentityProviderSpec is the body of an IdentityProvider document.
type IdentityProviderSpec struct {
	Issuer    string     `json:"issuer" yaml:"issuer"`
	Audiences []string   `json:"audiences" yaml:"audiences"`
	Claims    ClaimsSpec `json:"claims,omitzero" yaml:"claims,omitempty"`
	// CAFile holds the PEM certificates that the issuer's TLS is verified
	// with; empty means the system's.
	CAFile string `json:"caFile,omitempty" yaml:"caFile,omitempty"`
	// BearerTokenFile holds a token that the issuer is asked for its keys with,
	// as a Kubernetes API server wants it. It is read anew each time.
	BearerTokenFile string `json:"bearerTokenFile,omitempty" yaml:"bearerTokenFile,omitempty"`
}

// ClaimsSpec maps claims to what policies see.
type ClaimsSpec struct {
	// Subject is the claim that names the principal (default "sub"). Another
	// one, such as "email", must be one that the issuer never gives to somebody else.
	Subject string `json:"subject,omitempty" yaml:"subject,omitempty"`
	// Groups is the claim that lists the groups (default "groups"). Dots lead
	// into objects: "realm_access.roles".
	Groups string `json:"groups,omitempty" yaml:"groups,omitempty"`
}

// Policy decides what principals may do at targets.
type Policy struct {
	Metadata Metadata   `json:"metadata" yaml:"metadata"`
	Spec     PolicySpec `json:"spec" yaml:"spec"`
}

// PolicySpec is the body of a Policy document.
type PolicySpec struct {
	Principals PrincipalSelect `json:"principals" yaml:"principals"`
	// Targets are names of Target documents; "*" is all of them.
	Targets []string `json:"targets" yaml:"targets"`
	Rules   []Rule   `json:"rules" yaml:"rules"`
	// Enforce is EnforceOn (the default) or EnforceShadow.
	Enforce string      `json:"enforce,omitempty" yaml:"enforce,omitempty"`
	Session SessionSpec `json:"session,omitzero" yaml:"session,omitempty"`
}

// The values of PolicySpec.Enforce.
const (
	EnforceOn = "on"
	// EnforceShadow has the policy decide without effect: what it would have
	// done is on record, and the other policies decide alone.
	EnforceShadow = "shadow"
)

// PrincipalSelect matches a principal when any of its lists does; empty, it
// matches nobody.
type PrincipalSelect struct {
	// Groups match when the principal is in one of them, whoever its issuer.
	Groups []string `json:"groups,omitempty" yaml:"groups,omitempty"`
	// Subjects are "subject@issuer-document", or "user@local" for a local
	// user. "*@issuer-document" matches all of one issuer, "*" everybody who
	// proved an identity, local users included.
	Subjects []string `json:"subjects,omitempty" yaml:"subjects,omitempty"`
}

// Rule is one decision. Within a principal and target deny wins over approve,
// approve over allow, and nothing matching means deny.
type Rule struct {
	// Name is unique in its policy.
	Name string `json:"name" yaml:"name"`
	// When is a CEL expression that yields a bool.
	When string `json:"when" yaml:"when"`
	Then Action `json:"then" yaml:"then"`
	// Message is told to the client on a denial by this rule, and to who is
	// asked for an approval.
	Message string `json:"message,omitempty" yaml:"message,omitempty"`
	// Approval says who is asked, and how. It is required where Then is
	// Approve, and has no place elsewhere.
	Approval *ApprovalSpec `json:"approval,omitempty" yaml:"approval,omitempty"`
}

// The values of ApprovalSpec.Mode.
const (
	// ModeHold keeps the command until it is decided; the client waits.
	ModeHold = "hold"
	// ModeRetry answers the client at once with an error that names the request;
	// once it is approved the same command of the same job runs, once.
	ModeRetry = "retry"
)

// The values of ApprovalSpec.Per.
const (
	// PerSession asks once, and the answer holds while the session lives.
	PerSession = "session"
	// PerCommand asks for every statement, command, file operation or request.
	PerCommand = "command"
)

// ApprovalSpec says who is asked before something happens.
type ApprovalSpec struct {
	// From may answer. Whoever the job acts for never may.
	From PrincipalSelect `json:"from" yaml:"from"`
	// Count is how many people must say yes (default 1, at most 10). One who says no
	// decides alone.
	Count int `json:"count,omitempty" yaml:"count,omitempty"`
	// Within is how long an answer is waited for (default 10m, at most 24h); then
	// it is no. In ModeRetry it also bounds how long an approved command may
	// be run.
	Within Duration `json:"within,omitempty" yaml:"within,omitempty"`
	// Mode is ModeHold (the default) or ModeRetry.
	Mode string `json:"mode,omitempty" yaml:"mode,omitempty"`
	// Per is PerSession (the default of a rule that names neither statement nor
	// command, file or request) or PerCommand (the default of the others).
	Per string `json:"per,omitempty" yaml:"per,omitempty"`
	// Standing is the longest time for which an approver may let the same job
	// do the same kind of thing without being asked again; 0 (the default) is
	// not at all.
	Standing Duration `json:"standing,omitempty" yaml:"standing,omitempty"`
	// Escalate are others who may answer as well when nobody has for a while.
	Escalate []EscalationSpec `json:"escalate,omitempty" yaml:"escalate,omitempty"`
}

// EscalationSpec widens who may answer.
type EscalationSpec struct {
	// After is how long since the request; it is less than Within.
	After Duration        `json:"after" yaml:"after"`
	To    PrincipalSelect `json:"to" yaml:"to"`
}

// What is promised of a command's record before the command runs.
const (
	RecordDurable = "durable" // it survives the daemon's death
	RecordStrict  = "strict"  // it survives the machine's death
)

// SessionSpec bounds sessions that a policy applies to. Where several
// policies apply the tightest bound holds.
type SessionSpec struct {
	// MaxDuration ends the session; 0 is no bound.
	MaxDuration Duration `json:"maxDuration,omitempty" yaml:"maxDuration,omitempty"`
	// MaxRows bounds the result rows of a whole session; 0 is no bound.
	MaxRows uint64 `json:"maxRows,omitempty" yaml:"maxRows,omitempty"`
	// MaxBytes bounds the result data of a whole session, as the target sends
	// them; 0 is no bound.
	MaxBytes Size `json:"maxBytes,omitempty" yaml:"maxBytes,omitempty"`
	// MaxCommandDuration bounds each statement: one that runs longer is cancelled
	// at the target; 0 is no bound.
	MaxCommandDuration Duration `json:"maxCommandDuration,omitempty" yaml:"maxCommandDuration,omitempty"`
	// MaxSessions bounds the sessions that one job has at one target at once; 0 is
	// no bound.
	MaxSessions uint64 `json:"maxSessions,omitempty" yaml:"maxSessions,omitempty"`
	// Record is RecordDurable (the default) or RecordStrict.
	Record string `json:"record,omitempty" yaml:"record,omitempty"`
}

// Mask says what may not be seen of targets' results.
type Mask struct {
	Metadata Metadata `json:"metadata" yaml:"metadata"`
	Spec     MaskSpec `json:"spec" yaml:"spec"`
}

// The values of MaskSpec.Untraceable.
const (
	UntraceableDeny = "deny"
	// UntraceableApprove asks people whether it may run all the same.
	UntraceableApprove = "approve"
)

// The values of MaskSpec.Predicates.
const (
	// PredicatesAllow lets masked columns decide over rows in any way.
	PredicatesAllow = "allow"
	// PredicatesEquality lets them be compared for equality with constants and
	// with one another, be grouped by, and be asked whether they are NULL.
	PredicatesEquality = "equality"
	// PredicatesApprove asks people whenever a masked column decides over rows.
	PredicatesApprove = "approve"
	// PredicatesDeny refuses it.
	PredicatesDeny = "deny"
)

// MaskSpec is the body of a Mask document.
type MaskSpec struct {
	Targets []string     `json:"targets" yaml:"targets"`
	Columns []ColumnMask `json:"columns,omitempty" yaml:"columns,omitempty"`
	// Detect lists content detectors that run on every result: payment-card,
	// iban, email, phone, us-ssn, private-key, jwt, cloud-key, url-password.
	Detect []string `json:"detect,omitempty" yaml:"detect,omitempty"`
	// Untraceable is what happens to a statement whose output can't be traced to
	// its source columns: UntraceableDeny (the default) or UntraceableApprove.
	Untraceable string `json:"untraceable,omitempty" yaml:"untraceable,omitempty"`
	// Predicates is what a masked column may do in WHERE, JOIN, ORDER BY, GROUP
	// BY, HAVING and whatever else decides which rows come: PredicatesAllow,
	// PredicatesEquality (the default), PredicatesApprove or PredicatesDeny. The
	// values themselves stay covered.
	Predicates string `json:"predicates,omitempty" yaml:"predicates,omitempty"`
	// Approval says who is asked, and how. It is required where Untraceable is
	// UntraceableApprove or Predicates is PredicatesApprove, and has no place
	// elsewhere.
	Approval *ApprovalSpec `json:"approval,omitempty" yaml:"approval,omitempty"`
	// Exempt principals see the clear values.
	Exempt PrincipalSelect `json:"exempt,omitzero" yaml:"exempt,omitempty"`
}

// ColumnMask covers the columns that Match names.
type ColumnMask struct {
	// Match is "schema.table.column"; each part may hold "*".
	Match string    `json:"match" yaml:"match"`
	With  Transform `json:"with" yaml:"with"`
}

// Transform is how a value is covered. Exactly one field is set; in YAML the
// plain word "redact" or "null" stands for the object with that field true.
type Transform struct {
	Redact    bool `json:"redact,omitempty" yaml:"redact,omitempty"`       // text, JSON and bytea become "[redacted]"; types that can't hold that become NULL
	Null      bool `json:"null,omitempty" yaml:"null,omitempty"`           // NULL
	KeepFirst int  `json:"keepFirst,omitempty" yaml:"keepFirst,omitempty"` // all but the first N characters become "*"
	KeepLast  int  `json:"keepLast,omitempty" yaml:"keepLast,omitempty"`   // all but the last N characters become "*"
	// HMAC names a key of the Node document. Text becomes the first 16 bytes of
	// the HMAC-SHA256 of its UTF-8 bytes, in hex, a whole number becomes another
	// and a uuid another: the same input gives the same output, so that joins
	// and counts still work. Types that can't hold that become what Redact makes
	// of them.
	HMAC string `json:"hmac,omitempty" yaml:"hmac,omitempty"`
	// FormatPreserving names a key of the Node document. Digits become other
	// digits and letters other letters, the rest stays; dates are moved by up to
	// a year. The same input gives the same output. Types that have no such form
	// become what Redact makes of them.
	FormatPreserving string `json:"formatPreserving,omitempty" yaml:"formatPreserving,omitempty"`
	// Truncate cuts dates and timestamps to the begin of their year or month:
	// TruncateYear or TruncateMonth. Other types become what Redact makes of them.
	Truncate string `json:"truncate,omitempty" yaml:"truncate,omitempty"`
	// Fixed stands for every value, if it can be read as the column's type; else
	// NULL does.
	Fixed string `json:"fixed,omitempty" yaml:"fixed,omitempty"`
}

// The values of Transform.Truncate.
const (
	TruncateYear  = "year"
	TruncateMonth = "month"
)

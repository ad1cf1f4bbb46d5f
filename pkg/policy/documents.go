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
	// Protocol is the wire protocol: "postgres".
	Protocol string `json:"protocol" yaml:"protocol"`
	// Hosts are "name:port", "address:port" or "CIDR:port"; see [ParseHost].
	Hosts []string `json:"hosts" yaml:"hosts"`
	TLS   TLSSpec  `json:"tls,omitzero" yaml:"tls,omitempty"`
	// Credential says how a job gets its account at the target.
	Credential CredentialSpec `json:"credential" yaml:"credential"`
}

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

// CredentialSpec holds exactly one kind of credential.
type CredentialSpec struct {
	PostgresRole *PostgresRoleSpec `json:"postgresRole,omitempty" yaml:"postgresRole,omitempty"`
}

// PostgresRoleSpec mints a role per job.
type PostgresRoleSpec struct {
	// AdminFrom is where the connection string of a role with CREATEROLE is.
	AdminFrom SecretSource `json:"adminFrom" yaml:"adminFrom"`
	// MemberOf are the roles that the minted one is made a member of.
	MemberOf []string `json:"memberOf,omitempty" yaml:"memberOf,omitempty"`
	// TTL bounds the role's life (default 15m, from 1m to 24h). It is renewed
	// while its job lives.
	TTL Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
	// ConnectionLimit bounds the role's connections at once (default 20).
	ConnectionLimit int `json:"connectionLimit,omitempty" yaml:"connectionLimit,omitempty"`
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
}

// ClaimsSpec maps claims to what policies see.
type ClaimsSpec struct {
	// Groups is the claim that lists the groups (default "groups").
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
	Targets []string    `json:"targets" yaml:"targets"`
	Rules   []Rule      `json:"rules" yaml:"rules"`
	Session SessionSpec `json:"session,omitzero" yaml:"session,omitempty"`
}

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

// Rule is one decision. Within a principal and target deny wins over allow,
// and nothing matching means deny.
type Rule struct {
	// Name is unique in its policy.
	Name string `json:"name" yaml:"name"`
	// When is a CEL expression that yields a bool.
	When string `json:"when" yaml:"when"`
	Then Action `json:"then" yaml:"then"`
	// Message is told to the client on a denial by this rule.
	Message string `json:"message,omitempty" yaml:"message,omitempty"`
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
	// Record is RecordDurable (the default) or RecordStrict.
	Record string `json:"record,omitempty" yaml:"record,omitempty"`
}

// Mask says what may not be seen of targets' results.
type Mask struct {
	Metadata Metadata `json:"metadata" yaml:"metadata"`
	Spec     MaskSpec `json:"spec" yaml:"spec"`
}

// MaskSpec is the body of a Mask document.
type MaskSpec struct {
	Targets []string     `json:"targets" yaml:"targets"`
	Columns []ColumnMask `json:"columns,omitempty" yaml:"columns,omitempty"`
	// Detect lists content detectors that run on every result: payment-card,
	// email, private-key, jwt, cloud-key.
	Detect []string `json:"detect,omitempty" yaml:"detect,omitempty"`
	// Untraceable is what happens to a statement whose output can't be
	// traced to its source columns: "deny", the only value for now.
	Untraceable string `json:"untraceable,omitempty" yaml:"untraceable,omitempty"`
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
	Redact    bool `json:"redact,omitempty" yaml:"redact,omitempty"`       // text becomes "[redacted]"; types that can't hold that become NULL
	Null      bool `json:"null,omitempty" yaml:"null,omitempty"`           // NULL
	KeepFirst int  `json:"keepFirst,omitempty" yaml:"keepFirst,omitempty"` // all but the first N characters become "*"
	KeepLast  int  `json:"keepLast,omitempty" yaml:"keepLast,omitempty"`   // all but the last N characters become "*"
}

package policy

// Sink holds the settings of the central sink: where people log in and
// answer. A set has at most one. Nodes don't read it.
type Sink struct {
	Metadata Metadata `json:"metadata" yaml:"metadata"`
	Spec     SinkSpec `json:"spec" yaml:"spec"`
}

// SinkSpec is the body of a Sink document.
type SinkSpec struct {
	// Listen is where people's browsers and command lines connect,
	// "address:port".
	Listen string `json:"listen" yaml:"listen"`
	// URL is what they call it, such as "https://chaperone.corp.example". It has no path.
	URL string `json:"url" yaml:"url"`
	// TLS is required unless Listen is on loopback.
	TLS *ServerTLSSpec `json:"tls,omitempty" yaml:"tls,omitempty"`
	// Login says how people prove who they are.
	Login LoginSpec `json:"login" yaml:"login"`
	// Admins may lock and publish documents.
	Admins PrincipalSelect `json:"admins,omitzero" yaml:"admins,omitempty"`
	// Webhooks are told of requests for approval.
	Webhooks []WebhookSpec `json:"webhooks,omitempty" yaml:"webhooks,omitempty"`
	// Slack takes answers from buttons in messages.
	Slack *SlackSpec `json:"slack,omitempty" yaml:"slack,omitempty"`
}

// ServerTLSSpec is a server's certificate chain and key, in PEM files that are
// read again when they change.
type ServerTLSSpec struct {
	CertFile string `json:"certFile" yaml:"certFile"`
	KeyFile  string `json:"keyFile" yaml:"keyFile"`
}

// LoginSpec says how people log in.
type LoginSpec struct {
	// Issuer names an IdentityProvider document.
	Issuer string `json:"issuer" yaml:"issuer"`
	// ClientID is the page's client at the issuer; its redirect URI is URL + "/callback".
	ClientID string `json:"clientID" yaml:"clientID"`
	// ClientSecretFrom is left out for a public client: PKCE is used in any case.
	ClientSecretFrom *SecretSource `json:"clientSecretFrom,omitempty" yaml:"clientSecretFrom,omitempty"`
	// CLIClientID is the public client of "chaperone login" (default ClientID).
	CLIClientID string `json:"cliClientID,omitempty" yaml:"cliClientID,omitempty"`
	// Scopes are asked for besides "openid", such as "groups".
	Scopes []string `json:"scopes,omitempty" yaml:"scopes,omitempty"`
	// SessionLife bounds a login at the page (default 8h). It never outlasts
	// what the token says, where that is shorter.
	SessionLife Duration `json:"sessionLife,omitempty" yaml:"sessionLife,omitempty"`
}

// The values of WebhookSpec.Format.
const (
	WebhookJSON  = "json"  // a CloudEvent, as on NATS
	WebhookSlack = "slack" // a Slack message with blocks and buttons
)

// WebhookSpec is a receiver of messages.
type WebhookSpec struct {
	Name string `json:"name" yaml:"name"`
	// URLFrom is where the address is read from: a Slack address is a secret.
	URLFrom SecretSource `json:"urlFrom" yaml:"urlFrom"`
	// SecretFrom is the key of the signature that each message carries.
	SecretFrom *SecretSource `json:"secretFrom,omitempty" yaml:"secretFrom,omitempty"`
	// Format is WebhookJSON (the default) or WebhookSlack.
	Format string `json:"format,omitempty" yaml:"format,omitempty"`
	// CAFile holds the PEM certificates to trust; empty means the system's.
	CAFile string `json:"caFile,omitempty" yaml:"caFile,omitempty"`
}

// SlackSpec takes answers from buttons (Slack's interactive payloads) at URL +
// "/hooks/slack".
type SlackSpec struct {
	// SigningSecretFrom is the app's signing secret.
	SigningSecretFrom SecretSource `json:"signingSecretFrom" yaml:"signingSecretFrom"`
	// People are who Slack's users are. Nobody else's buttons count.
	People []SlackPerson `json:"people" yaml:"people"`
}

// SlackPerson is one Slack user, and who that is.
type SlackPerson struct {
	ID string `json:"id" yaml:"id"` // Slack's user id, "U012AB3CD"
	// Subject and Issuer are the person's at an IdentityProvider document.
	Subject string   `json:"subject" yaml:"subject"`
	Issuer  string   `json:"issuer" yaml:"issuer"`
	Groups  []string `json:"groups,omitempty" yaml:"groups,omitempty"`
}

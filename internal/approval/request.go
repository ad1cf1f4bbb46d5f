package approval

import (
	"time"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// What a request is about.
const (
	AboutSession = "session" // opening, and going on with, a session
	AboutCommand = "command" // one statement, command, file operation or API request
)

// Request is one question to people. Its node wrote it, and never changes it.
type Request struct {
	// ID is random: "a-" and 16 lower-case base32 characters.
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	About   string `json:"about"`

	Session   string          `json:"session,omitempty"` // empty while one is being opened
	Principal event.Principal `json:"principal"`
	// IssuerURL is the principal's issuer, by the name that does not depend on documents.
	IssuerURL string         `json:"issuerURL,omitempty"`
	Workload  event.Workload `json:"workload"`
	Target    event.Target   `json:"target"`
	Process   event.Process  `json:"process"`

	// Text is the command with its secrets covered, cut at [event.MaxText].
	Text       string       `json:"text,omitempty"`
	Cut        bool         `json:"cut,omitempty"`
	Parameters []string     `json:"parameters,omitempty"` // as in [event.Command]
	Parsed     event.Parsed `json:"parsed"`
	// Digest binds an answer to what is asked: hex SHA-256 over the whole
	// command as sent with its parameters, the job, the target, and the rule.
	Digest string `json:"digest"`

	Policy   string `json:"policy"`
	Rule     string `json:"rule"`
	Why      string `json:"why,omitempty"` // the rule's message
	When     string `json:"when,omitempty"`
	Revision string `json:"revision"` // of the documents that asked

	From     policy.PrincipalSelect  `json:"from"`
	Escalate []policy.EscalationSpec `json:"escalate,omitempty"` // their After counts from Created
	Count    int                     `json:"count"`
	Mode     string                  `json:"mode"` // a policy.Mode… constant
	// Standing is the longest time for which a vote may stand for more of the kind.
	Standing time.Duration `json:"standing,omitempty"`

	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// State is what became of a request.
type State string

// The states. All but StatePending and StateApproved are final.
const (
	StatePending   State = "pending"
	StateApproved  State = "approved" // and not run yet, in retry mode
	StateUsed      State = "used"     // approved, and it ran
	StateDenied    State = "denied"
	StateExpired   State = "expired"
	StateCancelled State = "cancelled" // nobody waits for it any more
)

// Record is a request and what became of it. Its node alone writes it, to
// [RecordKey] of the bucket. Of one that ended without people's decision the
// text is shortened, and parameters and most of what was parsed are left out.
type Record struct {
	Request Request   `json:"request"`
	State   State     `json:"state"`
	Changed time.Time `json:"changed"`
	Message string    `json:"message,omitempty"` // why it was denied or cancelled
	By      []Person  `json:"by,omitempty"`      // whose votes decided it, verified by the node
}

// Person is who answers, as the authority verified it.
type Person struct {
	Subject string   `json:"subject"`
	Issuer  string   `json:"issuer"` // an IdentityProvider document's name, or "local"
	Groups  []string `json:"groups,omitempty"`
	// IssuerURL is the issuer itself: two documents, of the sink and of a node or of one
	// folder, may call one issuer by two names. Empty for local users.
	IssuerURL string `json:"issuerURL,omitempty"`
	Name      string `json:"name,omitempty"` // for people to read; proves nothing
}

// Principal is the person as policies see it.
func (p Person) Principal() policy.Principal {
	return policy.Principal{Subject: p.Subject, Issuer: p.Issuer, Groups: p.Groups}
}

// String is "subject@issuer".
func (p Person) String() string { return p.Subject + "@" + p.Issuer }

// Verdict is a person's answer.
type Verdict string

// The verdicts.
const (
	Yes Verdict = "approve"
	No  Verdict = "deny"
)

// Where a vote was given.
const (
	ViaTerminal = "terminal"
	ViaPage     = "page"
	ViaChat     = "chat"
)

// Vote is one person's answer to one request. The authority signs it, as
// kind [SignedVote], when it has verified the person.
type Vote struct {
	Request string  `json:"request"`
	Cluster string  `json:"cluster"`
	Node    string  `json:"node"`
	Session string  `json:"session,omitempty"`
	Digest  string  `json:"digest"`
	Verdict Verdict `json:"verdict"`
	By      Person  `json:"by"`
	Via     string  `json:"via"`
	Reason  string  `json:"reason,omitempty"`
	// Standing lets the same job do the same kind of thing for that long.
	Standing time.Duration `json:"standing,omitempty"`
	At       time.Time     `json:"at"`
	Until    time.Time     `json:"until"` // the vote counts for nothing after it
}

// SignedVote is the kind of signature that a vote carries.
const SignedVote = "approval.vote"

// maxVotes bounds the votes on one request.
const maxVotes = 32

// Bucket is the JetStream key-value bucket of requests and votes. Keys are
// [RecordKey] and [VotesKey]; values are JSON of [Record] and of
// []authority.Signed. The votes' key is written by the authority with
// compare-and-set, so that of two people who answer at once one is first.
const Bucket = "CHAPERONE_APPROVALS"

// RecordKey is where a node keeps a request.
func RecordKey(cluster, node, id string) string {
	return "request." + event.Token(cluster) + "." + event.Token(node) + "." + event.Token(id)
}

// votesOf are the keys of all votes on a node's requests.
func votesOf(cluster, node string) string {
	return "votes." + event.Token(cluster) + "." + event.Token(node) + ".*"
}

// VotesKey is where the authority keeps the votes on it.
func VotesKey(cluster, node, id string) string {
	return "votes." + event.Token(cluster) + "." + event.Token(node) + "." + event.Token(id)
}

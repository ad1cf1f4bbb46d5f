package credential

import (
	"context"
	"errors"
	"time"

	"chaperone.dev/chaperone/pkg/policy"
)

// Issuer makes and unmakes accounts of one kind. Implementations are safe for
// concurrent use, and none of their errors holds a secret.
type Issuer interface {
	// Kind is the field of policy.CredentialSpec that the issuer answers to,
	// as it is spelt in documents: "postgresRole".
	Kind() string
	// Plan says what Issue would make. It asks nobody and changes nothing.
	Plan(Order) (Plan, error)
	// Issue makes the account that was planned. It is called once per entry,
	// after the entry is in the ledger. When it fails the account may exist
	// nevertheless, unless the error wraps [ErrNotMade].
	Issue(ctx context.Context, entry Entry, order Order) (Secret, error)
	// Renew lets the account live until the time given. An error that wraps
	// [ErrGone] says that it doesn't exist any more.
	Renew(ctx context.Context, entry Entry, until time.Time) error
	// Revoke ends the account with all of its sessions. It returns nil only
	// when the target has confirmed that nothing is left, and may be called
	// again after an error, after a crash, or for an account that never came
	// to be. The entry is all that it needs.
	Revoke(ctx context.Context, entry Entry) error
}

// Refresher is an [Issuer] of accounts that don't prove themselves by the same
// secret for as long as they live.
type Refresher interface {
	Issuer
	// Refresh returns what a connection that is opened at the moment proves itself
	// by: present, which it was given before, while that does. It isn't good beyond
	// deadline, unless that is zero. It is called for each connection, and asks
	// nobody over the network.
	Refresh(order Order, deadline time.Time, present Secret) (Secret, error)
}

// Backend is a session at a target, as its server knows it.
type Backend struct {
	Process uint32
	Port    uint16 // of the client, which we are
}

// ErrNotMade is wrapped by an error of Issue that is certain to have left
// nothing at the target.
var ErrNotMade = errors.New("account was not made")

// ErrGone is wrapped by an error of Renew that found no such account.
var ErrGone = errors.New("account is gone")

// Order is what an account is made for.
type Order struct {
	Grant     string // the grant's id
	Job       string // the job's id
	JobName   string
	Node      string
	Principal policy.Principal
	Target    *policy.Target
}

// Plan is an account as it is going to be.
type Plan struct {
	Account Account
	// TTL is how long the account lives unless it is renewed.
	TTL time.Duration
}

// Account names an account at a target, with what it takes to remove it when
// the target's document is long gone.
type Account struct {
	Name string `json:"name"`
	// AdminFile is where the issuer's own access to the target is, if it has one.
	AdminFile string `json:"adminFile,omitempty"`
	// Heir is the account that gets what this one leaves behind, if any.
	Heir string `json:"heir,omitempty"`
}

// Entry is one line of the ledger.
type Entry struct {
	ID      string    `json:"id"` // the grant's
	Kind    string    `json:"kind"`
	Account Account   `json:"account"`
	Target  string    `json:"target"` // name of its document
	Job     string    `json:"job"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	State   State     `json:"state"`
	Why     string    `json:"why,omitempty"` // of the revocation, once it is due
	// TTL is how long each renewal lasts, and Deadline the end of all renewals,
	// zero for none: another process may go on renewing.
	TTL      time.Duration `json:"ttl,omitempty"`
	Deadline time.Time     `json:"deadline,omitzero"`
	// Backends are the sessions that this process has opened as the account and
	// that didn't end by themselves. They are known for its revocation.
	Backends []Backend `json:"-"`
}

// State is how far an entry has come.
type State string

// The states. An account may exist at the target in each of them.
const (
	StateIssuing  State = "issuing"
	StateIssued   State = "issued"
	StateRevoking State = "revoking"
)

// kindOf is the kind of credential that a target's document asks for.
func kindOf(spec policy.CredentialSpec) string {
	switch {
	case spec.PostgresRole != nil:
		return "postgresRole"
	case spec.PostgresCert != nil:
		return "postgresCert"
	case spec.PostgresSecret != nil:
		return "postgresSecret"
	}
	return ""
}

// Package lock keeps what people have locked: principals, workloads, targets
// and sessions that are cut and refused on every node until the lock ends or is
// released.
//
// Locks are signed by the authority and kept in a JetStream key-value bucket;
// each node keeps them on its own disk too, so that a bucket which is lost, or a key
// that is deleted, releases nothing: only a signed release or the lock's time does.
package lock

import (
	"time"

	"chaperone.dev/chaperone/internal/approval"
)

// Bucket is the JetStream key-value bucket of locks. Keys are lock ids, values JSON of
// authority.Signed over an [Entry].
const Bucket = "CHAPERONE_LOCKS"

// Signed is the kind of signature that an [Entry] carries.
const Signed = "lock"

// Lock says who or what is locked. All that is given must match; at least one
// of Principal, Workload, Target and Session is given.
type Lock struct {
	ID        string          `json:"id"`                  // "l-" and 16 lower-case base32 characters
	Principal string          `json:"principal,omitempty"` // "subject@issuer"
	Workload  string          `json:"workload,omitempty"`  // a job's name, id, or its Workload document
	Target    string          `json:"target,omitempty"`    // name of a Target document
	Session   string          `json:"session,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	By        approval.Person `json:"by"`
	Created   time.Time       `json:"created"`
	Expires   time.Time       `json:"expires"`
}

// Entry is what the bucket holds of one lock.
type Entry struct {
	Lock Lock `json:"lock"`
	// Released is when and by whom it was ended before its time.
	Released      *time.Time       `json:"released,omitempty"`
	ReleasedBy    *approval.Person `json:"releasedBy,omitempty"`
	ReleaseReason string           `json:"releaseReason,omitempty"`
}

// Facts are those of one connection, or session.
type Facts struct {
	Principal string   // "subject@issuer"
	Workload  []string // the job's name, id, and its Workload document
	Target    string
	Session   string // empty while it is being opened
}

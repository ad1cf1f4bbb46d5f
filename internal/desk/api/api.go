// Package api is what the desk and those who ask it say to each other, in
// JSON over HTTP. It holds types alone.
package api

import (
	"fmt"
	"net/http"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/pkg/policy"
)

// LoginInfo tells a command line where to log in.
type LoginInfo struct {
	Issuer   string   `json:"issuer"` // the OpenID issuer's URL
	ClientID string   `json:"clientID"`
	Scopes   []string `json:"scopes"` // "openid" among them
}

// Who is the person who asks, as the desk knows them.
type Who struct {
	approval.Person
	Admin bool `json:"admin"`
	// CSRF goes into the header [HeaderCSRF] of each change that a session's cookie
	// asks for. It is empty for those who have no such session.
	CSRF string `json:"csrf,omitempty"`
}

// HeaderCSRF is the header that a browser's session sends with each change.
const HeaderCSRF = "X-Chaperone-CSRF"

// View is a request for approval as one person sees it.
type View struct {
	Request approval.Request `json:"request"`
	State   approval.State   `json:"state"`
	Message string           `json:"message,omitempty"`
	Changed time.Time        `json:"changed"`
	Votes   []Vote           `json:"votes"`
	// May says whether the person may answer now; if not, MayNot says why.
	May    bool   `json:"may"`
	MayNot string `json:"mayNot,omitempty"`
	Left   int64  `json:"left"` // seconds until it expires; 0 when it is over
}

// Vote is one answer that was given.
type Vote struct {
	By       approval.Person  `json:"by"`
	Verdict  approval.Verdict `json:"verdict"`
	Via      string           `json:"via"`
	Reason   string           `json:"reason,omitempty"`
	Standing policy.Duration  `json:"standing,omitzero"`
	At       time.Time        `json:"at"`
}

// VoteRequest is a person's answer. Digest is that of the request which the
// person was shown.
type VoteRequest struct {
	Verdict  approval.Verdict `json:"verdict"`
	Digest   string           `json:"digest"`
	Reason   string           `json:"reason,omitempty"`
	Standing policy.Duration  `json:"standing,omitzero"`
}

// LockRequest asks for a lock: at least one of the first four is given, and all
// that are must match.
type LockRequest struct {
	Principal string          `json:"principal,omitempty"`
	Workload  string          `json:"workload,omitempty"`
	Target    string          `json:"target,omitempty"`
	Session   string          `json:"session,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	For       policy.Duration `json:"for"`
}

// UnlockRequest says why a lock is released.
type UnlockRequest struct {
	Reason string `json:"reason,omitempty"`
}

// PublishRequest holds documents by the names of their files.
type PublishRequest struct {
	Files map[string]string `json:"files"`
}

// Published is the bundle of documents in force. In answer to a publication it
// has Serial and Revision alone.
type Published struct {
	Serial   uint64            `json:"serial"`
	Revision string            `json:"revision"`
	Files    map[string]string `json:"files,omitempty"`
	By       approval.Person   `json:"by,omitzero"`
	At       time.Time         `json:"at,omitzero"`
}

// The codes of [Error].
const (
	CodeNotFound        = "not_found"
	CodeForbidden       = "forbidden"
	CodeConflict        = "conflict"
	CodeUnauthenticated = "unauthenticated"
	CodeBadRequest      = "bad_request"
	CodeUnavailable     = "unavailable"
)

// Error is the desk's refusal. A request for approval that is over is status
// 410 with [CodeConflict].
type Error struct {
	Status  int    `json:"-"` // HTTP status
	Code    string `json:"code"`
	Message string `json:"error"` // a sentence for the person
}

// Error is the message: it was written for the person.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the sink answered %d %s", e.Status, http.StatusText(e.Status))
	}
	return e.Message
}

// Sizes that both sides keep to.
const (
	MaxBody      = 64 << 10 // bytes of a request but a publication
	MaxPublish   = 2 << 20  // bytes of a publication: JSON takes more room than the files do
	MaxAnswer    = 64 << 20 // bytes of an answer
	MaxEvent     = 4 << 20  // bytes of one event of the watch
	MaxReason    = 500      // bytes
	MaxApprovals = 500      // in one list
)

// PingEvery is how often the watch says that it lives.
const PingEvery = 15 * time.Second

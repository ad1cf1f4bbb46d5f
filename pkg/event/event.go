// Package event is the catalogue of what Chaperone tells the world: the types
// of its events, their NATS subjects and their JSON shape. A security team
// imports this package, or reads the JSON Schema made from it, and needs
// nothing else from the project.
//
// Every event is one CloudEvents 1.0 message in JSON structured mode
// (https://github.com/cloudevents/spec, version 1.0.2). No field of any type
// here ever holds a credential, and text that comes from a client has secrets
// covered before it is put into an event.
package event

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// SpecVersion is the CloudEvents version that every event is written in.
const SpecVersion = "1.0"

// Type names one kind of event, without the reverse-DNS prefix and version
// that the CloudEvents "type" attribute carries around it.
type Type string

// The catalogue. The comment says when an event of the type is published.
const (
	TypeSessionStarted    Type = "session.started"    // a connection was given an upstream
	TypeSessionEnded      Type = "session.ended"      // that connection is over
	TypeSessionRefused    Type = "session.refused"    // a connection was given none
	TypeCommand           Type = "command"            // a command was decided and, if let through, is over
	TypeCredentialIssued  Type = "credential.issued"  // a credential was minted for a job
	TypeCredentialRevoked Type = "credential.revoked" // it no longer works, checked at the target
	TypeMaskApplied       Type = "mask.applied"       // values of one result were covered
	TypeBypass            Type = "enforcement.bypass" // a packet or socket tried to go around the proxy
	TypePolicyLoaded      Type = "policy.loaded"      // a set of documents is in force
	TypePolicyRejected    Type = "policy.rejected"    // a set was refused, the last good one stays
	TypeApprovalRequested Type = "approval.requested" // people are asked
	TypeApprovalDecided   Type = "approval.decided"   // they have decided
	TypeApprovalExpired   Type = "approval.expired"   // the request ended without them
	TypeApprovalRejected  Type = "approval.rejected"  // an answer that did not count
	TypeLockApplied       Type = "lock.applied"       // a node has put a lock in force
	TypeLockEnded         Type = "lock.ended"         // and ended it
	TypeNodeStarted       Type = "node.started"       // a daemon enforces
	TypeNodeDegraded      Type = "node.degraded"      // it can't do all of its work
)

const typePrefix, typeSuffix = "dev.chaperone.", ".v1"

// Data is the payload of an event: one of the types of this package.
type Data interface {
	// EventType says which type of the catalogue the payload belongs to.
	EventType() Type
}

// Event is one CloudEvents envelope. The zero value is not valid; use [New].
type Event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject,omitempty"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	// PolicyRevision is that of the documents which were in force, where they
	// are known: an extension attribute, so its name is in lower case.
	PolicyRevision string          `json:"policyrevision,omitempty"`
	Data           json.RawMessage `json:"data"`
}

// Origin says where an event comes from. Cluster and Node are required;
// Target is empty for what concerns no target; Subject is the session or job
// that the event is about; Revision is that of the documents in force.
type Origin struct {
	Cluster  string
	Node     string
	Target   string
	Subject  string
	Revision string
}

// New wraps data into an envelope with a fresh time-ordered id (UUIDv7).
func New(o Origin, at time.Time, data Data) (Event, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Event{}, fmt.Errorf("event id: %w", err)
	}
	return NewWithID(id.String(), o, at, data)
}

// NewWithID is [New] with an id that the caller derives, so that the same
// fact published twice carries the same id and JetStream drops the copy.
func NewWithID(id string, o Origin, at time.Time, data Data) (Event, error) {
	var body []byte
	if c, ok := data.(*Command); ok {
		body = c.AppendJSON(nil)
	} else {
		var err error
		if body, err = json.Marshal(data); err != nil {
			return Event{}, fmt.Errorf("event %s: %w", data.EventType(), err)
		}
	}
	return Envelope(id, o, at, data.EventType(), body), nil
}

// Envelope is [NewWithID] for a payload that was encoded before. The body is
// kept, not copied.
func Envelope(id string, o Origin, at time.Time, t Type, body json.RawMessage) Event {
	return Event{
		SpecVersion:     SpecVersion,
		ID:              id,
		Source:          "/" + o.Cluster + "/" + o.Node,
		Type:            typePrefix + string(t) + typeSuffix,
		Subject:         o.Subject,
		Time:            at.UTC(),
		DataContentType: "application/json",
		PolicyRevision:  o.Revision,
		Data:            body,
	}
}

// Kind returns the catalogue type of the event, or "" if it is none.
func (e Event) Kind() Type {
	t, ok := strings.CutPrefix(e.Type, typePrefix)
	if !ok {
		return ""
	}
	t, ok = strings.CutSuffix(t, typeSuffix)
	if !ok {
		return ""
	}
	return Type(t)
}

// Subject is the NATS subject of an event:
//
//	chaperone.event.<cluster>.<node>.<target>.<type>
//
// where the type keeps its dot and so takes one or two tokens, and a missing
// target is "_". Characters that NATS gives a meaning to are replaced by "_"
// in the three names.
func Subject(o Origin, t Type) string {
	return "chaperone.event." + Token(o.Cluster) + "." + Token(o.Node) + "." + Token(o.Target) + "." + string(t)
}

// RecordingSubject is the NATS subject of a session's recording, whose blocks
// package recording defines. session is a subject token already, or ">" for
// all sessions of the cluster.
func RecordingSubject(cluster, session string) string {
	return "chaperone.recording." + Token(cluster) + "." + session
}

// Token makes one NATS subject token of a name: "." "*" ">" and white space
// become "_", and so does the empty name.
func Token(name string) string {
	if name == "" {
		return "_"
	}
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '*' || r == '>' || r <= ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, name)
}

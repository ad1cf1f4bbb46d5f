package event

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MaxSize is the largest message, in bytes, that [Decode] reads. What this
// project publishes stays far below it.
const MaxSize = 1 << 20

// Errors of [Decode], [Event.Validate] and [Event.Payload].
var (
	// ErrInvalid: the message is no event of this catalogue's form.
	ErrInvalid = errors.New("invalid event")
	// ErrUnknownType: the form is right, and the type is not in the catalogue
	// of this version. A subscriber passes over such events, so that a newer
	// node doesn't stop it.
	ErrUnknownType = errors.New("unknown event type")
)

// Decode reads one message. Its error wraps [ErrInvalid].
func Decode(msg []byte) (Event, error) {
	if len(msg) > MaxSize {
		return Event{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrInvalid, len(msg), MaxSize)
	}
	var e Event
	if err := json.Unmarshal(msg, &e); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := e.Validate(); err != nil {
		return Event{}, err
	}
	return e, nil
}

// Validate checks the envelope, not the payload. Its error wraps [ErrInvalid]
// and names the attribute.
func (e Event) Validate() error {
	switch {
	case e.SpecVersion != SpecVersion:
		return fmt.Errorf("%w: specversion %q, want %q", ErrInvalid, e.SpecVersion, SpecVersion)
	case e.ID == "":
		return fmt.Errorf("%w: no id", ErrInvalid)
	case e.Source == "":
		return fmt.Errorf("%w: no source", ErrInvalid)
	case e.Kind() == "":
		return fmt.Errorf("%w: type %q is not of the form %s<type>%s", ErrInvalid, e.Type, typePrefix, typeSuffix)
	case e.Time.IsZero():
		return fmt.Errorf("%w: no time", ErrInvalid)
	case e.DataContentType != "application/json":
		return fmt.Errorf("%w: datacontenttype %q, want application/json", ErrInvalid, e.DataContentType)
	case len(e.Data) == 0:
		return fmt.Errorf("%w: no data", ErrInvalid)
	}
	return nil
}

// Payload decodes the data into a pointer to its type of the catalogue. Its
// error wraps [ErrUnknownType] or [ErrInvalid]. Fields that this version
// doesn't know are passed over.
func (e Event) Payload() (Data, error) {
	d := zero(e.Kind())
	if d == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknownType, e.Type)
	}
	if err := json.Unmarshal(e.Data, d); err != nil {
		return nil, fmt.Errorf("%w: data of %s: %w", ErrInvalid, e.Kind(), err)
	}
	return d, nil
}

// zero returns a pointer to an empty payload of type t, or nil.
func zero(t Type) Data {
	switch t {
	case TypeSessionStarted:
		return new(SessionStarted)
	case TypeSessionEnded:
		return new(SessionEnded)
	case TypeSessionRefused:
		return new(SessionRefused)
	case TypeCommand:
		return new(Command)
	case TypeCredentialIssued:
		return new(CredentialIssued)
	case TypeCredentialRevoked:
		return new(CredentialRevoked)
	case TypeMaskApplied:
		return new(MaskApplied)
	case TypeBypass:
		return new(Bypass)
	case TypePolicyLoaded:
		return new(PolicyLoaded)
	case TypePolicyRejected:
		return new(PolicyRejected)
	case TypeApprovalRequested:
		return new(ApprovalRequested)
	case TypeApprovalDecided:
		return new(ApprovalDecided)
	case TypeApprovalExpired:
		return new(ApprovalExpired)
	case TypeApprovalRejected:
		return new(ApprovalRejected)
	case TypeLockApplied:
		return new(LockApplied)
	case TypeLockEnded:
		return new(LockEnded)
	case TypeNodeStarted:
		return new(NodeStarted)
	case TypeNodeDegraded:
		return new(NodeDegraded)
	}
	return nil
}

// Types lists the catalogue.
func Types() []Type {
	return []Type{
		TypeSessionStarted, TypeSessionEnded, TypeSessionRefused, TypeCommand,
		TypeCredentialIssued, TypeCredentialRevoked, TypeMaskApplied, TypeBypass,
		TypePolicyLoaded, TypePolicyRejected, TypeApprovalRequested, TypeApprovalDecided, TypeApprovalExpired,
		TypeApprovalRejected, TypeLockApplied, TypeLockEnded, TypeNodeStarted, TypeNodeDegraded,
	}
}

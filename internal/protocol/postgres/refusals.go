package postgres

import (
	"fmt"

	"chaperone.dev/chaperone/pkg/event"
)

// protocolError is told to a client that breaks the protocol.
func protocolError(message string, cause error) *Refusal {
	return &Refusal{Reason: event.ReasonProtocol, SQLState: "08P01", Message: message, Err: cause}
}

func malformed(typ byte) *Refusal {
	return protocolError(fmt.Sprintf("invalid message format: type %q", typ), nil)
}

// unexpected is told when the server doesn't keep to the protocol, or to what
// this package knows of it. Then nothing it sends can be told apart any more.
func unexpected(what string) *Refusal {
	return &Refusal{
		Reason: event.ReasonInternal, SQLState: "08P01",
		Message: "the server's answer doesn't fit what it was asked",
		Detail:  what,
	}
}

func badName(of string) *Refusal {
	return &Refusal{
		Reason: event.ReasonProtocol, SQLState: stateBadName,
		Message: "invalid name of a " + of,
		Detail:  fmt.Sprintf("Names are of printable ASCII characters, at most %d.", maxName),
	}
}

func tooMany(what string, limit int) *Refusal {
	return &Refusal{
		Reason: event.ReasonLimit, SQLState: "54000",
		Message: fmt.Sprintf("too many %s: the limit is %d a session", what, limit),
		Hint:    "Close those that are no longer used.",
	}
}

func tooLarge(what string, limit int) *Refusal {
	return &Refusal{
		Reason: event.ReasonLimit, SQLState: "54000",
		Message: fmt.Sprintf("%s: more than the limit of %d bytes", what, limit),
	}
}

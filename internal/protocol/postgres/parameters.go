package postgres

import (
	"fmt"
	"strings"

	"chaperone.dev/chaperone/pkg/event"
)

// checkParameter tells the session a parameter that the server reported.
//
// Two of them change how the server reads a query. In a few client encodings a
// byte of a longer character can be an ASCII letter, quote or backslash; and
// without standard_conforming_strings a backslash can hide a quote. Whoever
// takes such a text for UTF-8 and standard SQL reads another one than the
// server does, so nothing could be said of it.
func checkParameter(s Session, name, value string) error {
	switch name {
	case "client_encoding":
		switch strings.ToUpper(value) {
		case "BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC":
			return cannotInspect(name, value, "UTF8")
		}
	case "standard_conforming_strings":
		if value != "on" {
			return cannotInspect(name, value, "on")
		}
	}
	return s.Parameter(name, value)
}

func cannotInspect(name, value, instead string) *Refusal {
	return &Refusal{
		Reason: event.ReasonProtocol, SQLState: "0A000",
		Message: fmt.Sprintf("statements with %s = %s can't be inspected", name, value),
		Hint:    fmt.Sprintf("Set %s to %s.", name, instead),
	}
}

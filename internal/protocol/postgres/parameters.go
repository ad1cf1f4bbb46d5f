package postgres

import (
	"fmt"
	"strings"

	"chaperone.dev/chaperone/pkg/event"
)

// checkParameter tells the session a parameter that the server reported.
//
// In a few client encodings a byte of a longer character can be an ASCII
// letter, quote or backslash. The server reads such text otherwise than
// anybody does who takes it for ASCII or UTF-8, so nothing could be said of a
// query in it.
func checkParameter(s Session, name, value string) error {
	if name == "client_encoding" {
		switch strings.ToUpper(value) {
		case "BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC":
			return &Refusal{
				Reason: event.ReasonProtocol, SQLState: "0A000",
				Message: fmt.Sprintf("statements in client_encoding %s can't be inspected", value),
				Hint:    "Set client_encoding to UTF8.",
			}
		}
	}
	return s.Parameter(name, value)
}

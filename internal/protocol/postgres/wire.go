package postgres

import (
	"encoding/binary"
	"strconv"
	"strings"
)

// Message types, by the names of the protocol's chapter "Message Formats". A
// byte may mean one thing from the client and another from the server.
const (
	// From the client.
	msgBind         = 'B'
	msgClose        = 'C'
	msgCopyFail     = 'f'
	msgDescribe     = 'D'
	msgExecute      = 'E'
	msgFlush        = 'H'
	msgFunctionCall = 'F'
	msgParse        = 'P'
	msgPassword     = 'p'
	msgQuery        = 'Q'
	msgSync         = 'S'
	msgTerminate    = 'X'

	// From either side.
	msgCopyData = 'd'
	msgCopyDone = 'c'

	// From the server.
	msgAuthentication           = 'R'
	msgBackendKeyData           = 'K'
	msgBindComplete             = '2'
	msgCloseComplete            = '3'
	msgCommandComplete          = 'C'
	msgCopyInResponse           = 'G'
	msgCopyOutResponse          = 'H'
	msgDataRow                  = 'D'
	msgEmptyQueryResponse       = 'I'
	msgErrorResponse            = 'E'
	msgFunctionCallResponse     = 'V'
	msgNegotiateProtocolVersion = 'v'
	msgNoData                   = 'n'
	msgNoticeResponse           = 'N'
	msgNotificationResponse     = 'A'
	msgParameterDescription     = 't'
	msgParameterStatus          = 'S'
	msgParseComplete            = '1'
	msgPortalSuspended          = 's'
	msgReadyForQuery            = 'Z'
	msgRowDescription           = 'T'
)

// Codes in the place of the protocol version of a startup packet.
const (
	codeCancelRequest = 80877102
	codeSSLRequest    = 80877103
	codeGSSENCRequest = 80877104
)

const (
	protocolMajor = 3
	protocolMinor = 2 // the newest that is spoken here
)

const (
	severityError = "ERROR"
	severityFatal = "FATAL"
)

// refusedText stands in for a query that may not run. No version of
// PostgreSQL's grammar has a statement that begins so: it fails with a syntax
// error before anything else is looked at, in an aborted transaction too. It
// is what the server's own log shows.
const refusedText = "REFUSED /* by chaperone */\x00"

// The SQLSTATEs by which a server fails the messages that stand in for
// refused ones.
const (
	stateQueryCanceled = "57014"
	stateSyntaxError   = "42601"
	stateNoStatement   = "26000"
	stateNoPortal      = "34000"
	stateBadName       = "42602"
)

// headerSize is that of a message's type byte and length.
const headerSize = 5

// beginMessage appends the header of a message whose length endMessage fills
// in; the second result is where the message starts.
func beginMessage(dst []byte, typ byte) ([]byte, int) {
	return append(dst, typ, 0, 0, 0, 0), len(dst)
}

func endMessage(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst
}

func appendMessage(dst []byte, typ byte, body ...[]byte) []byte {
	dst, start := beginMessage(dst, typ)
	for _, part := range body {
		dst = append(dst, part...)
	}
	return endMessage(dst, start)
}

// appendCString appends s with its terminating zero. A zero within s would end
// it early for the reader, so there it is left out.
func appendCString(dst []byte, s string) []byte {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	return append(append(dst, s...), 0)
}

func appendErrorField(dst []byte, code byte, value string) []byte {
	if value == "" {
		return dst
	}
	return appendCString(append(dst, code), value)
}

// appendRefusal appends r as an ErrorResponse.
func appendRefusal(dst []byte, severity string, r *Refusal) []byte {
	dst, start := beginMessage(dst, msgErrorResponse)
	dst = appendErrorField(dst, 'S', severity)
	dst = appendErrorField(dst, 'V', severity)
	dst = appendErrorField(dst, 'C', r.SQLState)
	dst = appendErrorField(dst, 'M', r.Message)
	dst = appendErrorField(dst, 'D', r.Detail)
	dst = appendErrorField(dst, 'H', r.Hint)
	if r.Position > 0 {
		dst = appendErrorField(dst, 'P', strconv.Itoa(r.Position))
	}
	return endMessage(append(dst, 0), start)
}

// appendNamed appends a Describe or Close.
func appendNamed(dst []byte, typ, kind byte, name string) []byte {
	dst, start := beginMessage(dst, typ)
	return endMessage(appendCString(append(dst, kind), name), start)
}

func appendParameterStatus(dst []byte, name, value string) []byte {
	dst, start := beginMessage(dst, msgParameterStatus)
	return endMessage(appendCString(appendCString(dst, name), value), start)
}

package session

import (
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/protocol/postgres"
)

// covered is a command's text as it may be recorded: constants are taken out
// of statements that carry passwords, and content that detectors know is
// covered everywhere.
func covered(text string, query *pgsql.Query, detect func(string) string) string {
	if query != nil && carriesSecret(query) {
		normalised, err := pg_query.NormalizeUtility(text)
		if err != nil {
			return "[a statement that may carry a password]"
		}
		text = normalised
	}
	return detect(text)
}

// carriesSecret tells whether a statement is of a kind that passwords are
// written in: CREATE and ALTER ROLE, user mappings, servers, subscriptions.
func carriesSecret(query *pgsql.Query) bool {
	for _, statement := range query.Statements {
		switch statement.Tree.GetNode().(type) {
		case *pg_query.Node_CreateRoleStmt, *pg_query.Node_AlterRoleStmt, *pg_query.Node_AlterRoleSetStmt,
			*pg_query.Node_CreateUserMappingStmt, *pg_query.Node_AlterUserMappingStmt,
			*pg_query.Node_CreateForeignServerStmt, *pg_query.Node_AlterForeignServerStmt,
			*pg_query.Node_CreateSubscriptionStmt, *pg_query.Node_AlterSubscriptionStmt:
			return true
		}
	}
	return false
}

// Bounds of the parameters that a command's record holds.
const (
	maxParameters    = 32
	maxParameterText = 256 // bytes
)

// parameters are the values of a Bind message as they may be recorded: text as
// text, everything else in hex, and neither at length.
func parameters(params postgres.Params, detect func(string) string) []string {
	if len(params.Values) == 0 {
		return nil
	}
	values := make([]string, 0, min(len(params.Values), maxParameters))
	for i, value := range params.Values {
		if i == maxParameters {
			values = append(values, "and "+strconv.Itoa(len(params.Values)-i)+" more")
			break
		}
		switch {
		case value == nil:
			values = append(values, "NULL")
		case utf8.Valid(value) && (format(params, i) == 0 || i < len(params.Types) && isText(params.Types[i])):
			text := detect(string(value))
			if len(text) > maxParameterText {
				text = cut(text, maxParameterText) + "…"
			}
			values = append(values, text)
		case len(value) > maxParameterText/2:
			values = append(values, `\x`+hex.EncodeToString(value[:maxParameterText/2])+"…")
		default:
			values = append(values, `\x`+hex.EncodeToString(value))
		}
	}
	return values
}

// format is that of the i-th parameter (Bind: none, one for all, or one each).
func format(params postgres.Params, i int) int16 {
	switch len(params.Formats) {
	case 0:
		return 0
	case 1:
		return params.Formats[0]
	}
	return params.Formats[i]
}

// isText tells whether the binary form of a type is its text (pg_type.dat:
// text, varchar, bpchar, name, json).
func isText(oid uint32) bool {
	switch oid {
	case 25, 1043, 1042, 19, 114:
		return true
	}
	return false
}

// cut shortens a text to at most n bytes, at a character.
func cut(text string, n int) string {
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// Values that the server puts into errors and notices: of rows and keys (DETAIL
// of constraint violations), and in quotes of what could not be converted.
var (
	rowInError    = regexp.MustCompile(`(?s)Failing row contains \(.*\)`)
	keyInError    = regexp.MustCompile(`(?s)\)=\(.*?\)( |$)`)
	quotedInError = regexp.MustCompile(`(?s)"[^"]*"`)
)

// withoutValues takes values out of a field of an error of a statement that
// reads masked columns. What the client's own text says in quotes stays: names,
// in general. Detail, context and internal query go altogether.
func withoutValues(field byte, text, statement string) string {
	if field != 'M' && field != 'H' {
		return "[redacted: the statement reads masked columns]"
	}
	text = rowInError.ReplaceAllLiteralString(text, "Failing row contains ([redacted])")
	text = keyInError.ReplaceAllString(text, ")=([redacted])$1")
	return quotedInError.ReplaceAllStringFunc(text, func(quoted string) string {
		if strings.Contains(statement, quoted[1:len(quoted)-1]) {
			return quoted
		}
		return `"[redacted]"`
	})
}

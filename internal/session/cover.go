package session

import (
	"encoding/hex"
	"regexp"
	"strconv"
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

// plainMessages are those that hold names of the statement and the schema only: they
// can't be made from a value while a statement runs. Relations and types that don't
// exist and syntax errors aren't among them: casts to regclass and regtype say the same
// of a value.
var plainMessages = []*regexp.Regexp{
	regexp.MustCompile(`^duplicate key value violates unique constraint "[^"]*"$`),
	regexp.MustCompile(`^null value in column "[^"]*" of relation "[^"]*" violates not-null constraint$`),
	regexp.MustCompile(`^new row for relation "[^"]*" violates check constraint "[^"]*"$`),
	regexp.MustCompile(`^(insert or update|update or delete) on table "[^"]*" violates foreign key constraint "[^"]*"( on table "[^"]*")?$`),
	regexp.MustCompile(`^new row violates row-level security policy for table "[^"]*"$`),
	regexp.MustCompile(`^no partition of relation "[^"]*" found for row$`),
	regexp.MustCompile(`^permission denied for (table|view|sequence|schema|function|database|column) [a-z_][a-z0-9_]*$`),
	regexp.MustCompile(`^column "[^"]*" (does not exist|must appear in the GROUP BY clause or be used in an aggregate function)$`),
	regexp.MustCompile(`^column reference "[^"]*" is ambiguous$`),
	regexp.MustCompile(`^(missing|invalid reference to) FROM-clause entry for table "[^"]*"$`),
	regexp.MustCompile(`^(cursor|prepared statement) "[^"]*" (already exists|does not exist)$`),
	regexp.MustCompile(`^relation "[^"]*" already exists(, skipping)?$`),
}

// beforeValues is what a message says before anything that may be a value.
var beforeValues = regexp.MustCompile(`^[^"':(0-9\\\x{80}-\x{10ffff}]*`)

// withoutValues takes values out of a field of an error or notice of a statement that
// reads masked columns. Detail, context and internal query go altogether, and of any
// message that isn't known what could be a value, in quotes of any language, with all behind it. It doesn't go by
// what the statement's text says: a text that says all letters would have them told
// from one another.
func withoutValues(field byte, text string) string {
	const redacted = "[redacted: the statement reads masked columns]"
	if field != 'M' {
		return redacted
	}
	for _, known := range plainMessages {
		if known.MatchString(text) {
			return text
		}
	}
	before := beforeValues.FindString(text)
	if before == text {
		return text
	}
	return before + redacted
}

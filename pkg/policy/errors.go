package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNoDocuments is wrapped by the error of [Load] when there is nothing to
// load: a daemon without documents would refuse everything, which is more
// likely a wrong path than a wish.
var ErrNoDocuments = errors.New("no policy documents")

// A load stops collecting errors at maxCollected and reports maxReported.
const (
	maxCollected = 1000
	maxReported  = 100
)

// DocumentError is one thing that is wrong with one document.
type DocumentError struct {
	File    string
	Line    int    // counts from 1; 0 when it concerns the file as a whole
	Field   string // such as "spec.rules[0].when"; empty when it is no single field
	Message string // what is wrong, and what would be right
	Err     error  // the cause when it is another error, else nil
}

// Error implements error: "file:line: field: message".
func (e *DocumentError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Unwrap returns the cause.
func (e *DocumentError) Unwrap() error { return e.Err }

// Errors is everything that a load found wrong, by file and line. It holds at
// least one error and at most 100.
type Errors []*DocumentError

// Error implements error: one line per error.
func (e Errors) Error() string {
	return strings.Join(Messages(e), "\n")
}

// Unwrap returns the errors for [errors.Is] and [errors.As].
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// sorted orders the errors as a reader meets them, and cuts them to a number
// that a reader, and an event, can take.
func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, func(a, b *DocumentError) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	if len(e) > maxReported {
		next := e[maxReported-1]
		e = append(e[:maxReported-1:maxReported-1], &DocumentError{
			File: next.File, Line: next.Line, Message: "and more errors from here on; correct these first",
		})
	}
	return e
}

// Messages returns the errors that an error of [Load] holds, one by one.
func Messages(err error) []string {
	if err == nil {
		return nil
	}
	var all Errors
	if !errors.As(err, &all) {
		return []string{err.Error()}
	}
	lines := make([]string, len(all))
	for i, one := range all {
		lines[i] = one.Error()
	}
	return lines
}

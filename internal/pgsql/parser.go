package pgsql

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
)

// Defaults of [Options].
const (
	DefaultMaxText      = 1 << 20
	DefaultCacheEntries = 4096
	DefaultCacheBytes   = 64 << 20
)

// Options bounds a [Parser]. The zero value means the defaults.
type Options struct {
	// MaxText is the longest text that is read, in bytes.
	MaxText int
	// CacheEntries and CacheBytes bound the cache of what was read. The bytes
	// are an estimate of what the parse trees hold in memory.
	CacheEntries int
	CacheBytes   int
}

// Parser reads query strings and remembers what it read. It is safe for
// concurrent use, and meant to be shared by all sessions of a daemon: what a
// text says doesn't depend on who sent it.
type Parser struct {
	maxText int
	cache   *cache
}

// NewParser makes a parser with an empty cache.
func NewParser(o Options) *Parser {
	if o.MaxText <= 0 {
		o.MaxText = DefaultMaxText
	}
	if o.CacheEntries <= 0 {
		o.CacheEntries = DefaultCacheEntries
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	return &Parser{maxText: o.MaxText, cache: newCache(o.CacheEntries, o.CacheBytes)}
}

// Query is a query string that was read. It is immutable and shared between
// callers, also between texts that differ in constants only.
type Query struct {
	// Statements are those of the string in order. A string of white space
	// and comments has none.
	Statements []*Statement
}

// SyntaxError says that a text is no SQL that this package's grammar knows.
type SyntaxError struct {
	Message  string // PostgreSQL's own words
	Position int    // in characters, from 1; 0: unknown
}

// Error implements error.
func (e *SyntaxError) Error() string { return e.Message }

// RefusedError says that a text was not read, or must not be sent whatever the
// policy: it is too long or too deep, or it changes how the server reads SQL.
type RefusedError struct {
	Message string
	Hint    string // what to do instead; may be empty
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Message }

// Parse reads a query string, which may hold several statements. Errors are a
// [*SyntaxError] or a [*RefusedError], or tell of a fault of the parser; with
// any of them the text must not be sent.
func (p *Parser) Parse(text string) (*Query, error) {
	var key [maxShape]byte
	if n, ok := shape(key[:], text); ok {
		if q := p.cache.getBytes(key[:n]); q != nil {
			return q, nil
		}
		shaped := string(key[:n])
		if q, err := p.parse(shaped); err == nil {
			p.cache.add(shaped, q)
			return q, nil
		}
		// Some constants matter to the grammar, the 0 of float(0) for one. Then only
		// the text itself can be judged, and it is not remembered.
		return p.parse(text)
	}
	if q := p.cache.get(text); q != nil {
		return q, nil
	}
	q, err := p.parse(text)
	if err != nil {
		return nil, err
	}
	p.cache.add(text, q)
	return q, nil
}

// parse reads without the cache.
func (p *Parser) parse(text string) (*Query, error) {
	if err := p.checkText(text); err != nil {
		return nil, err
	}
	tree, err := pg_query.Parse(text)
	if err != nil {
		return nil, parseError(err)
	}
	q := &Query{Statements: make([]*Statement, 0, len(tree.Stmts))}
	for _, raw := range tree.Stmts {
		s, err := newStatement(raw.Stmt)
		if err != nil {
			return nil, err
		}
		q.Statements = append(q.Statements, s)
	}
	if len(q.Statements) > 1 {
		for _, s := range q.Statements {
			s.facts.Multi = true
		}
	}
	return q, nil
}

// checkText refuses what the C parser must not be given.
func (p *Parser) checkText(text string) error {
	switch {
	case len(text) > p.maxText:
		return &RefusedError{
			Message: fmt.Sprintf("the query string is %d bytes long, more than the %d that are read", len(text), p.maxText),
			Hint:    "Send data as parameters or with COPY instead of as part of the text.",
		}
	case strings.IndexByte(text, 0) >= 0:
		return &RefusedError{Message: "the query string holds a NUL byte", Hint: "Send binary data as parameters."}
	case !utf8.ValidString(text):
		return &RefusedError{
			Message: "the query string is not valid UTF-8",
			Hint:    "Set client_encoding to UTF8.",
		}
	}
	return checkDepth(text)
}

func parseError(err error) error {
	var e *parser.Error
	if !errors.As(err, &e) {
		// The tree came back but is nested deeper than protobuf decodes.
		return &RefusedError{Message: "the query string is nested too deeply to be read: " + err.Error(), Hint: flatter}
	}
	if strings.HasPrefix(e.Message, "memory exhausted") {
		return &RefusedError{Message: "the query string is nested too deeply to be read", Hint: flatter}
	}
	return &SyntaxError{Message: e.Message, Position: e.Cursorpos}
}

package masking

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

//go:embed corpus.sql
var corpus string

// attempt is a case of the corpus.
type attempt struct {
	part, name string
	outcomes   []string // of them, one must come
	flags      []string
	rows       []string // that a clean one returns
	params     []string
	rolledBack bool
	steps      []step
}

// step is what is sent in one message.
type step struct {
	sql  string
	data [][]byte // of COPY FROM STDIN
}

func (a *attempt) is(flag string) bool      { return slices.Contains(a.flags, flag) }
func (a *attempt) may(outcome string) bool  { return slices.Contains(a.outcomes, outcome) }
func (a *attempt) extendedOnly() bool       { return len(a.params) > 0 }
func (s step) multi() bool                  { return strings.Contains(s.sql, ";\n") && !strings.Contains(s.sql, "$$") }
func (a *attempt) expected() string         { return strings.Join(a.outcomes, " or ") }
func (a *attempt) String() string           { return a.part + ": " + a.name }
func (a *attempt) sql() (statements string) { return strings.Join(a.texts(), " ") }

func (a *attempt) texts() []string {
	texts := make([]string, len(a.steps))
	for i, s := range a.steps {
		texts[i] = s.sql + ";"
	}
	return texts
}

var (
	heading      = regexp.MustCompile(`^-- ((?:(?:covered|refused|clean|error [0-9A-Z]{5})\|?)+)(?: \[([a-z, ]+)\])?: (.+)$`)
	reading      = regexp.MustCompile(`(?i)^\s*(select|with|table|values|show|explain|fetch|set|begin|commit|rollback|listen|prepare|execute|declare|savepoint)\b`)
	sessionState = regexp.MustCompile(`(?i)^\s*(set|listen|prepare|begin|declare)\b|set_config|_lock|setseed`)
	transactions = regexp.MustCompile(`(?i)^\s*(begin|commit|rollback|listen|vacuum|discard)\b|with hold|;\n`)
	writing      = regexp.MustCompile(`(?i)\b(insert|update|delete|merge|into|create|alter|drop|setval|nextval|lo_|setseed|ssn_of)`)
)

// writes tells whether an attempt may have changed a database.
func (a *attempt) writes() bool {
	return slices.ContainsFunc(a.steps, func(s step) bool { return !reading.MatchString(s.sql) || writing.MatchString(s.sql) })
}

// repeatable tells whether an attempt leaves its session as it was.
func (a *attempt) repeatable() bool {
	return len(a.steps) == 1 && !a.writes() && !sessionState.MatchString(a.steps[0].sql) || a.rolledBack
}

// in tells whether an attempt is made in a mode. Those that need a session of
// their own, the slow ones, are made in text by the simple protocol only.
func (a *attempt) in(m mode) bool {
	switch m {
	case simple:
		return !a.extendedOnly()
	case extended:
		return (a.extendedOnly() || a.repeatable()) && !slices.ContainsFunc(a.steps, step.multi)
	}
	return !slices.ContainsFunc(a.steps, step.multi)
}

// undone is the attempt in a transaction that is rolled back, where it has
// none itself.
func (a *attempt) undone() *attempt {
	if !a.writes() || slices.ContainsFunc(a.steps, func(s step) bool { return transactions.MatchString(s.sql) }) {
		return a
	}
	undone := *a
	undone.rolledBack = true
	undone.steps = slices.Concat([]step{{sql: "BEGIN"}}, a.steps, []step{{sql: "ROLLBACK"}, {sql: "DISCARD ALL"}})
	return &undone
}

// parseCorpus reads attempts as corpus.sql's first lines say.
func parseCorpus(text string) ([]*attempt, error) {
	var list []*attempt
	var current *attempt
	part, pending, quoted, copying := "", "", false, false
	for i, line := range strings.Split(text, "\n") {
		fail := func(what string) error { return fmt.Errorf("corpus.sql:%d: %s: %s", i+1, what, line) }
		if copying {
			last := &current.steps[len(current.steps)-1]
			if copying = line != `\.`; copying {
				last.data = append(last.data, []byte(line+"\n"))
			}
			continue
		}
		if pending == "" {
			if title, ok := strings.CutPrefix(line, "---- "); ok {
				part, current = title, nil
				continue
			}
			if m := heading.FindStringSubmatch(line); m != nil {
				current = &attempt{part: part, name: m[3], outcomes: strings.Split(m[1], "|"), flags: strings.Split(m[2], ", ")}
				list = append(list, current)
				continue
			}
			if current == nil || line == "" {
				continue
			}
			if params, ok := strings.CutPrefix(line, "-- $1 = "); ok {
				current.params = strings.Split(params, " | ")
				continue
			}
			if row, ok := strings.CutPrefix(line, "--> "); ok {
				current.rows = append(current.rows, strings.ReplaceAll(row, `\n`, "\n"))
				continue
			}
			if strings.HasPrefix(line, "-- ") {
				return nil, fail("no heading that is understood")
			}
		}
		if current == nil {
			return nil, fail("SQL of no case")
		}
		quoted = quoted != (strings.Count(line, "$$")%2 == 1)
		switch {
		case quoted:
			pending += line + "\n"
		case strings.HasSuffix(line, `\;`):
			pending += strings.TrimSuffix(line, `\;`) + ";\n"
		case strings.HasSuffix(line, ";"):
			s := step{sql: pending + strings.TrimSuffix(line, ";")}
			current.steps = append(current.steps, s)
			copying = regexp.MustCompile(`(?i)\bFROM STDIN\b`).MatchString(s.sql)
			pending = ""
		default:
			pending += line + "\n"
		}
	}
	if pending != "" || copying {
		return nil, fmt.Errorf("corpus.sql ends within a statement: %s", pending)
	}
	for _, a := range list {
		if len(a.steps) == 0 || a.may("clean") && len(a.outcomes) > 1 {
			return nil, fmt.Errorf("corpus.sql: %s: has no statement, or is clean and something else", a)
		}
	}
	return list, nil
}

// readCorpus is the corpus, each name once in its part.
func readCorpus(t *testing.T) []*attempt {
	t.Helper()
	list, err := parseCorpus(corpus)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, a := range list {
		if seen[a.String()] {
			t.Errorf("two cases are named %q", a)
		}
		seen[a.String()] = true
	}
	return list
}

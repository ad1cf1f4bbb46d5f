package session

import (
	"context"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/protocol/postgres"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// facts are what policies see of the statements of a string in this session, but
// for the text. They hold until the names change, unless lasting is false: EXECUTE
// depends on what has been prepared when it runs.
func (g *gate) facts(ctx context.Context, query *pgsql.Query) (facts []policy.Statement, lasting bool, _ *postgres.Refusal) {
	facts, lasting = make([]policy.Statement, len(query.Statements)), true
	in := pgsql.Surroundings{}
	if len(query.Statements) == 1 { // others could prepare another one
		in.Prepared = g.prepared
	}
	for i, statement := range query.Statements {
		if statement.Bare() {
			facts[i] = statement.Facts("")
			continue
		}
		if in.Names == nil {
			names, err := g.meaning.current(ctx)
			if err != nil {
				return nil, false, &postgres.Refusal{
					Reason: event.ReasonInternal, SQLState: "57P03", Err: err,
					Message: "the statement is refused: the target's catalog can't be read, so it can't be told what it does",
					Hint:    "The node's log says why.",
				}
			}
			in.Names = names
		}
		facts[i] = statement.FactsIn("", in)
		lasting = lasting && statement.Executes() == ""
	}
	return facts, lasting, nil
}

// prepared is what SQL's EXECUTE runs by a name, nil where that isn't certain.
func (g *gate) prepared(name string) *pgsql.Statement {
	made, settled := g.names.last(namedKey{name: name})
	if !settled || made.seq <= g.unsure {
		return nil
	}
	return made.statement
}

// running notes that a string is sent whose code may prepare other statements by
// the names that are known.
func (g *gate) running(query *pgsql.Query) {
	for _, statement := range query.Statements {
		if statement.UnknownCode() {
			g.unsure = g.names.latest()
			return
		}
	}
}

// latest is the number of what was noted last.
func (n *names) latest() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seq
}

// summed are the facts of a string as its record has them.
func summed(statements []policy.Statement) event.Parsed {
	result := event.Parsed{ReadOnly: true}
	for i := range statements {
		facts := &statements[i]
		result.Kinds = append(result.Kinds, facts.Kind)
		result.ReadOnly = result.ReadOnly && facts.ReadOnly
		result.DDL = result.DDL || facts.DDL
		result.Tables = append(result.Tables, facts.Tables...)
		result.Functions = append(result.Functions, facts.Functions...)
	}
	return result
}

// parsed sums up what the text alone tells of a string.
func parsed(query *pgsql.Query) event.Parsed {
	statements := make([]policy.Statement, len(query.Statements))
	for i, statement := range query.Statements {
		statements[i] = statement.Facts("")
	}
	return summed(statements)
}

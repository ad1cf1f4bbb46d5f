package policy

import (
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"
)

// fixed are the variables that stay the same for a [Bound], and the types of
// those that don't.
type fixed struct {
	principal, workload, target object
	session, statement          *factType
}

// input is what the expressions of one decision see. It is made once and
// serves all rules.
type input struct {
	fixed     *fixed
	at        time.Time
	counters  SessionFacts
	statement *Statement // nil while a session is being opened

	sessionObject, statementObject object
}

func (b *Bound) input(now time.Time, sess SessionFacts, st *Statement) *input {
	in := &input{fixed: &b.variables, at: now, counters: sess, statement: st}
	in.sessionObject = object{b.variables.session, &in.counters}
	in.statementObject = object{b.variables.statement, st}
	return in
}

// ResolveName implements [interpreter.Activation].
func (in *input) ResolveName(name string) (any, bool) {
	switch name {
	case "statement":
		return &in.statementObject, in.statement != nil
	case "principal":
		return &in.fixed.principal, true
	case "target":
		return &in.fixed.target, true
	case "workload":
		return &in.fixed.workload, true
	case "session":
		return &in.sessionObject, true
	case "now":
		return types.Timestamp{Time: in.at.UTC()}, true
	}
	return nil, false
}

// Parent implements [interpreter.Activation]: there is none.
func (in *input) Parent() interpreter.Activation { return nil }

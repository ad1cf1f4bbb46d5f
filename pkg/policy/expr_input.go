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
	session                     *factType
	asked                       [abouts]*factType
}

// input is what the expressions of one decision see. It is made once and
// serves all rules.
type input struct {
	fixed    *fixed
	at       time.Time
	counters SessionFacts
	about    about
	asked    Asked

	sessionObject, askedObject object
}

func (b *Bound) input(now time.Time, sess SessionFacts, asked Asked) *input {
	in := &input{fixed: &b.variables, at: now, counters: sess, asked: asked}
	in.sessionObject = object{b.variables.session, &in.counters}
	in.about = asked.about()
	in.askedObject.of = b.variables.asked[in.about]
	switch in.about {
	case aboutStatement:
		in.askedObject.facts = asked.Statement
	case aboutCommand:
		in.askedObject.facts = asked.Command
	case aboutFile:
		in.askedObject.facts = asked.File
	case aboutRequest:
		in.askedObject.facts = asked.Request
	}
	return in
}

// about is the first field that is set.
func (a Asked) about() about {
	switch {
	case a.Statement != nil:
		return aboutStatement
	case a.Command != nil:
		return aboutCommand
	case a.File != nil:
		return aboutFile
	case a.Request != nil:
		return aboutRequest
	}
	return aboutSession
}

// ResolveName implements [interpreter.Activation].
func (in *input) ResolveName(name string) (any, bool) {
	switch name {
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
	if in.about != aboutSession && name == in.about.variable() {
		return &in.askedObject, true
	}
	return nil, false
}

// Parent implements [interpreter.Activation]: there is none.
func (in *input) Parent() interpreter.Activation { return nil }

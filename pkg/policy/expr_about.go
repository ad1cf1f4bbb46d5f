package policy

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
)

// about is what an expression asks about: the one variable of a protocol that
// it names, or none, and then it holds for a session and all that is done in it.
type about uint8

const (
	aboutSession about = iota
	aboutStatement
	aboutCommand
	aboutFile
	aboutRequest
	abouts // how many there are
)

// variable is the name that expressions use.
func (a about) variable() string {
	return [abouts]string{"", "statement", "command", "file", "request"}[a]
}

// aboutOf is what a variable is about, of those that belong to a protocol.
func aboutOf(variable string) (about, bool) {
	for a := aboutStatement; a < abouts; a++ {
		if a.variable() == variable {
			return a, true
		}
	}
	return aboutSession, false
}

// protocol is the one whose targets have the variable.
func (a about) protocol() string {
	for _, p := range protocols() {
		if slices.Contains(p.about, a) {
			return p.name
		}
	}
	return ""
}

// isOf tells whether targets of the protocols have the variable.
func (a about) isOf(protocols []string) bool {
	return a == aboutSession || slices.Contains(protocols, a.protocol())
}

// commonVariables are those that all protocols have.
func commonVariables() []string {
	return []string{"now", "principal", "workload", "target", "session"}
}

// variablesOf lists what rules about targets of the protocols may name.
func variablesOf(names []string) []string {
	variables := commonVariables()
	for _, p := range protocols() {
		if slices.Contains(names, p.name) {
			for _, a := range p.about {
				variables = append(variables, a.variable())
			}
		}
	}
	return variables
}

// checkNames tells what an expression is about. It refuses one about two
// things, since both are never there at once, and one about what no target of
// the protocols has. A macro's own variable must not hide one of these: a
// reader, and this, would take it for the fact.
func (c *compiler) checkNames(root *ast.AST, protocols []string) (about, []problem) {
	var found about
	var out []problem
	add := func(id int64, format string, args ...any) {
		p := problem{max(root.SourceInfo().GetStartLocation(id).Line(), 1), fmt.Sprintf(format, args...)}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	ast.PreOrderVisit(root.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			for _, name := range []string{e.AsComprehension().IterVar(), e.AsComprehension().IterVar2()} {
				if _, hides := c.facts[name]; hides || name == "now" {
					add(e.ID(), "calls a variable of its own %s, which is a fact's name; call it something else", quote(name))
				}
			}
		case ast.IdentKind:
			a, ok := aboutOf(e.AsIdent())
			switch {
			case !ok:
			case !a.isOf(protocols):
				add(e.ID(), "%s is a fact of %s targets, and this policy is for %s", a.variable(), a.protocol(), strings.Join(protocols, " and "))
			case found != aboutSession && found != a:
				add(e.ID(), "names %s and %s, which are never there at once; make two rules of it", found.variable(), a.variable())
			default:
				found = a
			}
		}
	}))
	return found, out
}

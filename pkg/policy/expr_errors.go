package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
)

// problem is something wrong with an expression; lines count from 1.
type problem struct {
	line    int
	message string
}

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	undefined  = regexp.MustCompile(`^undefined field '([^']*)'`)
)

// problems says what the language found wrong, with what would be right where
// that is known.
func (c *compiler) problems(issues *cel.Issues, root *ast.AST, protocols []string) []problem {
	var out []problem
	for _, e := range issues.Errors() {
		p := problem{max(e.Location.Line(), 1), c.explain(e, root, protocols)}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// explain rewrites the language's messages that don't help an administrator.
// One that is worded differently in another version of it stays as it is.
func (c *compiler) explain(e *cel.Error, root *ast.AST, protocols []string) string {
	switch e.Message {
	case "invalid matches argument":
		return "the regular expression is invalid or too large; its syntax is RE2's"
	case "invalid duration argument":
		return "the duration is invalid; write it as duration('90s') or duration('1h30m')"
	case "invalid timestamp argument":
		return "the timestamp is invalid; write it as timestamp('2026-01-31T09:00:00Z')"
	}
	if m := undeclared.FindStringSubmatch(e.Message); m != nil {
		return unknownName(m[1], e.ExprID, root, protocols)
	}
	if m := undefined.FindStringSubmatch(e.Message); m != nil {
		return c.unknownField(m[1], e.ExprID, root)
	}
	// Without the list of everything that a parser would take.
	short, _, _ := strings.Cut(e.Message, " expecting {")
	return short
}

func unknownName(name string, id int64, root *ast.AST, protocols []string) string {
	if e := exprOf(id, root); e != nil && e.Kind() == ast.CallKind {
		return "unknown function " + quote(name)
	}
	return fmt.Sprintf("unknown name %s; the variables are %s", quote(name), strings.Join(variablesOf(protocols), ", "))
}

// unknownField says which fields there are instead.
func (c *compiler) unknownField(field string, id int64, root *ast.AST) string {
	if e := exprOf(id, root); e != nil && e.Kind() == ast.SelectKind && e.AsSelect().Operand().Kind() == ast.IdentKind {
		variable := e.AsSelect().Operand().AsIdent()
		if t := c.facts[variable]; t != nil {
			return fmt.Sprintf("%s has no field %s; it has %s", variable, quote(field), strings.Join(t.names, ", "))
		}
	}
	return "unknown field " + quote(field)
}

// exprOf finds a part of an expression.
func exprOf(id int64, root *ast.AST) ast.Expr {
	var found ast.Expr
	if root != nil {
		ast.PreOrderVisit(root.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
			if e.ID() == id {
				found = e
			}
		}))
	}
	return found
}

package policy

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/parser"
)

// Most conditions only compare facts with constants. Those are compiled into
// plain functions, which are a hundred times as fast as the interpreter and
// say the same: none of these forms can fail.

// test is such a condition, or a part of one.
type test func(*input) bool

// native is what is known of a condition besides its program.
type native struct {
	// guards come first in a condition of the form "a && b && …", up to the
	// first part that only the program can tell. If one is false, so is the
	// condition.
	guards []guard
	whole  bool // there is no other part
}

// guard is one of them. Where it wants a field to hold one of some strings, the
// questions that wait for them are found by a look-up.
type guard struct {
	text   string // the expression
	test   test
	fixed  bool   // of a Bound: it names nothing but its principal, workload and target
	field  string // "variable.field"; empty: it is found by no look-up
	read   func(*input) []string
	value  func(*input) string // instead of read, for fields that hold one string
	wanted []string
}

// nativeOf finds what of an expression can be compiled.
func (c *compiler) nativeOf(root *ast.AST) native {
	n := native{whole: true}
	for _, part := range conjuncts(root.Expr(), nil) {
		text, err := parser.Unparse(part, root.SourceInfo())
		g := guard{text: text, test: c.native(part), fixed: true}
		if err != nil || g.test == nil {
			n.whole = false
			break
		}
		ast.PreOrderVisit(part, ast.NewExprVisitor(func(e ast.Expr) {
			if e.Kind() == ast.IdentKind && !isFixed(e.AsIdent()) {
				g.fixed = false
			}
		}))
		c.index(&g, part)
		n.guards = append(n.guards, g)
	}
	return n
}

func isFixed(variable string) bool {
	return variable == "principal" || variable == "workload" || variable == "target"
}

// conjuncts are the parts of "a && b && …", in the order of their evaluation.
func conjuncts(e ast.Expr, parts []ast.Expr) []ast.Expr {
	if isCall(e, operators.LogicalAnd, 2) {
		return conjuncts(e.AsCall().Args()[1], conjuncts(e.AsCall().Args()[0], parts))
	}
	return append(parts, e)
}

func isCall(e ast.Expr, function string, args int) bool {
	return e.Kind() == ast.CallKind && !e.AsCall().IsMemberFunction() && e.AsCall().FunctionName() == function && len(e.AsCall().Args()) == args
}

// index says by which look-up a guard's question is found, if by any.
func (c *compiler) index(g *guard, e ast.Expr) {
	switch {
	case isCall(e, operators.Equals, 2):
		args := e.AsCall().Args()
		for i, arg := range args {
			if wanted, ok := literalString(args[1-i]); ok {
				c.indexText(g, arg, []string{wanted})
			}
		}
	case isCall(e, operators.In, 2):
		left, right := e.AsCall().Args()[0], e.AsCall().Args()[1]
		if wanted, ok := literalStrings(right); ok {
			c.indexText(g, left, wanted)
		} else if wanted, ok := literalString(left); ok {
			if f, ok := c.field(right); ok && f.texts != nil {
				g.field, g.wanted = f.name, []string{wanted}
				g.read = func(in *input) []string { return f.texts(in.facts(f.slot)) }
			}
		}
	}
}

func (c *compiler) indexText(g *guard, e ast.Expr, wanted []string) {
	if f, ok := c.field(e); ok && f.text != nil {
		g.field, g.wanted = f.name, wanted
		g.value = func(in *input) string { return f.text(in.facts(f.slot)) }
	}
}

// native compiles an expression, or returns nil.
func (c *compiler) native(e ast.Expr) test {
	switch e.Kind() {
	case ast.LiteralKind:
		if b, ok := e.AsLiteral().(types.Bool); ok {
			return func(*input) bool { return bool(b) }
		}
	case ast.SelectKind:
		if f, ok := c.field(e); ok && f.flag != nil {
			return func(in *input) bool { return f.flag(in.facts(f.slot)) }
		}
	case ast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() {
			return c.nativeMethod(call)
		}
		switch args := call.Args(); len(args) {
		case 1:
			if inner := c.native(args[0]); inner != nil && call.FunctionName() == operators.LogicalNot {
				return func(in *input) bool { return !inner(in) }
			}
		case 2:
			return c.nativeBinary(call.FunctionName(), args[0], args[1])
		}
	}
	return nil
}

func (c *compiler) nativeBinary(function string, left, right ast.Expr) test {
	switch function {
	case operators.LogicalAnd, operators.LogicalOr:
		a, b := c.native(left), c.native(right)
		switch {
		case a == nil || b == nil:
			return nil
		case function == operators.LogicalAnd:
			return func(in *input) bool { return a(in) && b(in) }
		}
		return func(in *input) bool { return a(in) || b(in) }
	case operators.In:
		return c.nativeIn(left, right)
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		if t := c.nativeNumbers(function, left, right); t != nil {
			return t
		}
		return c.nativeTexts(function, left, right)
	}
	return nil
}

func (c *compiler) nativeTexts(function string, left, right ast.Expr) test {
	a, b := c.nativeText(left), c.nativeText(right)
	if a == nil || b == nil {
		return nil
	}
	switch function {
	case operators.Equals:
		if constant, ok := literalString(right); ok {
			return func(in *input) bool { return a(in) == constant }
		}
		return func(in *input) bool { return a(in) == b(in) }
	case operators.NotEquals:
		return func(in *input) bool { return a(in) != b(in) }
	}
	return nil
}

func (c *compiler) nativeNumbers(function string, left, right ast.Expr) test {
	f, ok := c.field(left)
	if !ok || f.number == nil || right.Kind() != ast.LiteralKind {
		return nil
	}
	literal, ok := right.AsLiteral().(types.Int)
	if !ok {
		return nil
	}
	constant := int64(literal)
	read := func(in *input) int64 { return f.number(in.facts(f.slot)) }
	return map[string]test{
		operators.Equals:        func(in *input) bool { return read(in) == constant },
		operators.NotEquals:     func(in *input) bool { return read(in) != constant },
		operators.Less:          func(in *input) bool { return read(in) < constant },
		operators.LessEquals:    func(in *input) bool { return read(in) <= constant },
		operators.Greater:       func(in *input) bool { return read(in) > constant },
		operators.GreaterEquals: func(in *input) bool { return read(in) >= constant },
	}[function]
}

func (c *compiler) nativeIn(left, right ast.Expr) test {
	text := c.nativeText(left)
	if text == nil {
		return nil
	}
	if constants, ok := literalStrings(right); ok {
		return func(in *input) bool { return slices.Contains(constants, text(in)) }
	}
	if f, ok := c.field(right); ok && f.texts != nil {
		return func(in *input) bool { return slices.Contains(f.texts(in.facts(f.slot)), text(in)) }
	}
	return nil
}

func (c *compiler) nativeMethod(call ast.CallExpr) test {
	if len(call.Args()) != 1 {
		return nil
	}
	of, arg := c.nativeText(call.Target()), c.nativeText(call.Args()[0])
	if of == nil || arg == nil {
		return nil
	}
	switch call.FunctionName() {
	case overloads.StartsWith:
		return func(in *input) bool { return strings.HasPrefix(of(in), arg(in)) }
	case overloads.EndsWith:
		return func(in *input) bool { return strings.HasSuffix(of(in), arg(in)) }
	}
	return nil
}

// nativeText compiles a string: a constant, or a field that holds one.
func (c *compiler) nativeText(e ast.Expr) func(*input) string {
	if constant, ok := literalString(e); ok {
		return func(*input) string { return constant }
	}
	if f, ok := c.field(e); ok && f.text != nil {
		return func(in *input) string { return f.text(in.facts(f.slot)) }
	}
	return nil
}

func literalStrings(e ast.Expr) ([]string, bool) {
	if e.Kind() != ast.ListKind || len(e.AsList().OptionalIndices()) > 0 {
		return nil, false
	}
	var all []string
	for _, item := range e.AsList().Elements() {
		s, ok := literalString(item)
		if !ok {
			return nil, false
		}
		all = append(all, s)
	}
	return all, true
}

// field is a field of a fact's variable.
type field struct {
	reader
	name string
	slot slot
}

// field reads "variable.field".
func (c *compiler) field(e ast.Expr) (field, bool) {
	if e.Kind() != ast.SelectKind || e.AsSelect().IsTestOnly() || e.AsSelect().Operand().Kind() != ast.IdentKind {
		return field{}, false
	}
	variable, name := e.AsSelect().Operand().AsIdent(), e.AsSelect().FieldName()
	t := c.facts[variable]
	if t == nil {
		return field{}, false
	}
	return field{t.direct[name], variable + "." + name, slotOf(variable)}, true
}

// slot is where the facts of a variable are in an input.
type slot uint8

const (
	slotAsked slot = iota
	slotPrincipal
	slotWorkload
	slotTarget
	slotSession
)

func slotOf(variable string) slot {
	switch variable {
	case "principal":
		return slotPrincipal
	case "workload":
		return slotWorkload
	case "target":
		return slotTarget
	case "session":
		return slotSession
	}
	return slotAsked
}

func (in *input) facts(s slot) any {
	switch s {
	case slotPrincipal:
		return in.fixed.principal.facts
	case slotWorkload:
		return in.fixed.workload.facts
	case slotTarget:
		return in.fixed.target.facts
	case slotSession:
		return in.sessionObject.facts
	}
	return in.askedObject.facts
}

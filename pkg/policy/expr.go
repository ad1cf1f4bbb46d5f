package policy

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"go.yaml.in/yaml/v3"
)

// Bounds of expressions. What one evaluation may cost is about a tenth of a
// second at the very most; the usual rule costs less than 100.
const (
	maxExprRunes   = 4096
	maxExprNodes   = 1000
	maxExprDepth   = 50
	maxExprNesting = 2 // comprehensions inside of each other
	maxExprCost    = 1_000_000
	maxRegexSize   = 1000
)

// compiledPolicy is a policy with its rules ready to evaluate.
type compiledPolicy struct {
	doc   *Policy
	rules []compiledRule
}

// shadow tells whether the policy decides without effect.
func (p *compiledPolicy) shadow() bool { return p.doc.Spec.Enforce == EnforceShadow }

// compiledRule is one rule. It may be evaluated by any number of goroutines at
// once.
type compiledRule struct {
	policy string
	rule   *Rule
	*condition
}

// condition is what a rule asks. Rules of the same words share one.
type condition struct {
	program cel.Program
	about   about
	lasting bool // mentions nothing that changes while a session lives
	native
}

// compiler turns expressions into programs.
type compiler struct {
	env   *cel.Env
	facts map[string]*factType // by variable
	zones zones
	known map[string]*condition // by expression
}

func newCompiler() (*compiler, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	c := &compiler{facts: factTypes(), zones: zones{}, known: map[string]*condition{}}
	provider := factProvider{Provider: registry, byType: map[string]*factType{}}
	opts := append(c.zones.options(),
		cel.CustomTypeAdapter(registry),
		cel.Variable("now", cel.TimestampType),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExprRunes),
		cel.ParserRecursionLimit(maxExprDepth),
		cel.ExpressionNodeLimit(maxExprNodes),
		cel.RegexProgramSizeLimit(maxRegexSize),
		cel.ExtendedValidations(),
		cel.ASTValidators(cel.ValidateComprehensionNestingLimit(maxExprNesting)),
	)
	for variable, t := range c.facts {
		provider.byType[t.cel.TypeName()] = t
		opts = append(opts, cel.Variable(variable, t.cel))
	}
	c.env, err = cel.NewCustomEnv(append(opts, cel.CustomTypeProvider(provider))...)
	return c, err
}

// policy compiles a policy's rules and reports what doesn't compile. The
// protocols are those of its targets.
func (c *compiler) policy(d *document, p *Policy, protocols []string) compiledPolicy {
	out := compiledPolicy{doc: p}
	for i := range p.Spec.Rules {
		r := &p.Spec.Rules[i]
		at := fmt.Sprintf("spec.rules[%d].when", i)
		if strings.TrimSpace(r.When) == "" {
			continue // reported already
		}
		compiled, problems := c.compile(r.When, protocols)
		for _, problem := range problems {
			d.report(d.lineOf(at)+d.lineWithin(at, problem.line), at, problem.message)
		}
		if len(problems) > 0 {
			continue
		}
		if r.Approval != nil {
			per := PerCommand
			if compiled.about == aboutSession {
				per = PerSession
			}
			setDefault(&r.Approval.Per, per)
		}
		out.rules = append(out.rules, compiledRule{p.Metadata.Name, r, compiled})
	}
	return out
}

// lineWithin is how many lines below its key the given line of a value
// stands, where that can be told.
func (d *document) lineWithin(at string, line int) int {
	if n := d.places[at].node; n != nil && n.Style&yaml.LiteralStyle != 0 {
		return line
	}
	return 0
}

// compile makes a condition of an expression, for rules about targets of the
// protocols.
func (c *compiler) compile(text string, protocols []string) (*condition, []problem) {
	if known := c.known[text]; known != nil && known.about.isOf(protocols) {
		return known, nil
	}
	parsed, issues := c.env.Parse(text)
	if issues.Err() != nil {
		return nil, c.problems(issues, nil, protocols)
	}
	root := parsed.NativeRep()
	about, found := c.checkNames(root, protocols)
	if found = append(append(found, c.checkZones(root)...), checkStructs(root)...); len(found) > 0 {
		return nil, found
	}
	checked, issues := c.env.Check(parsed)
	if issues.Err() != nil {
		return nil, c.problems(issues, root, protocols)
	}
	if t := checked.OutputType(); t != cel.BoolType {
		hint := ""
		if t == cel.DynType {
			hint = "; compare it, as in principal.claims.admin == true"
		}
		return nil, []problem{{1, fmt.Sprintf("must yield a bool, but yields %s%s", cel.FormatCELType(t), hint)}}
	}
	opts := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if !isCheap(root.Expr()) {
		opts = append(opts, cel.CostLimit(maxExprCost))
	}
	program, err := c.env.Program(checked, opts...)
	if err != nil {
		return nil, []problem{{1, err.Error()}}
	}
	condition := &condition{program: program, about: about, lasting: lasts(root.Expr()), native: c.nativeOf(checked.NativeRep())}
	c.known[text] = condition
	return condition, nil
}

// checkZones makes the time zones that an expression names known.
func (c *compiler) checkZones(root *ast.AST) []problem {
	names := map[string]bool{}
	for _, a := range zonedAccessors() {
		names[a.name] = true
	}
	var out []problem
	ast.PreOrderVisit(root.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || !e.AsCall().IsMemberFunction() || !names[e.AsCall().FunctionName()] || len(e.AsCall().Args()) != 1 {
			return
		}
		line := root.SourceInfo().GetStartLocation(e.ID()).Line()
		zone := e.AsCall().Args()[0]
		name, literal := literalString(zone)
		if !literal {
			out = append(out, problem{line, e.AsCall().FunctionName() + " takes the time zone as a literal, such as 'Europe/Berlin'"})
		} else if err := c.zones.load(name); err != nil {
			out = append(out, problem{line, err.Error()})
		}
	}))
	return out
}

// isCheap tells whether an expression does only what takes, at worst, one look
// over each fact it names. It then needs no limit, and counting the cost of an
// evaluation would more than double it.
func isCheap(root ast.Expr) bool {
	cheap := true
	ast.PreOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.LiteralKind, ast.IdentKind, ast.SelectKind, ast.ListKind:
		case ast.CallKind:
			switch e.AsCall().FunctionName() {
			case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional,
				operators.Equals, operators.NotEquals, operators.In,
				operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals,
				overloads.StartsWith, overloads.EndsWith:
			default:
				cheap = false
			}
		default:
			cheap = false
		}
	}))
	return cheap
}

// checkStructs refuses made-up facts: what an expression sees was established
// by others.
func checkStructs(root *ast.AST) []problem {
	var out []problem
	ast.PreOrderVisit(root.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.StructKind {
			line := root.SourceInfo().GetStartLocation(e.ID()).Line()
			out = append(out, problem{line, "objects can't be made in an expression"})
		}
	}))
	return out
}

func literalString(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// lasts tells whether an expression names only what stays the same while a
// session lives: not the time, not the session's counters, and of the
// statement only what all texts of the same shape share.
func lasts(root ast.Expr) bool {
	lasting := true
	fields := map[int64]bool{} // ids of "statement" in statement.field
	ast.PreOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			operand := e.AsSelect().Operand()
			if operand.Kind() == ast.IdentKind && e.AsSelect().FieldName() != "text" {
				fields[operand.ID()] = true
			}
		case ast.IdentKind:
			switch e.AsIdent() {
			case "now", "session":
				lasting = false
			case "statement":
				lasting = lasting && fields[e.ID()]
			}
		}
	}))
	return lasting
}

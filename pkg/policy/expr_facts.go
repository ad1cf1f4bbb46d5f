package policy

import (
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// How the facts look to expressions: each kind of fact is an object type with
// typed fields, so that a misspelt field is found when the document is loaded,
// and reading a field needs no reflection.

// factType is one object type of the expression language.
type factType struct {
	cel    *cel.Type
	names  []string // of the fields, in the order of their declaration
	fields map[string]*types.FieldType
	direct map[string]reader
}

// fact is one field: T is the Go type that it is read from.
type fact[T any] struct {
	name   string
	cel    *cel.Type
	get    func(*T) any
	direct reader
}

// reader reads a field of facts without the language's wrapping. One of its
// fields is set, or none where the field is of another type. What it is given
// is a pointer to the facts.
type reader struct {
	text   func(any) string
	flag   func(any) bool
	number func(any) int64
	texts  func(any) []string
}

func text[T any](name string, get func(*T) string) fact[T] {
	return fact[T]{name, cel.StringType, func(v *T) any { return get(v) }, reader{text: func(v any) string { return get(v.(*T)) }}}
}

func flag[T any](name string, get func(*T) bool) fact[T] {
	return fact[T]{name, cel.BoolType, func(v *T) any { return get(v) }, reader{flag: func(v any) bool { return get(v.(*T)) }}}
}

func number[T any](name string, get func(*T) int64) fact[T] {
	return fact[T]{name, cel.IntType, func(v *T) any { return get(v) }, reader{number: func(v any) int64 { return get(v.(*T)) }}}
}

func texts[T any](name string, get func(*T) []string) fact[T] {
	return fact[T]{name, cel.ListType(cel.StringType), func(v *T) any { return get(v) }, reader{texts: func(v any) []string { return get(v.(*T)) }}}
}

func other[T any](name string, of *cel.Type, get func(*T) any) fact[T] {
	return fact[T]{name: name, cel: of, get: get}
}

func newFactType[T any](name string, facts ...fact[T]) *factType {
	t := &factType{cel: cel.ObjectType(name), fields: make(map[string]*types.FieldType, len(facts)), direct: make(map[string]reader, len(facts))}
	for _, f := range facts {
		t.direct[f.name] = f.direct
		t.names = append(t.names, f.name)
		t.fields[f.name] = &types.FieldType{
			Type:  f.cel,
			IsSet: func(any) bool { return true },
			GetFrom: func(from any) (any, error) {
				v, ok := from.(*T)
				if !ok {
					return nil, fmt.Errorf("%s.%s was read from a %T", name, f.name, from)
				}
				return f.get(v), nil
			},
		}
	}
	return t
}

// factTypes are all object types by the name of their variable.
func factTypes() map[string]*factType {
	labels := cel.MapType(cel.StringType, cel.StringType)
	return map[string]*factType{
		"principal": newFactType("Principal",
			text("subject", func(p *Principal) string { return p.Subject }),
			text("issuer", func(p *Principal) string { return p.Issuer }),
			texts("groups", func(p *Principal) []string { return p.Groups }),
			other("claims", cel.MapType(cel.StringType, cel.DynType), func(p *Principal) any { return p.Claims }),
		),
		"workload": newFactType("Workload",
			text("name", func(w *WorkloadFacts) string { return w.Name }),
			text("node", func(w *WorkloadFacts) string { return w.Node }),
			text("executable", func(w *WorkloadFacts) string { return w.Executable }),
			number("uid", func(w *WorkloadFacts) int64 { return w.UID }),
			text("unit", func(w *WorkloadFacts) string { return w.Unit }),
			text("namespace", func(w *WorkloadFacts) string { return w.Namespace }),
			text("serviceAccount", func(w *WorkloadFacts) string { return w.ServiceAccount }),
			text("image", func(w *WorkloadFacts) string { return w.Image }),
			other("labels", labels, func(w *WorkloadFacts) any { return w.Labels }),
		),
		"target": newFactType("Target",
			text("name", func(t *TargetFacts) string { return t.Name }),
			text("protocol", func(t *TargetFacts) string { return t.Protocol }),
			text("host", func(t *TargetFacts) string { return t.Host }),
			number("port", func(t *TargetFacts) int64 { return t.Port }),
			other("labels", labels, func(t *TargetFacts) any { return t.Labels }),
		),
		"session": newFactType("Session",
			other("age", cel.DurationType, func(s *SessionFacts) any { return s.Age }),
			number("rows", func(s *SessionFacts) int64 { return s.Rows }),
			number("commands", func(s *SessionFacts) int64 { return s.Commands }),
		),
		"statement": newFactType("Statement",
			text("text", func(s *Statement) string { return s.Text }),
			text("kind", func(s *Statement) string { return s.Kind }),
			texts("kinds", func(s *Statement) []string { return s.Kinds }),
			flag("readOnly", func(s *Statement) bool { return s.ReadOnly }),
			flag("ddl", func(s *Statement) bool { return s.DDL }),
			texts("tables", func(s *Statement) []string { return s.Tables }),
			texts("relations", func(s *Statement) []string { return s.Relations }),
			texts("columns", func(s *Statement) []string { return s.Columns }),
			texts("functions", func(s *Statement) []string { return s.Functions }),
			flag("hasWhere", func(s *Statement) bool { return s.HasWhere }),
			flag("multi", func(s *Statement) bool { return s.Multi }),
		),
		"command": newFactType("Command",
			text("text", func(c *Command) string { return c.Text }),
			texts("argv", func(c *Command) []string { return c.Argv }),
			text("program", func(c *Command) string { return c.Program }),
			texts("programs", func(c *Command) []string { return c.Programs }),
			flag("interactive", func(c *Command) bool { return c.Interactive }),
			text("subsystem", func(c *Command) string { return c.Subsystem }),
			text("forward", func(c *Command) string { return c.Forward }),
		),
		"file": newFactType("File",
			text("op", func(f *File) string { return f.Op }),
			text("path", func(f *File) string { return f.Path }),
			number("size", func(f *File) int64 { return f.Size }),
		),
		"request": newFactType("Request",
			text("verb", func(r *Request) string { return r.Verb }),
			text("group", func(r *Request) string { return r.Group }),
			text("version", func(r *Request) string { return r.Version }),
			text("resource", func(r *Request) string { return r.Resource }),
			text("subresource", func(r *Request) string { return r.Subresource }),
			text("namespace", func(r *Request) string { return r.Namespace }),
			text("name", func(r *Request) string { return r.Name }),
			text("nonResourcePath", func(r *Request) string { return r.NonResourcePath }),
		),
	}
}

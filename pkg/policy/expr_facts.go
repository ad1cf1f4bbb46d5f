package policy

import (
	"fmt"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// How the facts look to expressions: each kind of fact is an object type with
// typed fields, so that a misspelt field is found when the document is loaded,
// and reading a field needs no reflection.

// factType is one object type of the expression language.
type factType struct {
	cel    *cel.Type
	names  []string // of the fields, in the order of their declaration
	fields map[string]*types.FieldType
}

// fact is one field: T is the Go type that it is read from.
type fact[T any] struct {
	name string
	cel  *cel.Type
	get  func(*T) any
}

func newFactType[T any](name string, facts ...fact[T]) *factType {
	t := &factType{cel: cel.ObjectType(name), fields: make(map[string]*types.FieldType, len(facts))}
	for _, f := range facts {
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
	list, labels := cel.ListType(cel.StringType), cel.MapType(cel.StringType, cel.StringType)
	return map[string]*factType{
		"principal": newFactType("Principal",
			fact[Principal]{"subject", cel.StringType, func(p *Principal) any { return p.Subject }},
			fact[Principal]{"issuer", cel.StringType, func(p *Principal) any { return p.Issuer }},
			fact[Principal]{"groups", list, func(p *Principal) any { return p.Groups }},
			fact[Principal]{"claims", cel.MapType(cel.StringType, cel.DynType), func(p *Principal) any { return p.Claims }},
		),
		"workload": newFactType("Workload",
			fact[WorkloadFacts]{"name", cel.StringType, func(w *WorkloadFacts) any { return w.Name }},
			fact[WorkloadFacts]{"node", cel.StringType, func(w *WorkloadFacts) any { return w.Node }},
			fact[WorkloadFacts]{"executable", cel.StringType, func(w *WorkloadFacts) any { return w.Executable }},
			fact[WorkloadFacts]{"uid", cel.IntType, func(w *WorkloadFacts) any { return w.UID }},
			fact[WorkloadFacts]{"unit", cel.StringType, func(w *WorkloadFacts) any { return w.Unit }},
			fact[WorkloadFacts]{"namespace", cel.StringType, func(w *WorkloadFacts) any { return w.Namespace }},
			fact[WorkloadFacts]{"serviceAccount", cel.StringType, func(w *WorkloadFacts) any { return w.ServiceAccount }},
			fact[WorkloadFacts]{"labels", labels, func(w *WorkloadFacts) any { return w.Labels }},
		),
		"target": newFactType("Target",
			fact[TargetFacts]{"name", cel.StringType, func(t *TargetFacts) any { return t.Name }},
			fact[TargetFacts]{"protocol", cel.StringType, func(t *TargetFacts) any { return t.Protocol }},
			fact[TargetFacts]{"host", cel.StringType, func(t *TargetFacts) any { return t.Host }},
			fact[TargetFacts]{"port", cel.IntType, func(t *TargetFacts) any { return t.Port }},
			fact[TargetFacts]{"labels", labels, func(t *TargetFacts) any { return t.Labels }},
		),
		"session": newFactType("Session",
			fact[SessionFacts]{"age", cel.DurationType, func(s *SessionFacts) any { return s.Age }},
			fact[SessionFacts]{"rows", cel.IntType, func(s *SessionFacts) any { return s.Rows }},
			fact[SessionFacts]{"commands", cel.IntType, func(s *SessionFacts) any { return s.Commands }},
		),
		"statement": newFactType("Statement",
			fact[Statement]{"text", cel.StringType, func(s *Statement) any { return s.Text }},
			fact[Statement]{"kind", cel.StringType, func(s *Statement) any { return s.Kind }},
			fact[Statement]{"readOnly", cel.BoolType, func(s *Statement) any { return s.ReadOnly }},
			fact[Statement]{"ddl", cel.BoolType, func(s *Statement) any { return s.DDL }},
			fact[Statement]{"tables", list, func(s *Statement) any { return s.Tables }},
			fact[Statement]{"columns", list, func(s *Statement) any { return s.Columns }},
			fact[Statement]{"functions", list, func(s *Statement) any { return s.Functions }},
			fact[Statement]{"hasWhere", cel.BoolType, func(s *Statement) any { return s.HasWhere }},
			fact[Statement]{"multi", cel.BoolType, func(s *Statement) any { return s.Multi }},
		),
	}
}

// factProvider adds the fact types to the language's own.
type factProvider struct {
	types.Provider
	byType map[string]*factType // by the object type's name
}

// FindStructType implements [types.Provider].
func (p factProvider) FindStructType(name string) (*types.Type, bool) {
	if t, ok := p.byType[name]; ok {
		return types.NewTypeTypeWithParam(t.cel), true
	}
	return p.Provider.FindStructType(name)
}

// FindStructFieldNames implements [types.Provider].
func (p factProvider) FindStructFieldNames(name string) ([]string, bool) {
	if t, ok := p.byType[name]; ok {
		return t.names, true
	}
	return p.Provider.FindStructFieldNames(name)
}

// FindStructFieldType implements [types.Provider].
func (p factProvider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if t, ok := p.byType[name]; ok {
		f, ok := t.fields[field]
		return f, ok
	}
	return p.Provider.FindStructFieldType(name, field)
}

// NewValue implements [types.Provider]. Facts are established, not made up.
func (p factProvider) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if _, ok := p.byType[name]; ok {
		return types.NewErr("a %s can't be constructed", name)
	}
	return p.Provider.NewValue(name, fields)
}

// object is the value of a variable: a pointer to facts, and their type.
type object struct {
	of    *factType
	facts any
}

// ConvertToNative implements [ref.Val].
func (o *object) ConvertToNative(reflect.Type) (any, error) {
	return nil, fmt.Errorf("a %s has no other form", o.of.cel.TypeName())
}

// ConvertToType implements [ref.Val].
func (o *object) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return o.of.cel
	}
	return types.NewErr("a %s has no other form", o.of.cel.TypeName())
}

// Equal implements [ref.Val].
func (o *object) Equal(other ref.Val) ref.Val {
	v, ok := other.(*object)
	return types.Bool(ok && v.facts == o.facts)
}

// Type implements [ref.Val].
func (o *object) Type() ref.Type { return o.of.cel }

// Value implements [ref.Val]. The field getters read from it.
func (o *object) Value() any { return o.facts }

// Get implements [traits.Indexer], for expressions that gave up the type by
// dyn().
func (o *object) Get(index ref.Val) ref.Val {
	name, ok := index.(types.String)
	if !ok {
		return types.NewErr("no such field")
	}
	field, ok := o.of.fields[string(name)]
	if !ok {
		return types.NewErr("no such field: %s", string(name))
	}
	v, err := field.GetFrom(o.facts)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.DefaultTypeAdapter.NativeToValue(v)
}

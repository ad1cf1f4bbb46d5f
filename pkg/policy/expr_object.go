package policy

import (
	"fmt"
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

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

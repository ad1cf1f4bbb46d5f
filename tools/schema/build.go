package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"chaperone.dev/chaperone/pkg/policy"
)

const (
	importPath = "chaperone.dev/chaperone"
	sources    = "pkg/policy"
)

// kind is one kind of document.
type kind struct {
	name string
	doc  reflect.Type
}

func kinds() []kind {
	return []kind{
		{"Target", reflect.TypeFor[policy.Target]()},
		{"Workload", reflect.TypeFor[policy.Workload]()},
		{"IdentityProvider", reflect.TypeFor[policy.IdentityProvider]()},
		{"Policy", reflect.TypeFor[policy.Policy]()},
		{"Mask", reflect.TypeFor[policy.Mask]()},
		{"Node", reflect.TypeFor[policy.Node]()},
		{"Sink", reflect.TypeFor[policy.Sink]()},
	}
}

// build makes the schema of one document of any kind. One schema serves files
// of several documents: the kind says which part of it holds.
func build() (*jsonschema.Schema, error) {
	r := &jsonschema.Reflector{Anonymous: true, FieldNameTag: "yaml", Mapper: scalar}
	if err := r.AddGoComments(importPath, sources, jsonschema.WithFullComment()); err != nil {
		return nil, fmt.Errorf("the comments of %s: %w", sources, err)
	}
	words, err := constants(sources)
	if err != nil {
		return nil, err
	}
	comments := r.CommentMap
	r.CommentMap = nil
	r.LookupComment = func(t reflect.Type, field string) string { return describe(comments, words, t, field) }

	root := &jsonschema.Schema{
		Version:     jsonschema.Version,
		ID:          "https://chaperone.dev/schema/chaperone.dev_v1alpha1.schema.json",
		Title:       "Chaperone documents, " + policy.APIVersion,
		Description: "One document of a folder that the daemon or the sink reads. What a folder's documents say of each other, and CEL expressions, are checked by \"chaperone policy check\".",
		Definitions: scalars(),
		Type:        "object",
		Properties:  jsonschema.NewProperties(),
		Required:    []string{"apiVersion", "kind", "spec"},
	}
	root.AdditionalProperties = jsonschema.FalseSchema
	root.Properties.Set("apiVersion", &jsonschema.Schema{Const: policy.APIVersion, Description: "The only version that this release reads."})
	var names []any
	for _, k := range kinds() {
		names = append(names, k.name)
		one := r.ReflectFromType(k.doc)
		for name, def := range one.Definitions {
			root.Definitions[name] = def
		}
		root.AllOf = append(root.AllOf, whenKind(k, root.Definitions))
	}
	root.Properties.Set("kind", &jsonschema.Schema{Enum: names, Description: "What the document is about."})
	root.Properties.Set("metadata", ref("Metadata"))
	root.Properties.Set("spec", &jsonschema.Schema{Type: "object"})
	root.Definitions["Metadata"].Required = nil
	transform(root.Definitions)
	if err := constrain(root.Definitions); err != nil {
		return nil, err
	}
	return root, unused(root)
}

// whenKind is what holds for documents of one kind. The document's own
// definition is not used: the frame is the same for all of them.
func whenKind(k kind, defs jsonschema.Definitions) *jsonschema.Schema {
	doc := defs[k.doc.Name()]
	delete(defs, k.doc.Name())
	spec := ref(k.doc.Name() + "Spec")
	spec.Description = doc.Description
	then := &jsonschema.Schema{Properties: jsonschema.NewProperties()}
	then.Properties.Set("spec", spec)
	if k.name != "Node" && k.name != "Sink" { // there is one at most
		then.Required = []string{"metadata"}
		then.Properties.Set("metadata", &jsonschema.Schema{Required: []string{"name"}})
	}
	return &jsonschema.Schema{If: is("kind", k.name), Then: then}
}

func ref(name string) *jsonschema.Schema { return &jsonschema.Schema{Ref: "#/$defs/" + name} }

// is holds where the field is there and has the value.
func is(field string, value any) *jsonschema.Schema {
	s := &jsonschema.Schema{Properties: jsonschema.NewProperties(), Required: []string{field}}
	s.Properties.Set(field, &jsonschema.Schema{Const: value})
	return s
}

// scalar maps the types that are written as one word.
func scalar(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[policy.Duration]():
		return ref("Duration")
	case reflect.TypeFor[policy.Size]():
		return ref("Size")
	}
	return nil
}

func scalars() jsonschema.Definitions {
	return jsonschema.Definitions{
		"Duration": {
			Description: `A duration such as "90s", "15m" or "1h30m".`,
			AnyOf: []*jsonschema.Schema{
				{Type: "string", Pattern: `^\+?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`},
				{Const: 0},
			},
		},
		"Size": {
			Description: `A size such as "512MiB" or "1GiB"; a number without unit is bytes.`,
			AnyOf: []*jsonschema.Schema{
				{Type: "string", Pattern: `^[0-9]+(B|KiB|MiB|GiB|TiB)?$`},
				{Type: "integer", Minimum: "0"},
			},
		},
	}
}

// transform lets a Transform be an object of exactly one field, or one of the
// words that its own reader takes.
func transform(defs jsonschema.Definitions) {
	object := defs["Transform"]
	var words []any
	for p := object.Properties.Oldest(); p != nil; p = p.Next() {
		switch p.Value.Type {
		case "boolean":
			p.Value.Type, p.Value.Const = "", true
		case "integer":
			p.Value.Minimum = "1"
		case "string":
			p.Value.MinLength = one()
		}
		var t policy.Transform
		if word, err := json.Marshal(p.Key); err == nil && json.Unmarshal(word, &t) == nil {
			words = append(words, p.Key)
		}
		object.OneOf = append(object.OneOf, &jsonschema.Schema{Required: []string{p.Key}})
	}
	defs["TransformObject"] = object
	defs["Transform"] = &jsonschema.Schema{
		Description: object.Description,
		AnyOf:       []*jsonschema.Schema{{Enum: words}, ref("TransformObject")},
	}
	object.Description = "One field, and what it does."
}

func one() *uint64 {
	n := uint64(1)
	return &n
}

// unused is an error for a definition that nothing refers to.
func unused(root *jsonschema.Schema) error {
	text, err := json.Marshal(root)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(root.Definitions)) {
		if !strings.Contains(string(text), fmt.Sprintf(`"#/$defs/%s"`, name)) {
			return fmt.Errorf("nothing refers to the definition %s", name)
		}
	}
	return nil
}

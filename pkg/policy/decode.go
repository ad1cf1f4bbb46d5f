package policy

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is one YAML document while it is read and checked. It remembers
// where each field stands, so that whatever is found wrong later can be told
// with its line.
type document struct {
	file   string
	line   int
	places map[string]place // by field path
	errs   *Errors
	failed []string // paths that an error was reported for
}

type place struct {
	line int
	node *yaml.Node
}

// errorf reports what is wrong with a field. A field that was already found
// wrong, or is part of one or holds one, is passed over: what follows from
// the first error doesn't help.
func (d *document) errorf(path, format string, args ...any) {
	if len(*d.errs) == maxCollected {
		return
	}
	for _, f := range d.failed {
		if f == path || within(f, path) || within(path, f) {
			return
		}
	}
	d.failed = append(d.failed, path)
	d.report(d.lineOf(path), path, fmt.Sprintf(format, args...))
}

func (d *document) report(line int, path, message string) {
	if len(*d.errs) == maxCollected {
		return
	}
	*d.errs = append(*d.errs, &DocumentError{File: d.file, Line: line, Field: path, Message: message})
}

// within tells whether the field path lies inside of the field outer.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && outer != "" && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// has tells whether the document has the field.
func (d *document) has(path string) bool {
	_, ok := d.places[path]
	return ok
}

// lineOf returns the line of a field, or of the closest one around it.
func (d *document) lineOf(path string) int {
	for path != "" {
		if p, ok := d.places[path]; ok {
			return p.line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return d.line
}

// decode writes what the node holds into v, strictly: no unknown or repeated
// field, no value of another type than is asked for, no alias.
func (d *document) decode(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		// An alias can make a small file large beyond any bound.
		d.errorf(path, "YAML aliases are not supported; write the value out")
		return
	}
	if n.ShortTag() == "!!null" {
		d.errorf(path, "is empty; give it a value or remove it")
		return
	}
	if v.Kind() == reflect.Interface {
		var free any
		if err := n.Decode(&free); err != nil || free == nil {
			d.errorf(path, "can't be read")
			return
		}
		v.Set(reflect.ValueOf(free))
		return
	}
	if n.Kind == yaml.ScalarNode {
		d.decodeScalar(n, v, path)
		return
	}
	switch {
	case n.Kind == yaml.MappingNode && n.ShortTag() == "!!map" && v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), path)
	case n.Kind == yaml.MappingNode && n.ShortTag() == "!!map" && v.Kind() == reflect.Struct:
		d.decodeStruct(n, v, path)
	case n.Kind == yaml.MappingNode && n.ShortTag() == "!!map" && v.Kind() == reflect.Map:
		d.decodeMap(n, v, path)
	case n.Kind == yaml.SequenceNode && n.ShortTag() == "!!seq" && v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.places[at] = place{item.Line, item}
			d.decode(item, v.Index(i), at)
		}
	default:
		d.wrongType(n, v.Type(), path)
	}
}

func (d *document) decodeStruct(n *yaml.Node, v reflect.Value, path string) {
	fields := fieldsOf(v.Type())
	d.eachKey(n, path, func(key, value *yaml.Node, at string) {
		index, known := fields[key.Value]
		if known {
			d.decode(value, v.FieldByIndex(index), at)
			return
		}
		if hint, ok := unsupported(v.Type(), key.Value); ok {
			d.errorf(at, "%s", hint)
			return
		}
		names := slices.Sorted(maps.Keys(fields))
		d.errorf(at, "unknown field; known here are %s", strings.Join(names, ", "))
	})
}

func (d *document) decodeMap(n *yaml.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Content)/2))
	d.eachKey(n, path, func(key, value *yaml.Node, at string) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, item, at)
		v.SetMapIndex(reflect.ValueOf(key.Value), item)
	})
}

// eachKey calls f for every entry of a mapping whose key is a plain string
// that didn't occur before.
func (d *document) eachKey(n *yaml.Node, path string, f func(key, value *yaml.Node, at string)) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" || key.Value == "" {
			d.report(key.Line, path, "every key must be a string, without anchors or merges")
			continue
		}
		at := key.Value
		if path != "" {
			at = path + "." + key.Value
		}
		if first, again := d.places[at]; again {
			d.report(key.Line, at, fmt.Sprintf("appears twice; it is on line %d already", first.line))
			continue
		}
		d.places[at] = place{key.Line, value}
		f(key, value, at)
	}
}

func (d *document) decodeScalar(n *yaml.Node, v reflect.Value, path string) {
	tag := n.ShortTag()
	switch target := v.Addr().Interface().(type) {
	case *Transform:
		if tag != "!!str" {
			d.wrongType(n, v.Type(), path)
		} else if err := target.setWord(n.Value); err != nil {
			d.errorf(path, "%s", err)
		}
		return
	case encoding.TextUnmarshaler:
		if tag != "!!str" && tag != "!!int" {
			d.wrongType(n, v.Type(), path)
		} else if err := target.UnmarshalText([]byte(n.Value)); err != nil {
			d.errorf(path, "%s", err)
		}
		return
	}
	want := map[reflect.Kind]string{
		reflect.String: "!!str", reflect.Bool: "!!bool",
		reflect.Int: "!!int", reflect.Int64: "!!int", reflect.Uint64: "!!int",
	}[v.Kind()]
	if tag != want {
		d.wrongType(n, v.Type(), path)
		return
	}
	if want == "!!str" {
		if strings.ContainsFunc(n.Value, isControl) {
			d.errorf(path, "must not hold control characters")
		}
		v.SetString(n.Value)
		return
	}
	if err := n.Decode(v.Addr().Interface()); err != nil {
		d.errorf(path, "is out of range: must be %s", describe(v.Type()))
	}
}

// isControl takes the characters that would let a document write on a
// terminal what it isn't.
func isControl(r rune) bool {
	return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0
}

// wrongType never repeats the value: what stands in the wrong place may be a
// secret.
func (d *document) wrongType(n *yaml.Node, want reflect.Type, path string) {
	got := map[string]string{
		"!!str": "a string", "!!int": "a number", "!!float": "a number", "!!bool": "true or false",
		"!!timestamp": "a date", "!!map": "an object", "!!seq": "a list",
	}[n.ShortTag()]
	if got == "" {
		got = "a value with a tag of its own"
	}
	hint := ""
	if want.Kind() == reflect.String && n.Kind == yaml.ScalarNode {
		hint = "; put it in quotes"
	}
	d.errorf(path, "must be %s, but is %s%s", describe(want), got, hint)
}

func describe(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return `a duration such as "15m"`
	case reflect.TypeFor[Size]():
		return `a size such as "1GiB"`
	case reflect.TypeFor[Transform]():
		return "a transform such as redact or {keepLast: 4}"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint64:
		return "a whole number, not negative"
	case reflect.Slice:
		return "a list"
	default:
		return "an object"
	}
}

// fieldsOf maps the names of a struct's fields in YAML to where they are.
// Fields without such a name are not read from documents.
func fieldsOf(t reflect.Type) map[string][]int {
	fields := make(map[string][]int, t.NumField())
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" {
			fields[name] = f.Index
		}
	}
	return fields
}

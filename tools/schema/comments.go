package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// constants maps the exported string constants of a package to their values.
func constants(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	fset := token.NewFileSet()
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, filepath.Join(dir, e.Name()), nil, 0)
		if err != nil {
			return nil, fmt.Errorf("read the constants: %w", err)
		}
		for _, d := range f.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			for _, spec := range group.Specs {
				addConstants(found, spec.(*ast.ValueSpec))
			}
		}
	}
	return found, nil
}

func addConstants(found map[string]string, spec *ast.ValueSpec) {
	for i, name := range spec.Names {
		if i >= len(spec.Values) || !name.IsExported() {
			continue
		}
		lit, ok := spec.Values[i].(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			continue
		}
		if value, err := strconv.Unquote(lit.Value); err == nil {
			found[name.Name] = value
		}
	}
}

var (
	identifier = regexp.MustCompile(`\b[A-Z][A-Za-z]*(?:[.-][A-Z0-9][A-Za-z0-9]*)*\b`)
	seeAlso    = regexp.MustCompile(`; see \[[A-Za-z.]+\]`)
	docLink    = regexp.MustCompile(`\[((?:[a-z]+\.)?[A-Z][A-Za-z.]*)\]`)
)

// describe turns a Go comment into a description for people who write
// documents: constants become their values, the type's fields their names in
// YAML, and what wraps in the source wraps no more.
func describe(comments, words map[string]string, t reflect.Type, field string) string {
	key := t.PkgPath() + "." + t.Name()
	if field != "" {
		key += "." + field
	}
	text := strings.Join(strings.Fields(comments[key]), " ")
	text = docLink.ReplaceAllString(seeAlso.ReplaceAllString(text, ""), "$1")
	if field == "" {
		if rest, ok := strings.CutPrefix(text, t.Name()+" "); ok && (strings.HasSuffix(t.Name(), "Spec") || strings.HasSuffix(t.Name(), "Select")) {
			text = "This " + rest
		}
	}
	names := fieldNames(t)
	return identifier.ReplaceAllStringFunc(text, func(id string) string {
		if name, ok := names[id]; ok {
			return name
		}
		// A field of another type: "Rule.Then".
		if owner, rest, ok := strings.Cut(id, "."); ok && strings.HasSuffix(owner, "Spec") {
			return strings.ToLower(rest[:1]) + rest[1:]
		}
		if value, ok := words[id]; ok {
			return strconv.Quote(value)
		}
		if name, ok := otherFields()[id]; ok {
			return name
		}
		return id
	})
}

// fieldNames maps a struct's fields to their names in YAML.
func fieldNames(t reflect.Type) map[string]string {
	names := map[string]string{}
	if t.Kind() != reflect.Struct {
		return names
	}
	for _, f := range reflect.VisibleFields(t) {
		names[f.Name], _, _ = strings.Cut(f.Tag.Get("yaml"), ",")
	}
	maps.DeleteFunc(names, func(_, name string) bool { return name == "" })
	return names
}

// otherFields are those that comments of other types name.
func otherFields() map[string]string {
	return map[string]string{"Within": "within", "Hosts": "hosts", "URL": "url"}
}

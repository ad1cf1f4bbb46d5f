// Command schema writes the JSON Schema of the documents from the Go types of
// package policy: names, types and what must be there from the types,
// descriptions from their comments, and what neither says (words, patterns,
// what belongs together) from the table in constraints.go.
//
// It runs at the top of the source tree: "go run ./tools/schema".
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
)

func main() {
	out := flag.String("o", "docs/schema/chaperone.dev_v1alpha1.schema.json", "the file to write")
	root := flag.String("root", ".", "the top of the source tree")
	flag.Parse()
	if err := run(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "schema:", err)
		os.Exit(1)
	}
}

func run(root, out string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	text, err := generate()
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o644)
}

// generate makes the schema's text. It reads the sources of package policy
// below the working directory.
func generate() ([]byte, error) {
	s, err := build()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return nil, err
	}
	// The library's own MarshalJSON escapes what needs none.
	text := b.Bytes()
	for escaped, plain := range map[string]string{`\u003c`: "<", `\u003e`: ">", `\u0026`: "&"} {
		text = bytes.ReplaceAll(text, []byte(escaped), []byte(plain))
	}
	return text, nil
}

// Package schema holds the JSON Schema of the documents, for editors and for
// whoever checks documents without Chaperone. It is generated from the types of
// package policy, which reads documents without it.
package schema

import _ "embed"

//go:generate go run ../../tools/schema -root ../..

// JSON is the schema, in draft 2020-12.
//
//go:embed chaperone.dev_v1alpha1.schema.json
var JSON []byte

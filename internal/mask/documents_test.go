package mask

import (
	"slices"
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
)

// Package policy can't import this one, so it has a list of its own.
func TestDocumentsNameTheDetectorsThatThereAre(t *testing.T) {
	load := func(names string) error {
		_, err := policy.Parse("documents.yaml", []byte(`
apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: db}
spec:
  protocol: postgres
  hosts: ["db.example:5432"]
  credential: {postgresRole: {adminFrom: {file: /x}}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Mask
metadata: {name: m}
spec: {targets: [db], detect: [`+names+`]}
`))
		return err
	}
	all := strings.Join(Detectors(), ", ")
	if err := load(all); err != nil {
		t.Error(err)
	}
	err := load("no-such")
	if err == nil {
		t.Fatal("a detector that there is not was taken")
	}
	_, list, _ := strings.Cut(err.Error(), "known are ")
	if known := strings.Split(list, ", "); !slices.Equal(slices.Sorted(slices.Values(known)), slices.Sorted(slices.Values(Detectors()))) {
		t.Errorf("documents may name %q, there are %q", known, Detectors())
	}
}

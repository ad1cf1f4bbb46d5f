package main

import (
	"os"
	"testing"

	"chaperone.dev/chaperone/docs/schema"
)

func TestCommittedSchema(t *testing.T) {
	t.Chdir("../..")
	text, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != string(schema.JSON) {
		t.Error("docs/schema is not what the types of pkg/policy make; run: go generate ./docs/schema")
	}
	again, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(text) {
		t.Error("the same types make two schemas")
	}
}

// Descriptions are for people who write documents, and have never seen the
// types.
func TestDescriptions(t *testing.T) {
	t.Chdir("../..")
	s, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"ApprovalSpec.mode":    `mode is "hold" (the default) or "retry".`,
		"EscalationSpec.after": `after is how long since the request; it is less than within.`,
		"TLSSpec.caFile":       `caFile holds the PEM certificates to trust; empty means the system's.`,
		"TargetSpec.hosts":     `hosts are "name:port", "address:port" or "CIDR:port".`,
	} {
		p, err := property(s.Definitions, at)
		if err != nil {
			t.Fatal(err)
		}
		if p.Description != want {
			t.Errorf("%s is described as %q, want %q", at, p.Description, want)
		}
	}
}

func TestRunWritesWhatItMakes(t *testing.T) {
	out := t.TempDir() + "/schema.json"
	t.Chdir(".") // run changes it
	if err := run("../..", out); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != string(schema.JSON) {
		t.Error("what was written is not what is committed")
	}
}

func TestConstraintsNameFields(t *testing.T) {
	t.Chdir("../..")
	s, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"Nothing.mode", "ApprovalSpec.nothing"} {
		if _, err := property(s.Definitions, at); err == nil {
			t.Errorf("%s was found", at)
		}
	}
}

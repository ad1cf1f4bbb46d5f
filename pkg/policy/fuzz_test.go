package policy_test

import (
	"encoding/json"
	"errors"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
	"github.com/google/go-cmp/cmp"
)

// Whatever a document says, it is loaded or refused with its file's name, and
// what was loaded decides without a fault and can be written down.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		stream(aTarget, aWorkload, aProvider, aPolicy, aMask, aNode), aNode, fiveRules,
		stream(aTarget, anSSHTarget, aKubeTarget, aSink, aProvider, everything, approving("a", "shadow", "ask: approve: command.program == 'rm' | , standing: 1h")),
		stream(aTarget, rules("p", "r: allow: now.getHours('+02:00') > 3 && statement.tables.all(t, t.matches('^a'))")),
		"a: &a [*a, *a]", "? {a: b}\n: c", "--- !!map {}\n--- |\n x", "\xff\xfe", "{", "- - - -",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := policy.Parse("fuzz.yaml", data)
		if err != nil {
			var all policy.Errors
			if !errors.Is(err, policy.ErrNoDocuments) && (!errors.As(err, &all) || len(all) == 0 || all[0].File != "fuzz.yaml") {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if _, err := json.Marshal(set); err != nil {
			t.Fatal(err)
		}
		st := &policy.Statement{Text: "SELECT 1", Kind: "SELECT", ReadOnly: true, Tables: []string{"a", "b.c"}}
		for _, doc := range set.Targets {
			bound := set.Bind(planner, job, policy.TargetFacts{Name: doc.Metadata.Name})
			opened, _ := bound.Explain(noon, policy.SessionFacts{}, nil)
			if got := bound.Open(noon); !cmp.Equal(got, opened) {
				t.Fatalf("opening is decided as %+v and explained as %+v", got, opened)
			}
			explained, _ := bound.Explain(noon, policy.SessionFacts{}, st)
			if got := bound.Statement(noon, policy.SessionFacts{}, st); !cmp.Equal(got, explained) {
				t.Fatalf("decided as %+v and explained as %+v", got, explained)
			}
			for _, asked := range []policy.Asked{
				{Command: &policy.Command{Text: "ls /", Program: "ls", Programs: []string{"ls"}}},
				{File: &policy.File{Op: "read", Path: "/etc/passwd", Size: 9}},
				{Request: &policy.Request{Verb: "get", Resource: "pods"}},
			} {
				explained, _ := bound.ExplainAsked(noon, policy.SessionFacts{}, asked)
				if got := bound.Decide(noon, policy.SessionFacts{}, asked); !cmp.Equal(got, explained) {
					t.Fatalf("decided as %+v and explained as %+v", got, explained)
				}
			}
		}
	})
}

// A host that is read is written so that it reads as itself.
func FuzzParseHost(f *testing.F) {
	for _, seed := range []string{"orders.db.example:5432", "10.20.0.0/16:5432", "[2001:db8::/32]:1", "[::1]:5432", "A_b.c:1", "10.0.0.1:65535", "[]:1", ":1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := policy.ParseHost(s)
		if err != nil {
			return
		}
		if (h.Name == "") != h.Prefix.IsValid() || h.Port == 0 {
			t.Fatalf("%q is %+v", s, h)
		}
		again, err := policy.ParseHost(h.String())
		if err != nil || again != h {
			t.Fatalf("%q is written %q, which is %+v, %v", s, h.String(), again, err)
		}
	})
}

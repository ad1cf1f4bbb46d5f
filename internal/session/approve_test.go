package session

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
)

const outlived = `apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: db}
spec:
  protocol: postgres
  hosts: ["db.example:5432"]
  credential: {postgresRole: {adminFrom: {file: /dsn}, memberOf: [reader], ttl: 15m}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: p}
spec:
  principals: {subjects: ["*"]}
  targets: [db]
  rules:
    - {name: r, when: "statement.readOnly", then: approve, approval: {from: {groups: [dba]}, per: session}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Mask
metadata: {name: m}
spec:
  targets: [db]
  columns: [{match: "public.t.c", with: redact}]
  untraceable: approve
  approval: {from: {groups: [dba]}, per: session}
`

// What people have said yes to holds under other documents while those ask the same.
func TestApprovalsOutlive(t *testing.T) {
	ofRule, ofMask := approvalKey{"p", "r"}, untracedKey("m")
	for name, test := range map[string]struct {
		from, to string
		want     []approvalKey
	}{
		"nothing that is asked":  {"name: m}", "name: m, labels: {x: y}}", []approvalKey{ofRule, ofMask}},
		"a condition":            {"statement.readOnly", "true", []approvalKey{ofMask}},
		"who is asked":           {"groups: [dba]}, per: session}}", "groups: [admins]}, per: session}}", []approvalKey{ofMask}},
		"who is asked by a mask": {"groups: [dba]}, per: session}\n", "groups: [admins]}, per: session}\n", []approvalKey{ofRule}},
		"a rule's name":          {"name: r,", "name: s,", []approvalKey{ofMask}},
		"a mask that only denies": {
			"untraceable: approve\n  approval: {from: {groups: [dba]}, per: session}", "untraceable: deny", []approvalKey{ofRule},
		},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(outlived, test.from, test.to, 1)
			if changed == outlived {
				t.Fatal("nothing is changed")
			}
			given := approvals{ofRule: "a-1", ofMask: "a-2"}
			given.outlive(load(t, outlived), load(t, changed))
			byName := func(a, b approvalKey) int { return strings.Compare(b.policy, a.policy) }
			if got := slices.SortedFunc(maps.Keys(given), byName); !slices.Equal(got, test.want) {
				t.Errorf("there are %v, want %v", got, test.want)
			}
		})
	}
}

func load(t *testing.T, text string) *policy.Set {
	t.Helper()
	set, err := policy.LoadFiles(map[string][]byte{"all.yaml": []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chaperone.dev/chaperone/internal/lab/idp"
)

func TestVerifyMapsClaims(t *testing.T) {
	w := newWorld(t)
	many := make([]string, maxGroups+1)
	for i := range many {
		many[i] = "g"
	}
	roles := map[string]any{"realm_access": map[string]any{"roles": []string{"planner", "night"}}, "groups": []string{"b"}}
	tests := []struct {
		name, subjectClaim, groupsClaim string
		claims                          map[string]any
		subject                         string
		groups                          []string
		err                             string
	}{
		{"no groups", "", "", nil, "planner-7", nil, ""},
		{"one string", "", "", map[string]any{"groups": "planners"}, "planner-7", []string{"planners"}, ""},
		{"null", "", "", map[string]any{"groups": nil}, "planner-7", nil, ""},
		{"another claim", "", "https://corp.example/roles", map[string]any{"https://corp.example/roles": []string{"a"}, "groups": []string{"b"}},
			"planner-7", []string{"a"}, ""},
		{"a path", "", "realm_access.roles", roles, "planner-7", []string{"planner", "night"}, ""},
		{"a path to nowhere", "", "realm_access.rules", roles, "planner-7", nil, ""},
		{"a path through text", "", "realm_access.roles", map[string]any{"realm_access": "x"}, "planner-7", nil, ""},
		{"a name before a path", "", "a.b", map[string]any{"a.b": "name", "a": map[string]any{"b": "path"}}, "planner-7", []string{"name"}, ""},
		{"a path through a name with a dot", "", "kubernetes.io.namespace", map[string]any{"kubernetes.io": map[string]any{"namespace": "agents"}},
			"planner-7", []string{"agents"}, ""},
		{"number", "", "", map[string]any{"groups": 7}, "", nil, "neither a list nor a string"},
		{"object", "", "realm_access", roles, "", nil, "neither a list nor a string"},
		{"list of numbers", "", "", map[string]any{"groups": []int{7}}, "", nil, "no string"},
		{"too many", "", "", map[string]any{"groups": many}, "", nil, "1025 entries"},
		{"too long", "", "", map[string]any{"groups": []string{strings.Repeat("g", 300)}}, "", nil, "300 bytes"},
		{"line break", "", "", map[string]any{"groups": []string{"a\nb"}}, "", nil, "U+000A"},
		{"elsewhere", "", "", map[string]any{"_claim_names": map[string]string{"groups": "src1"},
			"_claim_sources": map[string]any{"src1": map[string]string{"endpoint": "https://graph.example"}}}, "", nil, "too many"},

		{"subject by mail", "email", "", map[string]any{"email": "ada@corp.example", "email_verified": true}, "ada@corp.example", nil, ""},
		{"mail that nobody verified", "email", "", map[string]any{"email": "ada@corp.example", "email_verified": false}, "", nil, "not verified"},
		{"subject by path", "person.id", "", map[string]any{"person": map[string]any{"id": "p7"}}, "p7", nil, ""},
		{"no such subject", "email", "", nil, "", nil, `claim "email"`},
		{"subject that is a number", "uid", "", map[string]any{"uid": 1000}, "", nil, "no string"},
		{"subject that is a list", "uid", "", map[string]any{"uid": []string{"a"}}, "", nil, "no string"},
		{"subject with a line break", "uid", "", map[string]any{"uid": "a\nb"}, "", nil, "U+000A"},
		{"empty subject", "uid", "", map[string]any{"uid": ""}, "", nil, "empty"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			document := w.document()
			document.Spec.Claims.Subject, document.Spec.Claims.Groups = test.subjectClaim, test.groupsClaim
			token := w.token(t, func(r *idp.TokenRequest) { r.Groups, r.Claims = nil, test.claims })
			got, err := open(t, document).Verify(t.Context(), token, "")
			if test.err != "" {
				if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.groups, got.Groups); diff != "" || got.Subject != test.subject {
				t.Errorf("subject %q, groups %s", got.Subject, diff)
			}
		})
	}
}

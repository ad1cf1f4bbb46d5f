package identity

import (
	"strings"
	"testing"
	"unicode"
)

// Nothing but the token itself is ever accepted.
func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	token := w.token(f)
	v := open(f, w.document())
	f.Add(token)
	f.Add("..")
	f.Add(`{"payload":"e30","signatures":[]}`)
	f.Add(alter(f, token, 1, func(c map[string]any) { c["sub"] = "root" }))
	f.Add(confuse(f, v, token))
	f.Fuzz(func(t *testing.T, token string) {
		principal, err := v.Verify(t.Context(), token, "")
		if err == nil && principal.Subject != good().Subject {
			t.Fatalf("accepted %q as %s", token, principal.Subject)
		}
	})
}

func FuzzGroups(f *testing.F) {
	f.Add("groups", "a", true)
	f.Add("groups", "a\nb", false)
	f.Add("a.b.c", "x", false)
	f.Add("", "", true)
	f.Fuzz(func(t *testing.T, claim, name string, list bool) {
		value := any(name)
		if list {
			value = []any{name, name}
		}
		outer, inner, _ := strings.Cut(claim, ".")
		claims := map[string]any{outer: map[string]any{inner: value}, name: value}
		got, err := groups(claims, claim)
		if err != nil {
			return
		}
		for _, g := range got {
			if g == "" || strings.ContainsFunc(g, unicode.IsControl) {
				t.Errorf("accepted %q", g)
			}
		}
	})
}

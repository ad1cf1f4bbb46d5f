package identity

import (
	"strings"
	"testing"
	"unicode"
)

// Nothing but the token itself is ever accepted.
func FuzzVerify(f *testing.F) {
	p := newIDP(f, "127.0.0.1:0", nil)
	good := p.token(f)
	v := open(f, p.document())
	f.Add(good)
	f.Add("..")
	f.Add(`{"payload":"e30","signatures":[]}`)
	f.Add(alter(f, good, 1, func(c map[string]any) { c["sub"] = "root" }))
	f.Fuzz(func(t *testing.T, token string) {
		principal, err := v.Verify(t.Context(), token, "")
		if err == nil && principal.Subject != p.Subject {
			t.Fatalf("accepted %q as %s", token, principal.Subject)
		}
	})
}

func FuzzGroups(f *testing.F) {
	f.Add("groups", "a", true)
	f.Add("groups", "a\nb", false)
	f.Add("", "", true)
	f.Fuzz(func(t *testing.T, claim, name string, list bool) {
		claims := map[string]any{claim: any(name)}
		if list {
			claims[claim] = []any{name, name}
		}
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

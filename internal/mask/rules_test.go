package mask

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

func maskDoc(spec policy.MaskSpec) []policy.Mask {
	return []policy.Mask{{Metadata: policy.Metadata{Name: "m"}, Spec: spec}}
}

func TestCompileChoosesByTargetAndPrincipal(t *testing.T) {
	spec := policy.MaskSpec{
		Targets: []string{"a", "b"},
		Columns: []policy.ColumnMask{{Match: "*.*.card", With: policy.Transform{Null: true}}},
		Exempt:  policy.PrincipalSelect{Groups: []string{"stewards"}, Subjects: []string{"eve@corp", "root@local"}},
	}
	everyone := spec
	everyone.Exempt = policy.PrincipalSelect{Subjects: []string{"*"}}
	tests := []struct {
		name      string
		spec      policy.MaskSpec
		target    string
		principal policy.Principal
		empty     bool
	}{
		{"covered", spec, "a", policy.Principal{Subject: "x", Issuer: "corp", Groups: []string{"planners"}}, false},
		{"another target", spec, "c", policy.Principal{}, true},
		{"exempt group", spec, "b", policy.Principal{Subject: "x", Issuer: "corp", Groups: []string{"y", "stewards"}}, true},
		{"exempt subject", spec, "b", policy.Principal{Subject: "eve", Issuer: "corp"}, true},
		{"the same subject of another issuer", spec, "b", policy.Principal{Subject: "eve", Issuer: "evil"}, false},
		{"no principal", everyone, "a", policy.Principal{}, false},
		{"everyone", everyone, "a", policy.Principal{Subject: "x", Issuer: "y"}, true},
	}
	for _, tt := range tests {
		r, err := Compile(maskDoc(tt.spec), tt.target, tt.principal)
		if err != nil {
			t.Fatal(err)
		}
		if r.Empty() != tt.empty || r.NeedsCatalog() == tt.empty {
			t.Errorf("%s: empty is %v", tt.name, r.Empty())
		}
	}
}

func TestCompileRefusesWhatItDoesNotKnow(t *testing.T) {
	one := policy.Transform{Redact: true}
	for name, spec := range map[string]policy.MaskSpec{
		"pattern":        {Columns: []policy.ColumnMask{{Match: "a.b", With: one}}},
		"empty part":     {Columns: []policy.ColumnMask{{Match: "a..b", With: one}}},
		"no transform":   {Columns: []policy.ColumnMask{{Match: "a.b.c"}}},
		"two transforms": {Columns: []policy.ColumnMask{{Match: "a.b.c", With: policy.Transform{Redact: true, KeepLast: 1}}}},
		"negative":       {Columns: []policy.ColumnMask{{Match: "a.b.c", With: policy.Transform{KeepLast: -1}}}},
		"detector":       {Detect: []string{"emails"}},
	} {
		spec.Targets = []string{"*"}
		if r, err := Compile(maskDoc(spec), "db", policy.Principal{}); err == nil || r != nil {
			t.Errorf("%s: compiled", name)
		}
	}
}

func TestCompileNeedsTheKeysItNames(t *testing.T) {
	docs := maskDoc(policy.MaskSpec{
		Targets: []string{"a"},
		Columns: []policy.ColumnMask{
			{Match: "*.*.email", With: policy.Transform{HMAC: "email"}},
			{Match: "*.*.phone", With: policy.Transform{HMAC: "phone"}},
			{Match: "*.*.mail", With: policy.Transform{HMAC: "email"}},
		},
		Exempt: policy.PrincipalSelect{Groups: []string{"stewards"}},
	})
	steward := policy.Principal{Subject: "s", Issuer: "corp", Groups: []string{"stewards"}}
	if got := KeyNames(docs, "a", policy.Principal{}); !slices.Equal(got, []string{"email", "phone"}) {
		t.Errorf("the keys at a are %q", got)
	}
	for _, got := range [][]string{KeyNames(docs, "b", policy.Principal{}), KeyNames(docs, "a", steward)} {
		if len(got) > 0 {
			t.Errorf("keys %q for what has no mask", got)
		}
	}
	long := []byte("sixteen bytes it is")
	for _, tt := range []struct {
		name string
		keys Keys
		want string
	}{
		{"all", Keys{"email": long, "phone": long}, ""},
		{"one short of", Keys{"email": long}, `there is no key "phone"`},
		{"a short one", Keys{"email": long, "phone": []byte("hunter2")}, `key "phone" has 7 bytes`},
		{"none", nil, `there is no key "email"`},
	} {
		_, err := tt.keys.Compile(docs, "a", policy.Principal{})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := Compile(docs, "a", steward); err != nil {
		t.Errorf("who is exempt needs keys: %v", err)
	}
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"*", "x", true}, {"pass*", "password", true}, {"pass*", "pas", false},
		{"*word", "password", true}, {"*word*", "passwords", true}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "ac", false},
		{"a*a", "a", false}, {"*a*b", "ba", false}, {"", "", true}, {"A", "a", false},
	} {
		if got := glob(tt.pattern, tt.s); got != tt.want {
			t.Errorf("glob(%q, %q) = %v", tt.pattern, tt.s, got)
		}
	}
}

func TestStronger(t *testing.T) {
	null, redact := policy.Transform{Null: true}, policy.Transform{Redact: true}
	last4, last2, first4 := policy.Transform{KeepLast: 4}, policy.Transform{KeepLast: 2}, policy.Transform{KeepFirst: 4}
	for _, tt := range []struct{ a, b, want policy.Transform }{
		{last4, last4, last4}, {last4, last2, last2}, {last4, first4, redact}, {last4, redact, redact}, {redact, null, null}, {null, last2, null},
	} {
		if got := stronger(tt.a, tt.b); got != tt.want {
			t.Errorf("%+v, %+v: %+v", tt.a, tt.b, got)
		}
		if got := stronger(tt.b, tt.a); got != tt.want {
			t.Errorf("%+v, %+v: %+v", tt.b, tt.a, got)
		}
	}
}

func TestSearchPath(t *testing.T) {
	for setting, want := range map[string][]string{
		`"$user", public`: {"bob", "public"}, ``: {}, `a,b , "C d","e""f"`: {"a", "b", "C d", `e"f`}, `Public`: {"public"}, `""`: {}, `"open`: {"open"},
	} {
		if got := SearchPath(setting, "bob"); !slices.Equal(got, want) || got == nil {
			t.Errorf("%q: %q, want %q", setting, got, want)
		}
	}
}

// handMade is a catalog without a server.
func handMade() *Catalog {
	c := &Catalog{byOID: map[uint32]*relation{}, byName: map[string][]*relation{}, functions: map[string]bool{"mine": true}}
	columns := func(names ...string) (out []catalogColumn) {
		for i, n := range names {
			out = append(out, catalogColumn{name: n, num: uint16(i + 1)})
		}
		return out
	}
	c.add(&relation{oid: 20000, schema: "public", name: "customers", kind: 'r', columns: columns("id", "name", "card", "ssn")})
	c.add(&relation{oid: 20001, schema: "public", name: "other", kind: 'r', columns: columns("id", "note")})
	c.add(&relation{oid: 20002, schema: "hr", name: "other", kind: 'r', columns: columns("id", "ssn")})
	c.add(&relation{oid: 20003, schema: "pg_temp_3", name: "scratch", kind: 'r', columns: columns("id")})
	c.add(&relation{oid: 20004, schema: "public", name: "v", kind: 'v', columns: columns("x"), definition: "SELECT ssn FROM public.customers;"})
	c.add(&relation{oid: 20005, schema: "public", name: "broken", kind: 'v', columns: columns("x"), definition: "SELECT 1, 2"})
	c.add(&relation{oid: 20006, schema: "public", name: "loop", kind: 'v', columns: columns("x"), definition: "SELECT x FROM public.loop"})
	c.add(&relation{oid: 1259, schema: "pg_catalog", name: "pg_class", kind: 'r', columns: columns("oid", "relname")})
	return c
}

func ssnRules(t testing.TB) *Rules {
	t.Helper()
	r, err := Compile(maskDoc(policy.MaskSpec{Targets: []string{"*"}, Columns: []policy.ColumnMask{
		{Match: "*.*.ssn", With: policy.Transform{Redact: true}}, {Match: "public.customers.card", With: policy.Transform{KeepLast: 4}},
	}}), "db", policy.Principal{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNamesFollowTheSearchPath(t *testing.T) {
	rules, cat, parser := ssnRules(t), handMade(), pgsql.NewParser(pgsql.Options{})
	for _, tt := range []struct {
		sql    string
		path   []string
		masked bool
		err    string
	}{
		{"SELECT * FROM other", []string{"public", "hr"}, false, ""},
		{"SELECT * FROM other", []string{"hr", "public"}, true, ""},
		{"SELECT * FROM hr.other", []string{"public"}, true, ""},
		{"SELECT * FROM other", nil, false, "several schemas"},
		{"SELECT ssn FROM customers", nil, true, ""},
		{"SELECT ssn FROM customers", []string{"hr"}, false, "isn't known"},
		{"SELECT * FROM scratch", []string{"public"}, false, ""},
		{"SELECT * FROM pg_temp.scratch", []string{"public"}, false, ""},
		{"SELECT relname FROM pg_class", []string{}, false, ""},
		{"SELECT x FROM v", []string{"public"}, true, ""},
		{"SELECT x FROM broken", []string{"public"}, false, "doesn't match"},
		{"SELECT x FROM loop", []string{"public"}, false, "too many"},
	} {
		q, err := parser.Parse(tt.sql)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time from the cache
			p, err := rules.Plan(q.Statements[0], cat, tt.path)
			switch {
			case tt.err == "" && err != nil, tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("%s in %v: %v", tt.sql, tt.path, err)
			case err == nil && p.Masked() != tt.masked:
				t.Errorf("%s in %v: masked is %v", tt.sql, tt.path, p.Masked())
			}
		}
	}
}

func TestPlansAreRememberedPerCatalog(t *testing.T) {
	rules, cat := ssnRules(t), handMade()
	q, err := pgsql.NewParser(pgsql.Options{}).Parse("SELECT ssn FROM customers")
	if err != nil {
		t.Fatal(err)
	}
	path := []string{"public"}
	one, err := rules.Plan(q.Statements[0], cat, path)
	if err != nil {
		t.Fatal(err)
	}
	if two, _ := rules.Plan(q.Statements[0], cat, []string{"public"}); two != one {
		t.Error("planned twice")
	}
	if other, _ := rules.Plan(q.Statements[0], handMade(), path); other == one {
		t.Error("another catalog has the plan of the first")
	}
	if _, err := rules.Plan(q.Statements[0], nil, path); err == nil {
		t.Error("planned without a catalog")
	}
}

// The server's word about a field wins over a plan that missed it.
func TestAnnouncedColumnsAreCovered(t *testing.T) {
	rules, cat := ssnRules(t), handMade()
	q, err := pgsql.NewParser(pgsql.Options{}).Parse("SELECT note FROM other; SHOW all")
	if err != nil {
		t.Fatal(err)
	}
	for i, open := range []bool{false, true} {
		p, err := rules.Plan(q.Statements[i], cat, []string{"public"})
		if err != nil {
			t.Fatal(err)
		}
		if p.open != open {
			t.Fatalf("statement %d", i)
		}
		for _, f := range []Field{{Table: 20000, Column: 4}, {Table: 20004, Column: 1}, {Table: 20000, Column: 0}} {
			f.Name, f.Type = "note", 25
			w, err := p.Rewriter([]Field{f})
			if err != nil {
				t.Fatal(err)
			}
			out, err := w.Row(dataRow([][]byte{[]byte("secret")}))
			if err != nil || readRow(t, out)[0] != "[redacted]" || w.Idle() {
				t.Errorf("%+v: %q, %v", f, out, err)
			}
		}
		for _, f := range []Field{{Name: "note", Table: 99999, Column: 1}, {Name: "note", Table: 20001, Column: 9}} {
			if _, err := p.Rewriter([]Field{f}); err == nil {
				t.Errorf("%+v isn't known and was let through", f)
			}
		}
		if w, err := p.Rewriter([]Field{{Name: "note", Table: 20001, Column: 2, Type: 25}}); err != nil || !w.Idle() {
			t.Errorf("a clear column: %v", err)
		}
	}
}

func TestMasksSpreadOverInheritance(t *testing.T) {
	cat := handMade()
	link := func(child, parent uint32) {
		cat.byOID[child].parents = append(cat.byOID[child].parents, parent)
		cat.byOID[parent].children = append(cat.byOID[parent].children, child)
	}
	add := func(oid uint32, name string) {
		cat.add(&relation{oid: oid, schema: "public", name: name, columns: []catalogColumn{{name: "id", num: 1}, {name: "note", num: 2}, {name: "card", num: 7}}})
	}
	add(30000, "grandchild")
	add(30001, "child")
	add(30002, "sibling")
	add(30003, "stranger")
	link(30001, 20000) // customers.card is masked
	link(30000, 30001)
	link(30002, 20000)
	c := ssnRules(t).coverageOf(cat)
	for oid, want := range map[uint32]bool{30000: true, 30001: true, 30002: true, 30003: false} {
		v := c.taints(cat.byOID[oid])
		if v.columns[2].any() != want || v.columns[1].any() {
			t.Errorf("%s: %v", cat.byOID[oid], v.columns)
		}
	}
}

func TestRulesAreSharedBySessions(t *testing.T) {
	rules, cat, parser := ssnRules(t), handMade(), pgsql.NewParser(pgsql.Options{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				q, err := parser.Parse(fmt.Sprintf("SELECT 'a%d', x FROM v, customers WHERE id = %d", i%7, g))
				if err != nil {
					t.Error(err)
					return
				}
				if p, err := rules.Plan(q.Statements[0], cat, []string{"public"}); err != nil || !p.Masked() {
					t.Errorf("%v, %v", p, err)
				}
			}
		})
	}
	wg.Wait()
}

package pgsql

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// FuzzParse looks for a text that breaks the parser, and for one whose shape
// tells other facts, or another tree, than the text itself.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
		"UPDATE t SET a = a + -4123, b=(SELECT 5) WHERE x in (1,2,3) and y between 1 and 2",
		"SELECT f(1,22,3.5,1e5,.5,7.,0x1F,1_000,a.b1), 99999999999 x1 FROM t LIMIT 5 OFFSET 3",
		"INSERT INTO t (a, b) VALUES (1, 2), (3, 4) ON CONFLICT (a) DO UPDATE SET b = 7 RETURNING *",
		"DELETE FROM t USING u WHERE t.a = u.a and 1 <> 2",
		"SELECT cast(a as numeric(10,2)), cast(b as float(24)), cast(c as varchar(5)) from t",
		"SELECT sum(a) over (rows between 1 preceding and 2 following) from t fetch first 5 rows only",
		"select 1e, 1.e5, 5order, 12.34.56, 1..2, -1, - -1, 1<-2 from only t, lateral f(x => 3) for update",
		"WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
		"COPY (SELECT 1) TO STDOUT; EXPLAIN (ANALYZE) SELECT 1",
		"SELECT E'\\'', $$x$$, U&'d\\0061t'",
		"SELECT a FROM t WHERE b = 'it''s' AND c <> 'x' OR d LIKE 'y%' AND e BETWEEN 'a' AND 'b' IN ('x', f('y'), 'z')",
		"INSERT INTO t VALUES ('x', ('y'), 1.5), ('z', 'a'\n'b') RETURNING \"c\"\"d\".\"e\", $1",
		"WITH a AS (SELECT 'x' = 'y'::name, doc->>'k' = '5', (1.5).f FROM pg_settings) SELECT set_config('a', 'b', true) ORDER BY 1",
		"SELECT ('16400'::oid).lo_get = ('s'::regclass).nextval, x.touch IN ('a'), ('b'), f(a => 'c') LIMIT '5'",
	} {
		f.Add(s)
	}
	cached := NewParser(Options{CacheEntries: 16})
	plain := NewParser(Options{})
	prepared := parseOne(f, plain, "PREPARE p AS WITH d AS (DELETE FROM t RETURNING *) SELECT f(a) FROM d")
	in := Surroundings{Names: someNames{}, Prepared: func(string) *Statement { return prepared }}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := cached.Parse(text)
		if err == nil {
			for _, s := range got.Statements {
				alone, there := s.Facts(text), s.FactsIn(text, in)
				if alone.Kind == "" || alone.Kind != alone.Kinds[0] || there.Kind != there.Kinds[0] {
					t.Errorf("%q: kinds %q, %q", text, alone.Kinds, there.Kinds)
				}
				if there.ReadOnly && !alone.ReadOnly || s.Bare() && !cmp.Equal(alone, there, cmpopts.EquateEmpty()) {
					t.Errorf("%q: alone %+v, in a database %+v", text, alone, there)
				}
			}
		}
		var dst [maxShape]byte
		if _, shaped := shape(dst[:], text); !shaped {
			return
		}
		want, plainErr := plain.parse(text)
		if plainErr != nil {
			// The server refuses it as well: sharing can't do harm.
			return
		}
		if err != nil {
			t.Fatalf("%q: %v, alone it parses", text, err)
		}
		if len(got.Statements) != len(want.Statements) {
			t.Fatalf("%q: %d statements, alone %d", text, len(got.Statements), len(want.Statements))
		}
		for i, s := range got.Statements {
			if d := cmp.Diff(want.Statements[i].Facts(text), s.Facts(text), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("%q: %s", text, d)
			}
			a := proto.Clone(want.Statements[i].Tree).(*pg_query.Node)
			b := proto.Clone(s.Tree).(*pg_query.Node)
			forgetConstants(a.ProtoReflect(), b.ProtoReflect())
			if !proto.Equal(a, b) {
				t.Errorf("%q: the shape's tree is another", text)
			}
		}
	})
}

// forgetConstants makes two trees equal that differ in places only, and in constants
// where that of the shape b is what such constants are replaced by.
func forgetConstants(a, b protoreflect.Message) {
	if !b.IsValid() || a.Descriptor() != b.Descriptor() {
		return
	}
	switch x := a.Interface().(type) {
	case *pg_query.A_Const:
		y := b.Interface().(*pg_query.A_Const)
		if replaced(x, y) {
			x.Val, y.Val = nil, nil
		}
	case *pg_query.TypeName:
		// float(24) is float4, float(25) float8
		y := b.Interface().(*pg_query.TypeName)
		x.Typmods, x.Names, y.Typmods, y.Names = nil, nil, nil, nil
	}
	a.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Kind() == protoreflect.Int32Kind && !f.IsList() && (f.Name() == "location" || f.Name() == "stmt_len" || f.Name() == "stmt_location"):
			a.Clear(f)
			b.Clear(f)
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			of := b.Get(f).List()
			for i := range min(v.List().Len(), of.Len()) {
				forgetConstants(v.List().Get(i).Message(), of.Get(i).Message())
			}
		case f.Kind() == protoreflect.MessageKind:
			forgetConstants(v.Message(), b.Get(f).Message())
		}
		return true
	})
	// A place of 0 is none that Range tells of.
	b.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if f.Name() == "location" {
			b.Clear(f)
		}
		return true
	})
}

// zero is what decimals are replaced by; of 1e+5, the 5 is an integer to shape.
var zero = regexp.MustCompile(`^-?(0\.0|.*[eE][-+]0)$`)

// replaced tells whether shape makes y of x.
func replaced(x, y *pg_query.A_Const) bool {
	switch v := y.Val.(type) {
	case *pg_query.A_Const_Ival:
		switch w := x.Val.(type) {
		case *pg_query.A_Const_Ival:
			return v.Ival.Ival == 0 || v.Ival.Ival == w.Ival.Ival
		case *pg_query.A_Const_Fval: // an integer too large for Ival
			return v.Ival.Ival == 0 && strings.Trim(w.Fval.Fval, "-0123456789") == ""
		}
	case *pg_query.A_Const_Fval:
		_, ok := x.Val.(*pg_query.A_Const_Fval)
		return ok && zero.MatchString(v.Fval.Fval)
	case *pg_query.A_Const_Sval:
		_, ok := x.Val.(*pg_query.A_Const_Sval)
		return ok && v.Sval.Sval == ""
	}
	return false
}

package pgsql

import (
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
	} {
		f.Add(s)
	}
	cached := NewParser(Options{CacheEntries: 16})
	plain := NewParser(Options{})
	f.Fuzz(func(t *testing.T, text string) {
		got, err := cached.Parse(text)
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
			forgetIntegers(a.ProtoReflect())
			forgetIntegers(b.ProtoReflect())
			if !proto.Equal(a, b) {
				t.Errorf("%q: the shape's tree is another", text)
			}
		}
	})
}

// forgetIntegers makes trees equal that differ in places and integers only.
func forgetIntegers(m protoreflect.Message) {
	if c, ok := m.Interface().(*pg_query.A_Const); ok {
		switch v := c.Val.(type) {
		case *pg_query.A_Const_Ival:
			c.Val = nil
		case *pg_query.A_Const_Fval:
			if digits(v.Fval.Fval) {
				c.Val = nil
			}
		}
	}
	if n, ok := m.Interface().(*pg_query.TypeName); ok {
		n.Typmods, n.Names = nil, nil // float(24) is float4, float(25) float8
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Kind() == protoreflect.Int32Kind && !f.IsList() && (f.Name() == "location" || f.Name() == "stmt_len" || f.Name() == "stmt_location"):
			m.Clear(f)
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			for i := range v.List().Len() {
				forgetIntegers(v.List().Get(i).Message())
			}
		case f.Kind() == protoreflect.MessageKind:
			forgetIntegers(v.Message())
		}
		return true
	})
}

func digits(s string) bool {
	for _, r := range s {
		if r != '-' && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

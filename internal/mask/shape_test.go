package mask

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
)

// Texts that differ in constants share a parse, and with it a plan. It must be the
// one that each of them has by itself.
func FuzzShapedPlan(f *testing.F) {
	for _, s := range []string{
		"SELECT id, ssn FROM customers WHERE name = 'Ada' AND id IN (1, 2.5) OR card LIKE '4%'",
		"SELECT c.doc->>'k' = 'x', c.doc->'ssn', upper(ssn) || 'x', 'y' = ssn FROM customers c WHERE ssn BETWEEN 'a' AND 'b' ORDER BY 2 LIMIT 10",
		"INSERT INTO customers (id, name, ssn) VALUES (1, 'x', lower('y')), (2, 'z', NULL) RETURNING ssn, 'r'",
		"UPDATE customers SET ssn = 'x', name = 'y' WHERE id = 7 RETURNING *",
		"WITH a AS (SELECT ssn AS x FROM customers WHERE id = 5) SELECT x FROM a WHERE x <> 'q' GROUP BY 1 HAVING count(*) > 3",
		"SELECT CASE WHEN id = 1 THEN ssn ELSE 'none' END, substring(ssn, 1, 3), (ARRAY['x', ssn]) FROM customers WHERE ssn = 'x'::text",
		"SELECT * FROM v, (VALUES ('a', 1), ('b', 2)) AS l (p, q) WHERE p = 'a' AND number = '078'",
		"SELECT json_build_object('a', ssn) ->> 'a' = 'b', jsonb_path_query(doc, '$.a') FROM customers WHERE doc @> '{}'",
	} {
		f.Add(s)
	}
	corpus, err := os.ReadFile("../../test/masking/corpus.sql")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(corpus)) {
		if !strings.HasPrefix(line, "--") {
			f.Add(strings.TrimSuffix(strings.TrimSpace(line), ";"))
		}
	}
	rules, cat := ssnRules(f), handMade()
	people := &relation{oid: 20010, schema: "public", name: "people", kind: 'r'}
	for i, name := range strings.Fields("id name ssn pin account salary born token profile aliases photo code phone doc away words email city") {
		people.columns = append(people.columns, catalogColumn{name: name, num: uint16(i + 1)})
	}
	cat.add(people)
	shared, path := pgsql.NewParser(pgsql.Options{}), []string{"public"}
	f.Fuzz(func(t *testing.T, text string) {
		// A text that begins with a comment has no shape.
		alone, err := pgsql.NewParser(pgsql.Options{}).Parse("/**/" + text)
		if err != nil {
			return
		}
		together, err := shared.Parse(text)
		if err != nil || len(together.Statements) != len(alone.Statements) {
			t.Fatalf("%q: %v, and alone it is read", text, err)
		}
		for i := range alone.Statements {
			want, wantErr := rules.trace(alone.Statements[i], cat, path, nil)
			got, gotErr := rules.trace(together.Statements[i], cat, path, nil)
			if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || !reflect.DeepEqual(got, want) {
				t.Errorf("%q: alone %v, %+v; by its shape %v, %+v", text, wantErr, want, gotErr, got)
			}
		}
	})
}

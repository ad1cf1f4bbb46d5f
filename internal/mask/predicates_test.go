package mask

import (
	"errors"
	"slices"
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

func TestPredicates(t *testing.T) {
	cat, parser := handMade(), pgsql.NewParser(pgsql.Options{})
	rules := map[string]*Rules{}
	for _, word := range []string{policy.PredicatesAllow, "", policy.PredicatesApprove, policy.PredicatesDeny} {
		r, err := Compile(maskDoc(policy.MaskSpec{Targets: []string{"*"}, Predicates: word, Columns: []policy.ColumnMask{
			{Match: "*.*.ssn", With: policy.Transform{Redact: true}}, {Match: "public.customers.card", With: policy.Transform{Redact: true}},
		}}), "db", policy.Principal{})
		if err != nil {
			t.Fatal(err)
		}
		rules[word] = r
	}
	equality := []string{
		"SELECT id FROM customers WHERE ssn = 'QZX'", "SELECT id FROM customers WHERE ssn IS NULL", "SELECT id FROM customers WHERE ssn IN ('a', $1)",
		"SELECT count(*) FROM customers GROUP BY ssn", "SELECT DISTINCT ssn FROM customers", "SELECT a.id FROM customers a JOIN customers b USING (ssn)",
		"SELECT ssn FROM customers UNION SELECT ssn FROM customers", "SELECT a.id FROM customers a, customers b WHERE a.ssn = b.ssn",
		"SELECT 1 FROM customers GROUP BY GROUPING SETS ((ssn), ())", "DELETE FROM customers WHERE ssn = $1",
		"INSERT INTO customers (ssn) VALUES ('a') ON CONFLICT (ssn) DO NOTHING",
		"SELECT name, count(*) FROM customers GROUP BY ssn, name ORDER BY name", "SELECT DISTINCT ssn, id FROM customers ORDER BY 2", "SELECT 1, count(id) FROM customers GROUP BY ssn",
		"SELECT id, ssn FROM customers UNION SELECT id, ssn FROM customers ORDER BY id",
	}
	more := []string{
		"SELECT id FROM customers WHERE ssn LIKE 'Q%'", "SELECT id FROM customers WHERE ssn > card", "SELECT id FROM customers ORDER BY ssn",
		"SELECT 1 FROM customers ORDER BY lower(ssn) DESC", "SELECT id FROM customers WHERE ssn = name", "SELECT id FROM customers WHERE length(ssn) = 3",
		"SELECT max(id) FROM customers GROUP BY left(ssn, 1)", "SELECT id FROM customers GROUP BY id HAVING max(ssn) > 'Q'", "SELECT DISTINCT left(ssn, 1) FROM customers",
		"SELECT ssn FROM customers INTERSECT SELECT note FROM other", "SELECT x FROM customers, unnest(string_to_array(ssn, NULL)) x",
		"SELECT regexp_matches(ssn, 'Q') FROM customers", "SELECT generate_series(1, length(ssn)) FROM customers", "SELECT rank() OVER (ORDER BY ssn) FROM customers",
		"SELECT 1 FROM other LIMIT (SELECT length(ssn) FROM customers)", "SELECT j.value FROM customers, json_each(ssn::json) j", "DELETE FROM customers WHERE ssn > 'Q'",
		"SELECT id FROM customers c JOIN other o ON o.note = c.ssn", "SELECT x.a FROM customers, XMLTABLE('/a' PASSING (ssn::xml) COLUMNS a text) x",
		"SELECT id FROM customers WHERE EXISTS (SELECT FROM other WHERE note = ssn)", "EXPLAIN SELECT 1 FROM customers ORDER BY ssn",
		"SELECT DISTINCT ON (ssn) id FROM customers", "SELECT DISTINCT ON (ssn) id FROM customers ORDER BY ssn", "SELECT name FROM customers GROUP BY ssn, name", "SELECT DISTINCT ssn, id FROM customers",
		"SELECT id, ssn FROM customers UNION SELECT id, ssn FROM customers", "SELECT min(id) FROM customers GROUP BY ssn", "SELECT id, name FROM customers GROUP BY ssn, id, name ORDER BY id",
		"MERGE INTO other o USING customers c ON o.id = c.id WHEN MATCHED AND c.ssn > 'Q' THEN DELETE",
	}
	for _, sql := range append(slices.Clone(equality), more...) {
		q, err := parser.Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		plan := func(word string) (*Plan, error) { return rules[word].Plan(q.Statements[0], cat, []string{"public"}) }
		exact := slices.Contains(equality, sql)
		var u *Untraceable
		if p, err := plan(policy.PredicatesAllow); err != nil || len(p.Asks()) > 0 {
			t.Errorf("allow: %s: %v", sql, err)
		}
		if p, err := plan(""); (err == nil) != exact || err == nil && len(p.Asks()) > 0 {
			t.Errorf("equality: %s: %v", sql, err)
		}
		if p, err := plan(policy.PredicatesApprove); err != nil || len(p.Asks()) != 1 || p.Asks()[0].Mask != "m" {
			t.Errorf("approve: %s: %v", sql, err)
		}
		if _, err := plan(policy.PredicatesDeny); !errors.As(err, &u) {
			t.Errorf("deny: %s: %v", sql, err)
		}
	}
	// Whatever may decide, what is shown stays covered.
	for _, sql := range []string{
		"SELECT ssn FROM customers ORDER BY ssn", "SELECT x FROM customers, unnest(string_to_array(ssn, NULL)) x", "SELECT j.value FROM customers, json_each(ssn::json) j",
		"SELECT regexp_matches(ssn, 'Q') FROM customers", "SELECT x.a FROM customers, XMLTABLE('/a' PASSING (ssn::xml) COLUMNS a text) x", "SELECT x::text FROM customers, unnest(ARRAY[ssn]) x",
		"SELECT row_to_json(x) FROM customers, unnest(ARRAY[ssn]) x", "SELECT y FROM customers, json_to_record(ssn::json) AS x (y text)", "SELECT (SELECT note FROM unnest(ARRAY[customers]) x) FROM customers, other",
		"SELECT o.b FROM customers, pg_input_error_info(ssn, 'int') AS o (a, b)", "SELECT k FROM customers, ROWS FROM (json_object_keys(ssn::json), generate_series(1, 2)) AS x (k, n)",
	} {
		q, err := parser.Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		p, err := rules[policy.PredicatesAllow].Plan(q.Statements[0], cat, []string{"public"})
		if err != nil || !p.Masked() {
			t.Errorf("%s: %v", sql, err)
		}
	}
	q, err := parser.Parse("SELECT x.* FROM customers, unnest(ARRAY[ssn]) x")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := rules[policy.PredicatesAllow].Plan(q.Statements[0], cat, []string{"public"}); err == nil {
		t.Errorf("columns that can't be counted: %+v", p)
	}
}

// Of several masks for a column the strictest says what it may decide.
func TestStrictestPredicatesWin(t *testing.T) {
	cat, parser := handMade(), pgsql.NewParser(pgsql.Options{})
	q, err := parser.Parse("SELECT id FROM customers WHERE ssn = 'a'")
	if err != nil {
		t.Fatal(err)
	}
	var docs []policy.Mask
	for _, word := range []string{policy.PredicatesAllow, policy.PredicatesEquality, policy.PredicatesApprove, policy.PredicatesApprove, policy.PredicatesDeny} {
		d := maskDoc(policy.MaskSpec{Targets: []string{"*"}, Predicates: word, Columns: []policy.ColumnMask{{Match: "*.*.ssn", With: policy.Transform{Redact: true}}}})[0]
		d.Metadata.Name = string(rune('a' + len(docs)))
		docs = append(docs, d)
		r, err := Compile(docs, "db", policy.Principal{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.Plan(q.Statements[0], cat, []string{"public"})
		if (err != nil) != (word == policy.PredicatesDeny) {
			t.Fatalf("%d masks: %v", len(docs), err)
		}
		if err != nil {
			continue
		}
		if want := max(0, len(docs)-2); len(p.Asks()) != want {
			t.Errorf("%d masks: %v", len(docs), p.Asks())
		}
	}
}

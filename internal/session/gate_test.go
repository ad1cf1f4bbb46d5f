package session

import (
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/internal/protocol/postgres"
)

func TestSchemaWatch(t *testing.T) {
	parser := pgsql.NewParser(pgsql.Options{})
	for name, test := range map[string]struct {
		run  []string
		want bool
	}{
		"outside of a transaction": {[]string{"CREATE TABLE t (x int)"}, false},
		"in one":                   {[]string{"BEGIN", "CREATE TABLE t (x int)", "SELECT 1"}, true},
		"in one string":            {[]string{"BEGIN; CREATE TABLE t (x int)"}, true},
		"committed":                {[]string{"BEGIN", "DROP TABLE t", "COMMIT"}, false},
		"rolled back":              {[]string{"START TRANSACTION", "DROP TABLE t", "ROLLBACK"}, false},
		"to a savepoint":           {[]string{"BEGIN", "SAVEPOINT s", "DROP TABLE t", "ROLLBACK TO s"}, true},
		"chained":                  {[]string{"BEGIN", "DROP TABLE t", "COMMIT AND CHAIN"}, false},
		"after a chain":            {[]string{"BEGIN", "COMMIT AND CHAIN", "DROP TABLE t"}, true},
		"a temporary table":        {[]string{"BEGIN", "CREATE TEMP TABLE t (x int)", "CREATE TEMP TABLE u AS SELECT 1", "SELECT 1 INTO TEMP v"}, false},
		"a temporary heir":         {[]string{"BEGIN", "CREATE TEMP TABLE t () INHERITS (x)"}, true},
		"the next transaction":     {[]string{"BEGIN", "DROP TABLE t", "END", "BEGIN"}, false},
	} {
		var watch schemaWatch
		for _, sql := range test.run {
			query, err := parser.Parse(sql)
			if err != nil {
				t.Fatal(err)
			}
			watch.begin(query)
		}
		if watch.changed != test.want {
			t.Errorf("%s: changed %v, want %v", name, watch.changed, test.want)
		}
	}
}

func TestChangesNames(t *testing.T) {
	parser := pgsql.NewParser(pgsql.Options{})
	for sql, want := range map[string]bool{
		"SET search_path = a, b":                              true,
		"SET LOCAL search_path TO x":                          true,
		"SET SCHEMA 'x'":                                      true,
		"RESET search_path":                                   true,
		"RESET ALL":                                           true,
		"DISCARD ALL":                                         true,
		"SET ROLE orders_reader":                              true,
		"SET SESSION AUTHORIZATION x":                         true,
		"SELECT set_config('search_path', 'x', false)":        true,
		"SELECT pg_catalog.set_config('search_path', $1, $2)": true,
		"SET application_name = 'x'":                          false,
		"SELECT 1":                                            false,
	} {
		query, err := parser.Parse(sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if got := changesNames(query.Statements[0]); got != want {
			t.Errorf("%s: %v, want %v", sql, got, want)
		}
	}
}

func TestWithoutValues(t *testing.T) {
	const all = "[redacted: the statement reads masked columns]"
	for _, test := range []struct {
		field      byte
		text, want string
	}{
		{'M', `invalid input syntax for type integer: "078-05-1120"`, "invalid input syntax for type integer" + all},
		{'M', `value "99999999999" is out of range for type integer`, "value " + all},
		{'M', `relation "078-05-1120" does not exist`, "relation " + all},
		{'M', `syntax error at or near "05"`, "syntax error at or near " + all},
		{'M', `invalid byte sequence for encoding "UTF8": 0xe2 0x53 0x69`, "invalid byte sequence for encoding " + all},
		{'M', `invalid hexadecimal digit: "L"`, "invalid hexadecimal digit" + all},
		{'M', `requested character too large for encoding: 1111998`, "requested character too large for encoding" + all},
		{'M', `ungültige Eingabe: »078«`, "ung" + all},
		{'M', `Wert »QZX« ist falsch`, "Wert " + all},
		{'M', `Failing row contains (QZX, Ada).`, "Failing row contains " + all},
		{'M', `column "missing" does not exist`, `column "missing" does not exist`},
		{'M', `duplicate key value violates unique constraint "customers_ssn_key"`, `duplicate key value violates unique constraint "customers_ssn_key"`},
		{'M', `null value in column "id" of relation "customers" violates not-null constraint`, `null value in column "id" of relation "customers" violates not-null constraint`},
		{'M', `division by zero`, `division by zero`},
		{'D', `Failing row contains (1, Ada, 078-05-1120).`, all},
		{'W', `SQL function "f" statement 1`, all},
		{'H', `Perhaps you meant to reference the column "customers.Name".`, all},
	} {
		if got := withoutValues(test.field, test.text); got != test.want {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
	}
}

func TestCoveredTakesPasswordsOutOfStatements(t *testing.T) {
	parser := pgsql.NewParser(pgsql.Options{})
	for sql, keeps := range map[string]string{
		"CREATE ROLE x LOGIN PASSWORD 'hunter2'":                                   "CREATE ROLE x LOGIN PASSWORD",
		"ALTER USER x WITH ENCRYPTED PASSWORD 'hunter2'":                           "ALTER USER x",
		"SELECT 1; ALTER ROLE x PASSWORD E'hunter2'":                               "ALTER ROLE x",
		"CREATE USER MAPPING FOR x SERVER s OPTIONS (password 'hunter2')":          "CREATE USER MAPPING",
		"CREATE SUBSCRIPTION s CONNECTION 'host=h password=hunter2' PUBLICATION p": "CREATE SUBSCRIPTION",
	} {
		query, err := parser.Parse(sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		got := covered(sql, query, func(s string) string { return s })
		if strings.Contains(got, "hunter2") || !strings.Contains(got, keeps) {
			t.Errorf("%s: recorded as %q", sql, got)
		}
	}
}

func TestParameters(t *testing.T) {
	long := strings.Repeat("ä", 200)
	got := parameters(postgres.Params{
		Formats: []int16{0, 1, 1, 0, 0, 1},
		Values:  [][]byte{[]byte("text"), []byte("also text"), {0, 0, 0, 7}, nil, []byte(long), make([]byte, 500)},
		Types:   []uint32{0, 25, 23},
	}, func(s string) string { return strings.ReplaceAll(s, "also", "[covered]") })
	want := []string{"text", "[covered] text", `\x00000007`, "NULL", strings.Repeat("ä", 128) + "…", `\x` + strings.Repeat("00", 128) + "…"}
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d: %q", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("value %d: %q, want %q", i, got[i], want[i])
		}
	}
	many := parameters(postgres.Params{Values: make([][]byte, 100)}, func(s string) string { return s })
	if len(many) != maxParameters+1 || many[maxParameters] != "and 68 more" {
		t.Errorf("%d values of 100, the last %q", len(many), many[len(many)-1])
	}
}

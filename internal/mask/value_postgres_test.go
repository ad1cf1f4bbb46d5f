package mask

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/pkg/policy"
)

var coverKeys = Keys{"k": []byte("a key of 16 bytes")}

var transforms = map[string]policy.Transform{
	"redact": {Redact: true}, "null": {Null: true}, "keepFirst": {KeepFirst: 2}, "keepLast": {KeepLast: 2}, "hmac": {HMAC: "k"},
	"formatPreserving": {FormatPreserving: "k"}, "truncate": {Truncate: "year"}, "truncate month": {Truncate: "month"},
	"fixed text": {Fixed: "n/a"}, "fixed number": {Fixed: "7"}, "fixed date": {Fixed: "2000-01-01"}, "fixed bool": {Fixed: "true"},
	"fixed address": {Fixed: "192.0.2.0/24"}, "fixed uuid": {Fixed: "00000000-0000-4000-8000-000000000000"}, "fixed bytes": {Fixed: `\x00ff`}, "fixed time": {Fixed: "12:00"},
}

// holds are the transforms that must not come out as NULL, by type. The others
// must: the type can't hold them. It is what docs/policies.md says.
var holds = map[string][]string{
	"text": {"redact", "keepFirst", "keepLast", "hmac", "formatPreserving", "truncate", "truncate month", "fixed text", "fixed number", "fixed date", "fixed bool", "fixed address", "fixed uuid", "fixed bytes", "fixed time"},
	"json": {"redact", "keepFirst", "keepLast", "hmac", "formatPreserving", "truncate", "truncate month", "fixed text", "fixed number", "fixed date", "fixed bool", "fixed address", "fixed uuid", "fixed bytes", "fixed time"},
	"char": {"fixed number"}, "bool": {"fixed bool"},
	"int2": {"hmac", "formatPreserving", "fixed number"}, "numeric": {"hmac", "formatPreserving", "fixed number"},
	"float4": {"formatPreserving", "fixed number"}, "money": {"formatPreserving"},
	"date": {"formatPreserving", "truncate", "truncate month", "fixed date"}, "time": {"formatPreserving", "fixed time"},
	"uuid": {"hmac", "formatPreserving", "fixed uuid"}, "inet": {"fixed address"},
}

func init() {
	for name, like := range map[string]string{
		"varchar": "text", "bpchar": "text", "name": "text", "xml": "text", "refcursor": "text", "short": "text", "jsonb": "json", "bytea": "json",
		"int4": "int2", "int8": "int2", "even": "int2", "float8": "float4", "timestamp": "date", "timestamptz": "date", "cidr": "inet",
	} {
		holds[name] = holds[like]
	}
}

// samples are values of each type, as literals.
var samples = map[string][]string{
	"bool": {"t"}, "bytea": {`\x00deadbeef`, `\x`}, "char": {"x"}, "name": {"Qzxwvkj"}, "int8": {"4111111111111111", "-9223372036854775808", "42", "0"},
	"int2": {"12345", "-32768", "0", "7"}, "int4": {"1234567", "-2147483648", "42"}, "text": {"Qzxw, \"vkj\" \\ {ü}", "", "NULL"}, "oid": {"12345"}, "tid": {"(1,2)"},
	"xid": {"77"}, "cid": {"77"}, "xid8": {"77"}, "json": {`{"k": "Qzxwvkj"}`}, "jsonb": {`{"k": ["Qzxwvkj", 1]}`}, "jsonpath": {"$.k"}, "xml": {"<a>Qzxwvkj</a>"},
	"point": {"(1,2)"}, "lseg": {"[(1,2),(3,4)]"}, "path": {"((1,2),(3,4))"}, "box": {"(3,4),(1,2)"}, "polygon": {"((1,2),(3,4))"}, "line": {"{1,2,3}"}, "circle": {"<(1,2),3>"},
	"float4": {"1.5", "-3.25e-07", "100", "3.4e38"}, "float8": {"1.5", "-1234567.125", "1e300", "1.7976931348623157e308", "0"}, "money": {"1234.56", "-0.05", "0"},
	"macaddr": {"08:00:2b:01:02:03"}, "macaddr8": {"08:00:2b:01:02:03:04:05"}, "inet": {"10.1.2.3", "10.1.2.3/8", "2001:db8::1"}, "cidr": {"10.0.0.0/8", "2001:db8::/32"},
	"bpchar": {"Qzxwvkj   "}, "varchar": {"Qzxwvkj"}, "refcursor": {"Qzxwvkj"},
	"date": {"1987-06-05", "0044-03-15 BC", "99999-12-31"}, "time": {"10:22:31.123456", "00:00", "24:00"}, "timestamp": {"1987-06-05 10:22:31.123456", "1987-06-05", "0044-03-15 10:00 BC", "1999-12-31 23:59:59"},
	"timestamptz": {"1987-06-05 10:22:31.5+02", "2000-01-01 00:30+01", "0044-03-15 10:00+00 BC"}, "interval": {"1 year 2 days 03:04:05"}, "timetz": {"10:22:31+02"},
	"bit": {"1"}, "varbit": {"1010"}, "numeric": {"123.4500", "-0.05", "4111111111111111", "99999999999999999999999999.000000000001", "0", "1000000", "0.0000"}, "uuid": {"550e8400-e29b-41d4-a716-446655440000"},
	"tsvector": {"'a':1 'b':2"}, "tsquery": {"'a' & 'b'"}, "pg_lsn": {"16/B374D848"}, "txid_snapshot": {"10:20:10,14,15"}, "pg_snapshot": {"10:20:10,14,15"},
	"int4range": {"[1,10)"}, "int8range": {"[1,10)"}, "numrange": {"[1.5,10)"}, "tsrange": {"[1987-06-05,1987-06-06)"}, "tstzrange": {"[1987-06-05,1987-06-06)"}, "daterange": {"[1987-06-05,1987-06-06)"},
	"int4multirange": {"{[1,10)}"}, "int8multirange": {"{[1,10)}"}, "nummultirange": {"{[1.5,10)}"}, "tsmultirange": {"{[1987-06-05,1987-06-06)}"}, "tstzmultirange": {"{[1987-06-05,1987-06-06)}"}, "datemultirange": {"{[1987-06-05,1987-06-06)}"},
	"regproc": {"now"}, "regprocedure": {"now()"}, "regoper": {"||/"}, "regoperator": {"+(int4,int4)"}, "regclass": {"pg_class"}, "regtype": {"int4"}, "regconfig": {"english"}, "regdictionary": {"simple"},
	"regnamespace": {"pg_catalog"}, "regrole": {"postgres"}, "regcollation": {`"C"`}, "aclitem": {"postgres=r/postgres"}, "int2vector": {"1 2"}, "oidvector": {"1 2"},
	// of the test's own
	"mood": {"sad"}, "pair": {"(1,Qzxwvkj)"}, "short": {"Qzxwvkj"}, "even": {"42"}, "span": {"[1.5,2.5)"}, "span_multirange": {"{[1.5,2.5)}"},
}

// noInput are types that no value can be written of.
var noInput = []string{"pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"}

type sampleType struct {
	name  string
	oid   uint32
	array uint32
	base  string // of a domain
}

func typeServer(t *testing.T) *pgx.Conn {
	t.Helper()
	ctx := context.Background()
	pg, err := lab.StartPostgres(ctx, lab.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := pg.Exec(ctx, "postgres", "CREATE TYPE mood AS ENUM ('sad', 'ok')", "CREATE TYPE pair AS (n int, t text)", "CREATE DOMAIN short AS varchar(20)",
		"CREATE DOMAIN even AS int8 CHECK (VALUE % 2 = 0)", "CREATE TYPE span AS RANGE (subtype = float8)"); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, pg.AdminDSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func allTypes(t *testing.T, conn *pgx.Conn) (types []sampleType) {
	t.Helper()
	rows, _ := conn.Query(context.Background(), `
SELECT t.typname::text, t.oid, t.typarray, coalesce(b.typname::text, '') FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_type b ON b.oid = t.typbasetype
WHERE (n.nspname = 'pg_catalog' AND t.typtype <> 'c' OR n.nspname = 'public') AND t.typtype <> 'p' AND (t.typelem = 0 OR t.typlen > 0 OR t.typname IN ('name', 'jsonb', 'int2vector', 'oidvector', 'point'))
AND t.typname NOT LIKE '\_%' ORDER BY t.oid`)
	var s sampleType
	if _, err := pgx.ForEachRow(rows, []any{&s.name, &s.oid, &s.array, &s.base}, func() error {
		types = append(types, s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return types
}

// Every type of a real server, its array, and types of users, in both formats,
// under every transform: the server itself and pgx read what comes, both
// formats mean the same, and it is NULL only where the type can't hold it.
func TestEveryTypeStaysItself(t *testing.T) {
	conn := typeServer(t)
	seen := 0
	for _, typ := range allTypes(t, conn) {
		if slices.Contains(noInput, typ.name) {
			continue
		}
		if len(samples[typ.name]) == 0 {
			t.Errorf("there is no sample of type %s", typ.name)
		}
		seen++
		for i, sample := range samples[typ.name] {
			checkType(t, conn, typ, pgx.Identifier{typ.name}.Sanitize(), quoteLiteral(sample), holds[typ.name])
			if i > 0 || typ.array == 0 {
				continue
			}
			want := slices.Clone(holds[typ.name])
			if typ.base != "" { // an array of a domain is a user's type
				want = nil
			}
			name := pgx.Identifier{typ.name}.Sanitize()
			list := fmt.Sprintf("ARRAY[[%[1]s::%[2]s,NULL],[%[1]s::%[2]s,%[1]s::%[2]s]]::text", quoteLiteral(sample), name)
			checkType(t, conn, sampleType{name: typ.name + "[]"}, name+"[]", "("+list+")", want)
			checkType(t, conn, sampleType{name: typ.name + "[]"}, name+"[]", "'{}'", want)
		}
	}
	if seen < 70 {
		t.Errorf("the walk met %d types only", seen)
	}
}

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func checkType(t *testing.T, conn *pgx.Conn, typ sampleType, name, literal string, holds []string) {
	t.Helper()
	for with, transform := range transforms {
		var texts [2]string
		for format := range int16(2) {
			if format == 1 && strings.HasPrefix(typ.name, "aclitem") {
				continue // it has no binary format
			}
			what := fmt.Sprintf("%s %s format %d under %s", name, literal, format, with)
			value, oid := fetch(t, conn, "SELECT "+literal+"::"+name, format)
			before := bytes.Clone(value)
			out, ok := newCovering(transform, coverKeys, oid, format).appendValue(nil, value)
			if !bytes.Equal(value, before) {
				t.Errorf("%s: the value that came in was changed", what)
			}
			if ok != slices.Contains(holds, with) {
				t.Errorf("%s: covered with %q, want NULL: %v", what, out, ok)
			}
			if !ok {
				continue
			}
			if out == nil {
				out = []byte{}
			}
			// What the server's own reader takes is of the type.
			r := conn.PgConn().ExecParams(context.Background(), "SELECT $1::"+strings.Replace(name, `"even"`, "int8", 1), [][]byte{out}, []uint32{oid}, []int16{format}, []int16{0}).Read()
			if r.Err != nil {
				t.Errorf("%s: %q isn't of the type: %v", what, out, r.Err)
				continue
			}
			texts[format] = string(r.Rows[0][0])
			if dt, known := conn.TypeMap().TypeForOID(oid); known {
				if _, err := dt.Codec.DecodeValue(conn.TypeMap(), oid, format, out); err != nil {
					t.Errorf("%s: pgx can't decode %q: %v", what, out, err)
				}
			}
			if strings.Contains(strings.ToLower(string(out)), "zxwv") || strings.Contains(string(out), "\xde\xad") {
				t.Errorf("%s: %q comes through", what, out)
			}
		}
		if texts[1] != texts[0] && !strings.HasPrefix(typ.name, "aclitem") {
			t.Errorf("%s %s under %s: text means %q, binary %q", name, literal, with, texts[0], texts[1])
		}
	}
}

func fetch(t *testing.T, conn *pgx.Conn, sql string, format int16) ([]byte, uint32) {
	t.Helper()
	r := conn.PgConn().ExecParams(context.Background(), sql, nil, nil, nil, []int16{format}).Read()
	if r.Err != nil {
		t.Fatalf("%s: %v", sql, r.Err)
	}
	return r.Rows[0][0], r.FieldDescriptions[0].DataTypeOID
}

// What equals on the server equals behind the mask, over the types that a join
// compares and over formats; what doesn't, doesn't.
func TestCodesJoin(t *testing.T) {
	conn := typeServer(t)
	var coded []string
	for _, group := range [][]string{
		{"'Ada L'::text", "'Ada L'::varchar(10)", "'Ada L'::char(12)", "'Ada L'::name", "'Ada L'::short"},
		{"42::int2", "42::int4", "42::int8", "42::numeric", "42.00::numeric(10,2)", "42::even"},
		{"-70000::int4", "-70000::int8", "-70000.0::numeric"}, {"5000000000::int8", "5000000000::numeric"},
		{"'550e8400-e29b-41d4-a716-446655440000'::uuid", "'{550E8400-E29B-41D4-A716-446655440000}'::uuid"}, {`'\x00ff'::bytea`},
		{"1.5::numeric", "1.50::numeric"}, {"'Ada'::text"}, {"43::int2", "43::int8"}, {"'550e8400-e29b-41d4-a716-446655440001'::uuid"},
	} {
		code := ""
		for _, literal := range group {
			for format := range int16(2) {
				value, oid := fetch(t, conn, "SELECT "+literal, format)
				out, ok := newCovering(policy.Transform{HMAC: "k"}, coverKeys, oid, format).appendValue(nil, value)
				if !ok {
					t.Fatalf("%s has no code", literal)
				}
				r := conn.PgConn().ExecParams(context.Background(), "SELECT $1", [][]byte{out}, []uint32{oid}, []int16{format}, []int16{0}).Read()
				if r.Err != nil {
					t.Fatalf("%s: %q: %v", literal, out, r.Err)
				}
				got := string(r.Rows[0][0])
				if code == "" {
					code = got
				}
				if got != code {
					t.Errorf("%s format %d has the code %s, others of its value %s", literal, format, got, code)
				}
			}
		}
		if slices.Contains(coded, code) {
			t.Errorf("%q has the code of another value", group)
		}
		coded = append(coded, code)
	}
}

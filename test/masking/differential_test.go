package masking

import (
	"bytes"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

//go:embed ordinary.sql
var ordinary string

// generated is how many queries the grammar makes, beside the hand-written ones.
const generated = 1000

// allTypes has a column of each type that ordinary tables have.
const allTypes = `CREATE TABLE all_types (id int PRIMARY KEY, small int2, big int8, exact numeric(12,3), real4 float4, real8 float8,
  words text, short varchar(20), fixed char(6), day date, stamp timestamptz, flag boolean, raw bytea, data jsonb, plain json, tag uuid,
  nums int[], tags text[], span int4range, addr inet, feel mood);
INSERT INTO all_types VALUES
  (1, 1, 10000000000, 12.345, 1.5, 2.25, 'alpha', 'beta', 'gam', '2026-01-02', '2026-01-02 03:04:05+00', true, '\x0001ff', '{"k": "v", "n": [1, 2]}', '{"k" : "v"}', '11111111-2222-3333-4444-555555555555', '{1,2,3}', '{a,b}', '[1,10)', '10.1.2.3', 'calm'),
  (2, -2, -5, -0.001, -1e10, 1e-300, '', 'ü€😀', 'x', '1999-12-31', '1999-12-31 23:59:59.999999+00', false, '', '[]', 'null', '00000000-0000-0000-0000-000000000000', '{}', '{}', 'empty', '::1', 'cross'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, 32767, 9223372036854775807, 999999999.999, 3.4e38, 1.7e308, 'a "quoted", one\' || chr(10) || 'and', 'NULL', 'é', 'infinity', '-infinity', true, '\xdeadbeef', '"s"', '{}', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '{NULL,-1}', '{"a,b",NULL,""}', '(,)', '10.0.0.0/8', NULL);`

// ordinary sends ordinary statements direct and through Chaperone, to a
// target with masks that don't touch what is read, and to one without any.
func (w *world) ordinary(t *testing.T) {
	if _, err := w.sql(t.Context(), databaseA, "SET ROLE orders_reader;"+allTypes+"SELECT lo_from_bytea(424242, '\\x00'); RESET ROLE;"); err != nil {
		t.Fatal(err)
	}
	var statements []string
	for line := range strings.Lines(ordinary) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
			statements = append(statements, line)
		}
	}
	g := grammar{rand.New(rand.NewPCG(5, 8))}
	for range generated {
		statements = append(statements, g.query())
	}
	for _, target := range []struct {
		name string
		by   *route
	}{{"without masks", w.plain}, {"with masks of other columns", w.masked}} {
		for m := range modes {
			if target.by == w.masked && m == extended {
				continue // binary is the same but for the format, and planning takes its time
			}
			t.Run(fmt.Sprintf("%s/%s", target.name, m), func(t *testing.T) {
				d := &differ{w: w, by: target.by, mode: m, masked: target.by == w.masked}
				defer d.close()
				for _, sql := range statements {
					d.compare(t, sql)
				}
				t.Logf("%d statements answered alike, %d refused since they can't be traced", d.alike, d.refused)
			})
		}
	}
}

// differ compares answers over one pair of connections, each statement in a
// transaction of its own that is rolled back.
type differ struct {
	w              *world
	by             *route
	mode           mode
	masked         bool
	direct, other  *wire
	alike, refused int
}

func (d *differ) close() {
	for _, conn := range []*wire{d.direct, d.other} {
		if conn != nil {
			conn.close()
		}
	}
	d.direct, d.other = nil, nil
}

func (d *differ) compare(t *testing.T, sql string) {
	t.Helper()
	if d.direct == nil {
		var err error
		if d.direct, err = d.w.direct.connect(t.Context(), databaseA); err != nil {
			t.Fatal(err)
		}
		if d.other, err = d.by.connect(t.Context(), databaseA); err != nil {
			t.Fatal(err)
		}
	}
	sql, untraceable := strings.CutPrefix(sql, "! ")
	want, err := d.send(d.direct, sql)
	if err != nil {
		t.Fatalf("%s: direct: %v", sql, err)
	}
	got, err := d.send(d.other, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	switch at := slices.IndexFunc(got, func(m message) bool { return m.kind == 'E' && field(m, 'C') == "42501" && field(m, 'R') == "" }); {
	case d.masked && untraceable && at >= 0 && !slices.ContainsFunc(want, func(m message) bool { return m.kind == 'E' && field(m, 'C') == "42501" }):
		d.refused++
	default:
		if difference := firstDifference(want, got); difference != "" {
			t.Errorf("%s\n%s", sql, difference)
		} else {
			d.alike++
		}
	}
}

func (d *differ) send(conn *wire, sql string) ([]message, error) {
	if _, err := conn.send(nil, &pgproto3.Query{String: "BEGIN"}); err != nil {
		return nil, err
	}
	answer, err := conn.send(nil, requests(step{sql: sql}, nil, d.mode)...)
	if err != nil {
		return nil, err
	}
	_, err = conn.send(nil, &pgproto3.Query{String: "ROLLBACK"})
	return answer, err
}

// firstDifference compares messages byte by byte, but for what differs between
// two connections: the process that notifies, and the name of the role.
func firstDifference(want, got []message) string {
	want, got = ownOnly(want), ownOnly(got)
	if len(want) > 0 && len(got) > 0 && want[0].kind == 'E' && field(want[0], 'R') == "scanner_yyerror" {
		// What can't be read is not sent: Chaperone answers itself, with a hint.
		for _, f := range []byte("SVCMP") {
			if field(want[0], f) != field(got[0], f) {
				return fmt.Sprintf("%c of a syntax error: %q, direct %q", f, field(got[0], f), field(want[0], f))
			}
		}
		want, got = want[1:], got[1:]
	}
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("direct there is more: %c %.200q", want[i].kind, want[i].body)
		case i >= len(want):
			return fmt.Sprintf("through Chaperone there is more: %c %.200q", got[i].kind, got[i].body)
		case want[i].kind != got[i].kind || !bytes.Equal(want[i].body, got[i].body):
			return fmt.Sprintf("direct:  %c %.200q\nthrough: %c %.200q", want[i].kind, want[i].body, got[i].kind, got[i].body)
		}
	}
	return ""
}

func ownOnly(answer []message) []message {
	list := make([]message, 0, len(answer))
	for _, m := range answer {
		switch {
		case m.kind == 'A' && len(m.body) >= 4:
			m.body = m.body[4:]
		case m.kind == 'D' && bytes.Contains(m.body, []byte("session_authorization")):
			continue // SHOW ALL
		}
		list = append(list, m)
	}
	return list
}

package postgres

import (
	"bytes"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

func TestCopyWithPgx(t *testing.T) {
	p := newProxy(t, nil)
	conn := p.pgx("")
	ctx := testContext(t)
	n, err := conn.CopyFrom(ctx, pgx.Identifier{"people"}, []string{"id", "name", "ssn"},
		pgx.CopyFromSlice(5000, func(i int) ([]any, error) { return []any{100 + i, strings.Repeat("n", 100), nil}, nil }))
	if err != nil || n != 5000 {
		t.Fatalf("copied %d rows in, %v", n, err)
	}
	var out bytes.Buffer
	tag, err := conn.PgConn().CopyTo(ctx, &out, "COPY (SELECT * FROM people ORDER BY id) TO STDOUT")
	if err != nil || tag.RowsAffected() != 5003 {
		t.Fatalf("copied %v out, %v", tag, err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 5003 || lines[0] != "masked line" || lines[1] != "masked line" || strings.Contains(out.String(), "111-") {
		t.Errorf("%d lines, the first %q", len(lines), lines[:3])
	}
	ends := p.only().ended()
	if last := ends[len(ends)-1]; last.Rows != 5003 || last.Tags[0] != "COPY 5003" || last.Bytes < 500000 {
		t.Errorf("the command ended with %+v", last)
	}
}

func TestCopyWithPsql(t *testing.T) {
	p := newProxy(t, nil)
	out := p.psql("", "-c", `\copy people FROM PROGRAM 'printf "7\\tsue\\tx\\n8\\tjoe\\ty\\n"'`, "-c", `\copy people (id, name) TO STDOUT`)
	if !strings.Contains(out, "COPY 2") || !strings.Contains(out, "7\tsue") {
		t.Errorf("psql said\n%s", out)
	}
}

func TestCopyConversations(t *testing.T) {
	const in = "COPY people (id, name) FROM STDIN"
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"in, simple", []step{
			{messages(q(in)), "G"},
			{messages(copyData("7\tsue\n"), copyDone), "C:COPY 1 Z:I"},
		}},
		{"in, all at once and a query behind it", []step{
			{messages(q(in), copyData("7\tsue\n"), copyDone, q("SELECT name FROM people WHERE id = 7")), "G"},
			{nil, "C:COPY 1 Z:I"},
			{nil, "T1 D:sue C:SELECT 1 Z:I"},
		}},
		{"in, twice in one string", []step{
			{messages(q(in + ";" + in)), "G"},
			{messages(copyData("7\tsue\n"), copyDone), "C:COPY 1 G"},
			{messages(copyData("8\tsue\n"), copyDone), "C:COPY 1 Z:I"},
		}},
		{"in, extended as libpq does it", []step{
			{messages(parse("", in), bind("", ""), describeP(""), execute("", 0), sync_), "1 2 n G"},
			{messages(copyData("7\tsue\n"), copyDone, sync_), "C:COPY 1 Z:I"},
			{messages(q("SELECT 1")), "T1 D:1 C:SELECT 1 Z:I"},
		}},
		{"in, failed by the client", []step{
			{messages(q(in)), "G"},
			{messages(copyData("7\tsue\n"), &pgproto3.CopyFail{Message: "no"}), "E:57014 Z:I"},
			{messages(q("SELECT name FROM people WHERE id = 7")), "T1 C:SELECT 0 Z:I"},
		}},
		{"in, failed by the server", []step{
			{messages(q(in)), "G"},
			{messages(copyData("nonsense\n"), copyDone), "E:22P02 Z:I"},
			{messages(copyData("late\n"), copyDone, q("SELECT 1")), "T1 D:1 C:SELECT 1 Z:I"},
		}},
		{"in, failed by the server, extended", []step{
			{messages(parse("", in), bind("", ""), execute("", 0), sync_), "1 2 G"},
			{messages(copyData("nonsense\n"), copyDone, sync_), "E:22P02 Z:I"},
			{messages(q("SELECT 1")), "T1 D:1 C:SELECT 1 Z:I"},
		}},
		{"in, refused by the server before it starts", []step{
			{messages(q("COPY nowhere FROM STDIN"), copyData("7\tsue\n"), copyDone, q("SELECT 1")), "E:42P01 Z:I"},
			{nil, "T1 D:1 C:SELECT 1 Z:I"},
		}},
		{"in, and a query in the midst of it", []step{
			{messages(q(in)), "G"},
			{messages(copyData("7\tsue\n"), q("SELECT 1")), "FATAL:08P01 end"},
		}},
		{"in, denied", []step{
			{messages(q("COPY forbidden FROM STDIN"), copyData("x\n"), copyDone, q("SELECT 1")), "E:42501 Z:I"},
			{nil, "T1 D:1 C:SELECT 1 Z:I"},
		}},
		{"out", []step{
			{messages(q("COPY people (name) TO STDOUT; SELECT 1")), "H d:ann d:bob d:eve c C:COPY 3 T1 D:1 C:SELECT 1 Z:I"},
		}},
		{"out, extended", []step{
			{messages(parse("", "COPY people TO STDOUT"), bind("", ""), execute("", 0), sync_),
				`1 2 H d:masked line d:masked line d:3	eve	\N c C:COPY 3 Z:I`},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newProxy(t, nil).raw()
			for _, s := range tt.steps {
				c.send(s.send...)
				c.want(tt.name, s.want)
			}
		})
	}
}

// The server fails this COPY after it has asked for data and before it reads
// any. Whether a Sync that came early counts is a matter of time, as it is
// without a proxy; that the session goes on isn't.
func TestCopyFailedBeforeItReads(t *testing.T) {
	c := newProxy(t, nil).raw()
	c.send(q("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'; " +
		"CREATE TRIGGER g BEFORE INSERT ON people EXECUTE FUNCTION f()"))
	c.want("trigger", "C:CREATE FUNCTION C:CREATE TRIGGER Z:I")
	for range 20 {
		c.send(parse("", "COPY people (id, name) FROM STDIN"), bind("", ""), execute("", 0), sync_)
		c.want("the server asks", "1 2 G")
		c.send(copyDone, sync_)
		c.want("and fails", "E:P0001 Z:I")
		c.send(q("SELECT 1"))
		got := c.read()
		if got == "Z:I" {
			got = c.read()
		}
		if got != "T1 D:1 C:SELECT 1 Z:I" {
			t.Fatalf("afterwards %s", got)
		}
	}
}

// Data that is larger than any buffer goes on in pieces.
func TestCopyOfLargeValues(t *testing.T) {
	p := newProxy(t, func(p *proxy) { p.relay.MaxMessage = 4 << 20 })
	c := p.raw()
	big := strings.Repeat("x", 3<<20)
	c.send(q("COPY people (id, name) FROM STDIN"))
	c.want("copy", "G")
	c.send(copyData("7\t"+big+"\n"), copyData("8\tsue\n"), copyDone)
	c.want("data", "C:COPY 2 Z:I")
	if got := column(t, p.database, "SELECT length(name)::text FROM people WHERE id IN (7, 8) ORDER BY id"); got != "3145728,3" {
		t.Errorf("lengths %s", got)
	}
}

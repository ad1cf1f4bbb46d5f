package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A conversation is what a client sends and what it then reads.
type step struct {
	send []pgproto3.FrontendMessage
	want string
}

func messages(m ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage { return m }

var conversations = []struct {
	name  string
	steps []step
}{
	{"a statement that is executed again without Describe stays masked", []step{
		{messages(parse("s", "SELECT name, ssn FROM people WHERE id = $1"), describeS("s"), sync_), "1 t1 T2 Z:I"},
		{messages(bind("", "s", "1"), execute("", 0), sync_), "2 D:ann|masked C:SELECT 1 Z:I"},
		{messages(bind("", "s", "2"), execute("", 0), sync_), "2 D:bob|masked C:SELECT 1 Z:I"},
	}},
	{"and so does one that never was described", []step{
		{messages(parse("s", "SELECT ssn FROM people WHERE id < $1"), sync_), "1 Z:I"},
		{messages(q("SELECT 1"), bind("", "s", "3"), execute("", 0), sync_), "T1 D:1 C:SELECT 1 Z:I"},
		{nil, "2 D:masked D:masked C:SELECT 2 Z:I"},
	}},
	{"binary results are masked", []step{
		{messages(parse("", "SELECT id, ssn FROM people WHERE id = 1"),
			&pgproto3.Bind{ResultFormatCodes: []int16{1}}, describeP(""), execute("", 0), sync_),
			"1 2 T2 D:\x00\x00\x00\x01|masked C:SELECT 1 Z:I"},
		{messages(parse("", "SELECT id, ssn FROM people WHERE id = 1"),
			&pgproto3.Bind{ResultFormatCodes: []int16{0, 1}}, execute("", 0), sync_), "1 2 D:1|masked C:SELECT 1 Z:I"},
	}},
	{"a portal fetched in parts stays masked", []step{
		{messages(q("BEGIN")), "C:BEGIN Z:T"},
		{messages(parse("s", "SELECT ssn FROM people WHERE ssn IS NOT NULL"), bind("p", "s"), execute("p", 1), sync_), "1 2 D:masked s Z:T"},
		{messages(execute("p", 1), sync_), "D:masked s Z:T"},
		{messages(execute("p", 1), sync_), "C:SELECT 0 Z:T"},
		{messages(q("COMMIT")), "C:COMMIT Z:I"},
		{messages(execute("p", 1), sync_), "E:34000 Z:I"},
	}},
	{"a denied Parse fails the rest of its batch", []step{
		{messages(parse("a", "SELECT 1"), bind("", "a"), execute("", 0),
			parse("b", "unreadable"), bind("", "b"), execute("", 0), sync_,
			bind("", "a"), execute("", 0), sync_), "1 2 D:1 C:SELECT 1 E:42601 Z:I"},
		{nil, "2 D:1 C:SELECT 1 Z:I"},
		{messages(bind("", "b"), execute("", 0), sync_), "E:26000 Z:I"},
	}},
	{"a denied Execute aborts the transaction", []step{
		{messages(q("BEGIN")), "C:BEGIN Z:T"},
		{messages(parse("", "SELECT 1 AS forbidden"), bind("", ""), describeP(""), execute("", 0), sync_), "1 2 T1 E:42501 Z:E"},
		{messages(q("SELECT 2")), "E:25P02 Z:E"},
		{messages(q("ROLLBACK")), "C:ROLLBACK Z:I"},
	}},
	{"a refused Parse of the unnamed statement drops it", []step{
		{messages(parse("", "SELECT 1"), sync_), "1 Z:I"},
		{messages(parse("", "unreadable"), sync_), "E:42601 Z:I"},
		{messages(bind("", ""), execute("", 0), sync_), "E:26000 Z:I"},
	}},
	{"one that another batch failed to replace keeps its meaning", []step{
		{messages(parse("s", "SELECT ssn FROM people WHERE id = 1"), sync_), "1 Z:I"},
		// The server refuses the second Parse of a name that is taken. To
		// believe the client would be to show the column.
		{messages(parse("s", "SELECT name FROM people WHERE id = 1"), sync_, bind("", "s"), execute("", 0), sync_), "E:42P05 Z:I"},
		{nil, "2 D:masked C:SELECT 1 Z:I"},
	}},
	{"nor does a skipped Close", []step{
		{messages(parse("s", "SELECT ssn FROM people WHERE id = 1"), sync_), "1 Z:I"},
		{messages(parse("s", "SELECT 1"), closeS("s"), sync_, bind("", "s"), execute("", 0), sync_), "E:42P05 Z:I"},
		{nil, "2 D:masked C:SELECT 1 Z:I"},
	}},
	{"portals likewise", []step{
		{messages(q("BEGIN")), "C:BEGIN Z:T"},
		{messages(parse("a", "SELECT ssn FROM people WHERE id = 1"), parse("b", "SELECT name FROM people WHERE id = 1"),
			bind("p", "a"), sync_), "1 1 2 Z:T"},
		{messages(q("SAVEPOINT x")), "C:SAVEPOINT Z:T"},
		{messages(bind("p", "b"), sync_), "E:42P03 Z:E"},
		{messages(q("ROLLBACK TO x")), "C:ROLLBACK Z:T"},
		{messages(execute("p", 0), sync_), "D:masked C:SELECT 1 Z:T"},
	}},
	{"names that the server would cut are refused", []step{
		{messages(parse(strings.Repeat("n", 63)+"x", "SELECT 1"), sync_), "E:42602 Z:I"},
		{messages(parse(strings.Repeat("n", 63), "SELECT 1"), sync_), "1 Z:I"},
		{messages(closeS(strings.Repeat("n", 63)+"y"), sync_), "3 Z:I"},
		{messages(bind("", strings.Repeat("n", 63)), execute("", 0), sync_), "2 D:1 C:SELECT 1 Z:I"},
		{messages(bind("", strings.Repeat("n", 64)), sync_), "E:42602 Z:I"},
		{messages(execute("é", 0), sync_), "E:42602 Z:I"},
		{messages(describeS(strings.Repeat("n", 64)), sync_), "E:42602 Z:I"},
	}},
	{"what SQL prepares can't be bound", []step{
		{messages(parse("s", "SELECT name FROM people WHERE id = 1"), sync_), "1 Z:I"},
		{messages(q("DEALLOCATE s; PREPARE s AS SELECT ssn FROM people WHERE id = 1"), bind("", "s"), execute("", 0), sync_),
			"C:DEALLOCATE C:PREPARE Z:I"},
		{nil, "E:26000 Z:I"},
	}},
	{"what SQL declares can't be executed", []step{
		{messages(q("BEGIN"), parse("s", "SELECT 1"), bind("c", "s"), sync_), "C:BEGIN Z:T"},
		{nil, "1 2 Z:T"},
		{messages(q("CLOSE c; DECLARE c CURSOR FOR SELECT ssn FROM people"), execute("c", 0), sync_), "C:CLOSE CURSOR C:DECLARE CURSOR Z:T"},
		{nil, "E:34000 Z:E"},
	}},
	{"rows that a rule adds are masked", []step{
		{messages(q("CREATE TABLE r (a int); CREATE RULE also AS ON INSERT TO r DO ALSO SELECT ssn FROM people")),
			"C:CREATE TABLE C:CREATE RULE Z:I"},
		{messages(parse("", "INSERT INTO r VALUES (1)"), bind("", ""), execute("", 0), sync_), "1 2 C:INSERT 0 1 Z:I"},
		{messages(q("INSERT INTO r VALUES (1); SELECT 1")), "T1 D:masked D:masked D: C:INSERT 0 1 T1 D:1 C:SELECT 1 Z:I"},
	}},
	{"a Flush is enough to be answered", []step{
		{messages(parse("", "SELECT 1"), describeS(""), bind("", ""), execute("", 0), flush, sync_), "1 t0 T1 2 D:1 C:SELECT 1 Z:I"},
	}},
	{"a Query in a failed batch is skipped, as the server does", []step{
		{messages(parse("", "SELECT * FROM nowhere"), q("SELECT 1"), parse("", "SELECT 2"), sync_), "E:42P01 Z:I"},
		{messages(q("SELECT 3")), "T1 D:3 C:SELECT 1 Z:I"},
	}},
	{"an error at Sync is the client's", []step{
		{messages(q("CREATE TABLE d (a int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO d VALUES (1)")), "C:CREATE TABLE C:INSERT 0 1 Z:I"},
		{messages(parse("", "INSERT INTO d VALUES (1)"), bind("", ""), execute("", 0), sync_), "1 2 C:INSERT 0 1 E:23505 Z:I"},
		{messages(q("SELECT 3")), "T1 D:3 C:SELECT 1 Z:I"},
	}},
	{"a FETCH that is prepared before its cursor", []step{
		{messages(parse("f", "FETCH ALL FROM c"), describeS("f"), sync_), "1 t0 n Z:I"},
		{messages(q("BEGIN"), q("DECLARE c CURSOR FOR SELECT id FROM people WHERE id < 3")), "C:BEGIN Z:T"},
		{messages(bind("", "f"), describeP(""), execute("", 1), execute("", 0), sync_), "C:DECLARE CURSOR Z:T"},
		{nil, "2 T1 D:1 s D:2 C:FETCH 1 Z:T"},
		{messages(bind("", "f"), execute("", 0), sync_), "2 C:FETCH 0 Z:T"},
		{messages(q("CLOSE c"), bind("", "f"), execute("", 0), sync_), "C:CLOSE CURSOR Z:T"},
		{nil, "2 E:34000 Z:E"},
		{messages(q("ROLLBACK")), "C:ROLLBACK Z:I"},
	}},
	{"a FETCH returns what its cursor is for when it is executed", []step{
		{messages(q("BEGIN"), q("DECLARE c CURSOR FOR SELECT name, id FROM people WHERE id = 1")), "C:BEGIN Z:T"},
		{messages(parse("f", "FETCH ALL FROM c"), sync_), "C:DECLARE CURSOR Z:T"},
		{nil, "1 Z:T"},
		{messages(q("CLOSE c"), q("DECLARE c CURSOR FOR SELECT ssn, name FROM people WHERE id = 1")), "C:CLOSE CURSOR Z:T"},
		{messages(&pgproto3.Bind{PreparedStatement: "f", ResultFormatCodes: []int16{1}}, execute("", 0), sync_), "C:DECLARE CURSOR Z:T"},
		{nil, "2 D:masked|ann C:FETCH 1 Z:T"},
	}},
	{"more parameters than can be bound", []step{
		{messages(parse("", parameters(65536)), sync_), "1 Z:I"},
	}},
	{"empty statements", []step{
		{messages(q("")), "I Z:I"},
		{messages(parse("", ""), bind("", ""), describeP(""), execute("", 0), sync_), "1 2 n I Z:I"},
	}},
	{"DISCARD ALL forgets", []step{
		{messages(parse("s", "SELECT 1"), sync_), "1 Z:I"},
		{messages(q("DISCARD ALL")), "C:DISCARD ALL Z:I"},
		{messages(bind("", "s"), sync_), "E:26000 Z:I"},
		{messages(parse("s", "SELECT 2"), bind("", "s"), execute("", 0), sync_), "1 2 D:2 C:SELECT 1 Z:I"},
	}},
}

// parameters is a statement with that many.
func parameters(n int) string {
	var b strings.Builder
	b.WriteString("VALUES ($1::text)")
	for i := 2; i <= n; i++ {
		fmt.Fprintf(&b, ",($%d::text)", i)
	}
	return b.String()
}

func TestConversations(t *testing.T) {
	for _, tt := range conversations {
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

// The same conversations without masks or denials must be those that the
// server itself has: the proxy adds nothing and loses nothing.
func TestConversationsAreTheServers(t *testing.T) {
	plain := []string{
		"a Query in a failed batch is skipped, as the server does", "an error at Sync is the client's",
		"a FETCH that is prepared before its cursor", "more parameters than can be bound", "empty statements", "DISCARD ALL forgets", "a Flush is enough to be answered",
	}
	for _, tt := range conversations {
		for _, name := range plain {
			if tt.name != name {
				continue
			}
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				c := directClient(t)
				for _, s := range tt.steps {
					c.send(s.send...)
					c.want(tt.name, s.want)
				}
			})
		}
	}
}

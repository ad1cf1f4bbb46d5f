package postgres

import (
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/event"
)

// A refusal raised when rows are about to be shown: the client gets an error
// in their place, and what it is told of the transaction is true.
func TestWithheldRows(t *testing.T) {
	const many = "SELECT id, repeat('x', 1000) FROM generate_series(1, 100000) id"
	for _, tt := range []struct {
		name  string
		steps []step
		rows  string // in table w afterwards
	}{
		{"simple", []step{
			{messages(q("SELECT 1")), "E:0A000 Z:I"},
			{messages(q("CREATE TABLE x ()")), "C:CREATE TABLE Z:I"},
		}, ""},
		{"simple, many rows are cancelled", []step{{messages(q(many)), "E:0A000 Z:I"}}, ""},
		{"simple, the statements behind it don't show either", []step{{messages(q(many + "; SELECT 2")), "E:0A000 Z:I"}}, ""},
		{"extended", []step{
			{messages(parse("", "SELECT 1"), bind("", ""), execute("", 0), sync_), "1 2 E:0A000 Z:I"},
			{messages(parse("", "CREATE TABLE x ()"), bind("", ""), execute("", 0), sync_), "1 2 C:CREATE TABLE Z:I"},
		}, ""},
		{"extended, the rest of the batch is skipped", []step{
			{messages(parse("", many), bind("", ""), execute("", 0), flush), "1 2 E:0A000"},
			{messages(parse("", "INSERT INTO w VALUES (1)"), bind("", ""), execute("", 0), sync_), "Z:I"},
			{messages(q("INSERT INTO w VALUES (2)")), "C:INSERT 0 1 Z:I"},
		}, "2"},
		{"in a transaction that failed with it", []step{
			{messages(q("BEGIN; INSERT INTO w VALUES (1)")), "C:BEGIN C:INSERT 0 1 Z:T"},
			{messages(q(many)), "E:0A000 Z:E"},
			{messages(q("COMMIT")), "C:ROLLBACK Z:I"},
		}, ""},
		{"in a transaction that didn't: the session ends", []step{
			{messages(q("BEGIN; INSERT INTO w VALUES (1)")), "C:BEGIN C:INSERT 0 1 Z:T"},
			{messages(q("SELECT 1")), "E:0A000 FATAL:0A000 end"},
		}, ""},
		{"copy out", []step{
			{messages(q("COPY (" + many + ") TO STDOUT")), "H E:0A000 Z:I"},
			{messages(q("CREATE TABLE x ()")), "C:CREATE TABLE Z:I"},
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, func(p *proxy) {
				p.session = func() *testSession {
					return &testSession{refuse: &Refusal{Reason: event.ReasonMaskUntraceable, SQLState: "0A000", Message: "can't be shown"}}
				}
				p.database = database(t)
				if err := realServer(t).Exec(testContext(t), p.database, "CREATE TABLE w (a int)"); err != nil {
					t.Fatal(err)
				}
			})
			c := p.raw()
			for _, s := range tt.steps {
				c.send(s.send...)
				if !strings.HasSuffix(s.want, "end") && !strings.Contains(s.want, "Z") {
					var got []string
					for len(got) < len(strings.Fields(s.want)) {
						m, err := c.fe.Receive()
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, describe(m))
					}
					if strings.Join(got, " ") != s.want {
						t.Errorf("got %s, want %s", got, s.want)
					}
					continue
				}
				c.want(tt.name, s.want)
			}
			if got := column(t, p.database, "SELECT a::text FROM w"); got != tt.rows {
				t.Errorf("table w holds %q, want %q", got, tt.rows)
			}
			if o := p.only().ended(); o[len(o)-1].Rows != 0 {
				t.Errorf("rows were shown: %+v", o)
			}
		})
	}
}

func TestFatalRefusalOfRows(t *testing.T) {
	p := newProxy(t, func(p *proxy) {
		p.session = func() *testSession {
			return &testSession{refuse: &Refusal{Reason: event.ReasonLimit, SQLState: "54000", Message: "enough", Fatal: true}}
		}
	})
	c := p.raw()
	c.send(q("SELECT 1"))
	c.want("a limit of the session", "FATAL:54000 end")
	if r := p.result(); r.Reason != event.ReasonLimit || r.Message != "enough" {
		t.Errorf("ended with %+v", r)
	}
	if o := p.only().ended(); len(o) != 1 || !o[0].Unfinished {
		t.Errorf("outcomes %+v", o)
	}
}

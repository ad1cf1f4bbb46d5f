package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

func TestFunctionCalls(t *testing.T) {
	binary := call(oidASCII, 1, "A")
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"text", []step{{messages(call(oidTrim, 0, "ann")), "V:ann Z:I"}}},
		{"binary", []step{{messages(binary), "V:\x00\x00\x00\x41 Z:I"}}},
		{"null", []step{{messages(call(oidTrim, 0, "\x00")), "V Z:I"}}},
		{"covered", []step{{messages(call(oidReverse, 0, "ann")), "V:masked Z:I"}}},
		{"refused", []step{
			{messages(call(oidLower, 0, "ANN")), "E:42501 Z:I"},
			{messages(call(oidTrim, 0, "ann")), "V:ann Z:I"},
		}},
		{"unknown", []step{{messages(call(1, 0, "ann")), "E:42883 Z:I"}}},
		{"the server's own error", []step{{messages(call(oidTrim, 0, "a", "b")), "E:08P01 Z:I"}}},
		{"refused in a transaction", []step{
			{messages(q("BEGIN")), "C:BEGIN Z:T"},
			{messages(call(oidTrim, 0, "ann")), "V:ann Z:T"},
			{messages(call(oidLower, 0, "ANN")), "E:42501 Z:E"},
			{messages(call(oidTrim, 0, "ann")), "E:25P02 Z:E"},
			{messages(q("ROLLBACK")), "C:ROLLBACK Z:I"},
		}},
		{"all at once, with others", []step{
			{messages(q("SELECT 1"), call(oidTrim, 0, "ann"), call(oidLower, 0, "x"), call(oidTrim, 0, "bob"), q("SELECT 2")), "T1 D:1 C:SELECT 1 Z:I"},
			{nil, "V:ann Z:I"},
			{nil, "E:42501 Z:I"},
			{nil, "V:bob Z:I"},
			{nil, "T1 D:2 C:SELECT 1 Z:I"},
		}},
		{"behind a failed batch it is skipped", []step{
			{messages(parse("", "SELECT nothing"), call(oidTrim, 0, "ann"), sync_), "E:42703 Z:I"},
			{messages(call(oidTrim, 0, "ann")), "V:ann Z:I"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newProxy(t, nil).raw()
			for _, s := range tt.steps {
				c.send(s.send...)
				c.want(tt.name, s.want)
			}
		})
	}
}

func TestFunctionCallIsRecordedAsOneRow(t *testing.T) {
	p := newProxy(t, nil)
	c := p.raw()
	c.send(call(oidTrim, 0, "ann"))
	c.want("called", "V:ann Z:I")
	c.send(&pgproto3.Terminate{})
	p.result()
	ends := p.only().ended()
	if len(ends) != 1 || ends[0].Rows != 1 || ends[0].Bytes != 12 || ends[0].SQLState != "" {
		t.Errorf("ended with %+v", ends)
	}
	if got := p.only().params; len(got) != 1 || got[0] != "25:ann" {
		t.Errorf("parameters %q", got)
	}
}

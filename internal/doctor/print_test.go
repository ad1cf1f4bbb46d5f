package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestWrite(t *testing.T) {
	results := []Result{
		{"kernel", OK, "Linux 6.18", "", "not shown"},
		{"target orders", Fail, "10.0.0.1:5432 reached", "no TLS:\n\x1b[31mred", "switch it on"},
		{"nats", Skip, "embedded", "", ""},
	}
	var out bytes.Buffer
	if err := Write(&out, results); err != nil {
		t.Fatal(err)
	}
	const wanted = `ok    kernel         Linux 6.18
fail  target orders  10.0.0.1:5432 reached; no TLS:
                     ` + "\uFFFD" + `[31mred
                     do: switch it on
skip  nats           embedded
`
	if out.String() != wanted {
		t.Errorf("got\n%s\nwant\n%s", out.String(), wanted)
	}
	if n := Failed(results); n != 1 {
		t.Errorf("%d failed", n)
	}
}

func TestWriteJSON(t *testing.T) {
	var out bytes.Buffer
	if err := WriteJSON(&out, []Result{ok("a <b>")}); err != nil {
		t.Fatal(err)
	}
	var got []map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got) != 1 {
		t.Fatalf("%s: %v", out.String(), err)
	}
	for _, field := range []string{"check", "status", "found", "missing", "do"} {
		if _, there := got[0][field]; !there || len(got[0]) != 5 {
			t.Errorf("%s in %s", field, out.String())
		}
	}
}

// A check that nothing can end doesn't hold the others.
func TestDeadline(t *testing.T) {
	s := &subject{opts: Options{Timeout: time.Millisecond}}
	stuck := make(chan struct{})
	defer close(stuck)
	r := s.make(t.Context(), check{"stuck", func(context.Context, *subject) Result {
		<-stuck
		return ok("")
	}})
	want(t, r, Fail, "no answer within 1ms", "try again")
	r = s.make(t.Context(), check{"obeys", func(ctx context.Context, _ *subject) Result {
		<-ctx.Done()
		return fail("", brief(ctx.Err()), "")
	}})
	want(t, r, Fail, "deadline", "")
}

func TestInPortList(t *testing.T) {
	for _, test := range []struct {
		list string
		port int
		want bool
	}{
		{"", 1, false}, {"7", 7, true}, {"7", 8, false}, {"1-3,9", 2, true}, {"1-3,9", 9, true}, {"1-3,9", 4, false}, {"x-y,-", 0, false},
	} {
		if got := inPortList(test.list, test.port); got != test.want {
			t.Errorf("%d in %q: %v", test.port, test.list, got)
		}
	}
}

func TestEachListener(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0000000000000000 100 0 0 10 0
   1: 0100007F:3A99 0100007F:D2B4 01 00000000:00000000 00:00000000 00000000     0        0 1235 1 0000000000000000 20 4 30 10 -1
   2: 00000000000000000000000001000000:3A99 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1236 1 0 100 0 0 10 0
`
	var got []string
	if err := eachListener(strings.NewReader(table), func(address string, port int, inode string) {
		if port == 15001 {
			got = append(got, address+" "+inode)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, ", ") != "127.0.0.1 1234, ::1 1236" {
		t.Errorf("%q", got)
	}
}

func TestBrief(t *testing.T) {
	if text := brief(errors.New(strings.Repeat("x", 1000))); len(text) > 410 {
		t.Errorf("%d bytes", len(text))
	}
}

package event_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/pkg/event"
	"github.com/google/go-cmp/cmp"
)

var at = time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.UTC)

// samples holds one filled payload of every type of the catalogue.
func samples() []event.Data {
	principal := event.Principal{Subject: "planner-7", Issuer: "corp-idp", Groups: []string{"planners"}}
	workload := event.Workload{Name: "nightly", Job: "j-1", Kind: "run"}
	person := event.Principal{Subject: "ann", Issuer: "corp-idp", Groups: []string{"dba"}}
	process := event.Process{PID: 4711, UID: 1000, GID: 1000, Comm: "psql", Executable: "/usr/bin/psql"}
	return []event.Data{
		&event.SessionStarted{
			Session: "s-1", Principal: principal, Workload: workload,
			Target:  event.Target{Name: "orders-db", Protocol: "postgres", Host: "orders.db.prod", Address: "10.20.0.5:5432", Database: "orders"},
			Process: process, Credential: "chaperone_j1", RequestedUser: "app", Application: "psql", PolicyRevision: "4f6d2b1c9a7e0358", Record: "durable",
		},
		&event.SessionEnded{Session: "s-1", Reason: event.ReasonClientClosed, Commands: 2, Denied: 1, Rows: 3, BytesIn: 90, BytesOut: 400,
			Duration: 1500 * time.Millisecond, RootHash: strings.Repeat("ab", 32), Recording: 1},
		&event.SessionRefused{Reason: event.ReasonNoTarget, Message: "no target covers 10.0.0.9:5432", Workload: &workload, Process: &process, Destination: "10.0.0.9:5432"},
		&event.Command{Session: "s-1", Seq: 1, Text: "SELECT name FROM customers WHERE id < 3", Digest: strings.Repeat("0c", 32),
			Parsed:   event.Parsed{Kinds: []string{"SELECT"}, ReadOnly: true, Tables: []string{"customers"}},
			Decision: "allow", Policy: "orders", Rule: "read", Approvals: []string{"a-bcdefghijklmnopq"},
			Shadows: []event.Shadow{{Policy: "stricter", Rule: "ask", Action: "approve"}, {Policy: "strictest", Action: "deny"}}, PolicyRevision: "4f6d2b1c9a7e0358",
			Rows: 2, Bytes: 64, Tag: "SELECT 2", Duration: 1200 * time.Microsecond},
		&event.CredentialIssued{Grant: "g-1", Issuer: "postgresRole", Name: "chaperone_j1", Target: "orders-db", Job: "j-1", Expires: at.Add(15 * time.Minute)},
		&event.CredentialRevoked{Grant: "g-1", Issuer: "postgresRole", Name: "chaperone_j1", Target: "orders-db", Job: "j-1", Why: "job_ended", Verified: true},
		&event.MaskApplied{Session: "s-1", Seq: 1, Columns: []event.MaskColumn{{Column: "card", Rule: "people: public.customers.card_number", Count: 2}}},
		&event.Bypass{Process: process, Job: "j-1", SocketType: "udp", Destination: "10.20.0.5:5432", Hook: "cgroup_skb/egress", Count: 1},
		&event.PolicyLoaded{Revision: "r1", Documents: map[string]int{"Policy": 1, "Target": 1}},
		&event.PolicyRejected{Kept: "r1", Errors: []string{"policy.yaml:3: unknown field \"whn\""}},
		&event.ApprovalRequested{Request: "a-bcdefghijklmnopq", About: "command", Session: "s-1", Principal: principal, Workload: workload, Target: "orders-db",
			Text: "DELETE FROM orders WHERE id = $1", Parameters: []string{"7"}, Parsed: event.Parsed{Kinds: []string{"DELETE"}, Tables: []string{"orders"}},
			Digest: strings.Repeat("0c", 32), Policy: "orders", Rule: "deletes", Why: "deletions are looked at", Groups: []string{"dba"}, Subjects: []string{"eve@corp-idp"},
			Count: 2, Mode: "hold", Expires: at.Add(10 * time.Minute)},
		&event.ApprovalDecided{Request: "a-bcdefghijklmnopq", Session: "s-1", Outcome: "approved", Digest: strings.Repeat("0c", 32), Votes: []event.ApprovalVote{{
			By: person, Via: "page", Verdict: "approve", Reason: "ticket 12", Standing: 30 * time.Minute, At: at, Until: at.Add(10 * time.Minute),
			Key: "00112233aabbccdd", Signature: []byte("signature")}}},
		&event.ApprovalExpired{Request: "a-bcdefghijklmnopq", Session: "s-1", Outcome: "cancelled", Message: "the session has ended"},
		&event.ApprovalRejected{Request: "a-bcdefghijklmnopq", By: &person, Reason: "self", Message: "planner-7@corp-idp can't answer what is asked for them"},
		&event.LockApplied{Lock: "l-bcdefghijklmnopq", Principal: "planner-7@corp-idp", Workload: "nightly", Target: "orders-db", Session: "s-1", Reason: "incident 3",
			By: person, Expires: at.Add(time.Hour), Cut: 2, Revoked: 1},
		&event.LockEnded{Lock: "l-bcdefghijklmnopq", Reason: "released", By: &person},
		&event.NodeStarted{Version: "v0.1.0", Kernel: "6.18.0", RecordingKey: "MCowBQYDK2VwAyEA"},
		&event.NodeDegraded{Component: "journal", Message: "80 % full"},
	}
}

// The golden files are what subscribers see. A change of one is a change of
// the public format.
func TestGolden(t *testing.T) {
	seen := map[event.Type]bool{}
	for _, data := range samples() {
		kind := data.EventType()
		seen[kind] = true
		t.Run(string(kind), func(t *testing.T) {
			e, err := event.NewWithID("id-1", event.Origin{Cluster: "c1", Node: "n1", Target: "orders-db", Subject: "s-1", Revision: "4f6d2b1c9a7e0358"}, at, data)
			if err != nil {
				t.Fatal(err)
			}
			got := e.AppendJSON(nil)
			file := filepath.Join("testdata", string(kind)+".json")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
				t.Fatalf("not as in %s (-want +got):\n%s", file, diff)
			}
			back, err := event.Decode(want)
			if err != nil {
				t.Fatal(err)
			}
			payload, err := back.Payload()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(data, payload); diff != "" {
				t.Fatalf("payload changed on the way (-sent +read):\n%s", diff)
			}
		})
	}
	for _, kind := range event.Types() {
		if !seen[kind] {
			t.Errorf("no sample of %s", kind)
		}
	}
}

func TestCommandJSONIsWhatTheEncoderSays(t *testing.T) {
	texts := []string{
		"", "plain", "quote \" backslash \\ tab \t nl \n cr \r nul \x00 esc \x1b[2J del \x7f",
		"umlaut ä, emoji \U0001f600, separators \u2028\u2029, csi \u009b31m", "bad \xff\xfe utf-8 \xc3", "<b>&amp;</b>",
	}
	for _, text := range texts {
		c := event.Command{Session: text, Seq: 1 << 60, Text: text, Cut: true, Digest: text,
			Parsed:   event.Parsed{Kinds: []string{text, "x"}, DDL: true, Tables: []string{text}, Functions: []string{text}},
			Decision: text, Policy: text, Rule: text, Message: text, Rows: 1, Bytes: 2, Tag: text, SQLState: text, Error: text,
			Duration: -5, Unfinished: true, Skipped: true, Parameters: []string{text, "x"},
			Approvals: []string{text, "x"}, Shadows: []event.Shadow{{Policy: text, Rule: text, Action: text}, {Policy: "p", Action: "deny"}}, PolicyRevision: text}
		for _, c := range []event.Command{c, {Text: text}} {
			fast := c.AppendJSON(nil)
			slow, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			var a, b event.Command
			if err := json.Unmarshal(fast, &a); err != nil {
				t.Fatalf("%s: %v", fast, err)
			}
			if err := json.Unmarshal(slow, &b); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(b, a); diff != "" {
				t.Errorf("text %q (-encoding/json +AppendJSON):\n%s", text, diff)
			}
			if i := strings.IndexFunc(string(fast), func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }); i >= 0 {
				t.Errorf("text %q: control character left at %d of %q", text, i, fast)
			}
			joined, ok := event.JoinJSON(nil, c.AppendRequestJSON(nil), c.AppendOutcomeJSON(nil))
			if !ok || string(joined) != string(fast) {
				t.Errorf("joined %s, want %s", joined, fast)
			}
			var o, want event.Command
			if err := json.Unmarshal(c.AppendOutcomeJSON(nil), &o); err != nil {
				t.Fatal(err)
			}
			want.Session, want.Seq = b.Session, b.Seq
			want.SetOutcome(&b)
			if diff := cmp.Diff(want, o); diff != "" {
				t.Errorf("outcome of text %q:\n%s", text, diff)
			}
		}
	}
}

// What other types carry from a client is no danger to a terminal either.
func TestEventHoldsNoControlCharacter(t *testing.T) {
	const name = "psql\u009b31m\x7f\u0080\x1b[2J\u00a0é"
	e, err := event.NewWithID("id", event.Origin{Cluster: "c", Node: "n"}, at, &event.SessionStarted{Application: name})
	if err != nil {
		t.Fatal(err)
	}
	line := e.AppendJSON(nil)
	if i := strings.IndexFunc(string(line), func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }); i >= 0 {
		t.Errorf("control character at %d of %q", i, line)
	}
	back, err := event.Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	data, err := back.Payload()
	if err != nil {
		t.Fatal(err)
	}
	if got := data.(*event.SessionStarted).Application; got != name {
		t.Errorf("read back %q, want %q", got, name)
	}
}

func TestSubject(t *testing.T) {
	for _, c := range []struct {
		origin event.Origin
		kind   event.Type
		want   string
	}{
		{event.Origin{Cluster: "c", Node: "n", Target: "db"}, event.TypeCommand, "chaperone.event.c.n.db.command"},
		{event.Origin{Cluster: "c", Node: "n"}, event.TypeNodeStarted, "chaperone.event.c.n._.node.started"},
		{event.Origin{Cluster: "a.b", Node: "n > *", Target: "x\ty"}, event.TypeBypass, "chaperone.event.a_b.n____.x_y.enforcement.bypass"},
	} {
		if got := event.Subject(c.origin, c.kind); got != c.want {
			t.Errorf("%+v: %s, want %s", c.origin, got, c.want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := `{"specversion":"1.0","id":"1","source":"/c/n","type":"dev.chaperone.command.v1","time":"2026-03-01T00:00:00Z","datacontenttype":"application/json","data":{}}`
	if _, err := event.Decode([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][2]string{
		"version": {`"1.0"`, `"0.3"`}, "id": {`"id":"1"`, `"id":""`}, "source": {"/c/n", ""}, "prefix": {"dev.chaperone", "com.example"},
		"suffix": {".v1", ".v2"}, "content type": {"application/json", "text/xml"}, "data": {`,"data":{}`, ""}, "time": {`"time":"2026-03-01T00:00:00Z",`, ""},
		"not JSON": {"{", ""}, "size": {`"id":"1"`, `"id":"` + strings.Repeat("x", event.MaxSize) + `"`},
	} {
		_, err := event.Decode([]byte(strings.Replace(good, edit[0], edit[1], 1)))
		if !errors.Is(err, event.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	e, err := event.Decode([]byte(strings.Replace(good, "command", "from.the.future", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Payload(); !errors.Is(err, event.ErrUnknownType) {
		t.Errorf("a type of a later version: %v, want ErrUnknownType", err)
	}
}

// Every field that is published is listed in testdata/fields.txt as public or
// internal (it names people, machines or data of the operator). A new field
// fails here until somebody has decided; a secret has no class at all.
func TestEveryFieldIsClassified(t *testing.T) {
	classes := map[string]string{}
	f, err := os.Open("testdata/fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if line := strings.TrimSpace(in.Text()); line != "" && line[0] != '#' {
			class, name, ok := strings.Cut(line, " ")
			if !ok || class != "public" && class != "internal" {
				t.Fatalf("fields.txt: %q", line)
			}
			classes[name] = class
		}
	}
	secret := regexp.MustCompile(`(?i)password|secret|token|private|seed|passwd|apikey|\bkey`)
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() == reflect.Struct && typ != reflect.TypeFor[time.Time]() {
			for f := range typ.Fields() {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if name == "" {
					t.Errorf("%s.%s has no JSON name", path, f.Name)
				}
				walk(path+"."+name, f.Type)
			}
			return
		}
		if classes[path] == "" {
			t.Errorf("%s is not classified in testdata/fields.txt", path)
		}
		delete(classes, path)
		if leaf := path[strings.LastIndex(path, ".")+1:]; secret.MatchString(leaf) {
			t.Errorf("%s is named like a secret", path)
		}
	}
	for _, data := range samples() {
		walk(string(data.EventType()), reflect.TypeOf(data))
	}
	for name := range classes {
		t.Errorf("fields.txt lists %s, which no type has", name)
	}
}

func FuzzDecode(f *testing.F) {
	for _, data := range samples() {
		e, err := event.NewWithID("id", event.Origin{Cluster: "c", Node: "n"}, at, data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(e.AppendJSON(nil))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		e, err := event.Decode(msg)
		if err != nil {
			if !errors.Is(err, event.ErrInvalid) {
				t.Fatalf("error is no ErrInvalid: %v", err)
			}
			return
		}
		if y := e.Time.Year(); y < 0 || y > 9999 {
			return
		}
		again, err := event.Decode(e.AppendJSON(nil))
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		if again.ID != e.ID || again.Type != e.Type || again.Source != e.Source {
			t.Fatalf("changed: %+v, %+v", e, again)
		}
		_, _ = e.Payload()
	})
}

func BenchmarkCommandJSON(b *testing.B) {
	c := *samples()[3].(*event.Command)
	c.Approvals, c.Shadows = nil, nil // as nearly all are
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = c.AppendJSON(buf[:0])
	}
}

// The publisher finds the revision without reading the payload.
func TestRevisionOf(t *testing.T) {
	const revision = "4f6d2b1c9a7e0358"
	decoy := `x","policyRevision":"decoy"} \",\"policyRevision\":\"decoy`
	c := event.Command{Text: decoy, Message: decoy, Error: decoy, Parameters: []string{decoy}, PolicyRevision: revision}
	none := c
	none.PolicyRevision = ""
	started, err := json.Marshal(event.SessionStarted{Application: decoy, PolicyRevision: revision, Record: decoy})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		payload []byte
		want    string
	}{
		"request":         {c.AppendRequestJSON(nil), revision},
		"whole command":   {c.AppendJSON(nil), revision},
		"outcome":         {c.AppendOutcomeJSON(nil), ""},
		"session started": {started, revision},
		"none":            {none.AppendJSON(nil), ""},
		"of before":       {[]byte(`{"session":"s-1","seq":1,"message":"no"}`), ""},
		"cut":             {[]byte(`{"session":"s-1","policyRevision":"4f6d`), ""},
		"escaped":         {[]byte(`{"session":"s-1","policyRevision":"4f\"6d"}`), ""},
		"empty":           {nil, ""},
	} {
		if got := string(event.RevisionOf(test.payload)); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

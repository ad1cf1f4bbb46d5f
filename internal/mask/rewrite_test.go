package mask

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

func detectAll(t testing.TB) *Rules {
	t.Helper()
	r, err := Compile([]policy.Mask{{
		Metadata: policy.Metadata{Name: "content"},
		Spec:     policy.MaskSpec{Targets: []string{"*"}, Detect: Detectors()},
	}}, "db", policy.Principal{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func detectingRewriter(t testing.TB, fields ...Field) *Rewriter {
	t.Helper()
	q, err := pgsql.NewParser(pgsql.Options{}).Parse("SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	p, err := detectAll(t).Plan(q.Statements[0], nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.Rewriter(fields)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestTransforms(t *testing.T) {
	redact, code := policy.Transform{Redact: true}, policy.Transform{HMAC: "k"}
	tests := []struct {
		oid    uint32
		format int16
		with   policy.Transform
		in     string
		want   string // ∅: NULL
	}{
		{25, 0, redact, "secret", "[redacted]"},
		{25, 1, redact, "", "[redacted]"},
		{1043, 1, redact, "secret", "[redacted]"},
		{114, 0, redact, "{}", `"[redacted]"`},
		{3802, 0, redact, "{}", `"[redacted]"`},
		{3802, 1, redact, "\x01{}", "\x01\"[redacted]\""},
		{23, 0, redact, "42", "∅"},
		{23, 1, redact, "\x00\x00\x00\x2a", "∅"},
		{17, 0, redact, `\x00`, `\x5b72656461637465645d`},
		{17, 1, redact, "\x00", "[redacted]"},
		{1009, 0, redact, "{a}", `{"[redacted]"}`},
		{99999, 0, redact, "enum", "∅"},
		{25, 0, policy.Transform{Null: true}, "secret", "∅"},
		{25, 0, policy.Transform{KeepLast: 4}, "4111111111111111", "************1111"},
		{25, 0, policy.Transform{KeepFirst: 2}, "Müller", "Mü****"},
		{25, 0, policy.Transform{KeepLast: 2}, "日本語", "*本語"},
		{25, 0, policy.Transform{KeepLast: 4}, "1234", "****"},
		{25, 0, policy.Transform{KeepLast: 4}, "12", "**"},
		{25, 0, policy.Transform{KeepFirst: 4}, "", ""},
		{1042, 0, policy.Transform{KeepLast: 2}, "abcd    ", "**cd"},
		{25, 0, policy.Transform{KeepLast: 1}, "\xff\xfe", "*\xfe"},
		{1700, 0, policy.Transform{KeepLast: 4}, "4111111111111111", "∅"},
		{114, 0, policy.Transform{KeepLast: 4}, `"abcdef"`, `"[redacted]"`},
		{25, 0, code, "a@b.example", "9dd1ca82eb28ff2a744a45ef8fe5ca1b"},
		{1043, 1, code, "a@b.example", "9dd1ca82eb28ff2a744a45ef8fe5ca1b"},
		{1042, 0, code, "a@b.example   ", "9dd1ca82eb28ff2a744a45ef8fe5ca1b"},
		{25, 0, code, "A@b.example", "34c6b3334eadb2ebedb7c7fe6c5d477f"},
		{25, 0, code, "", "7ee8e018322d27ec6566270a1a35d1e1"},
		{114, 0, code, `"a"`, `"[redacted]"`},
		{3802, 1, code, "\x01{}", "\x01\"[redacted]\""},
		{23, 0, code, "forty-two", "∅"},
		{700, 0, code, "42", "∅"},
	}
	for _, tt := range tests {
		out, ok := newCovering(tt.with, Keys{"k": []byte("a key of 16 bytes")}, tt.oid, tt.format).appendValue([]byte("before"), []byte(tt.in))
		got, whole := strings.CutPrefix(string(out), "before")
		if !ok && got == "" {
			got = "∅"
		}
		if got != tt.want || !whole {
			t.Errorf("type %d format %d %+v %q: %q, want %q", tt.oid, tt.format, tt.with, tt.in, got, tt.want)
		}
	}
}

const (
	card  = "4111 1111 1111 1111"
	pem   = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"
	token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP"
)

func TestDetectorsInRows(t *testing.T) {
	tests := []struct {
		oid      uint32
		format   int16
		in, want string
	}{
		{25, 0, "pay " + card + " now", "pay [payment-card] now"},
		{25, 1, "mail a.b+c@x.example.org.", "mail [email]."},
		{25, 0, "x" + pem + "y", "x[private-key]y"},
		{25, 0, "Bearer " + token, "Bearer [jwt]"},
		{25, 0, "id AKIAIOSFODNN7EXAMPLE, mail a@b.co, " + card, "id [cloud-key], mail [email], [payment-card]"},
		{114, 0, `{"n": 4111111111111111, "s": "a 4111111111111111,"}`, `{"n": "[payment-card]", "s": "a [payment-card],"}`},
		{3802, 1, "\x01" + `{"m\"": "a@b.co"}`, "\x01" + `{"m\"": "[email]"}`},
		{3802, 1, "", ""},
		{20, 0, "4111111111111111", "∅"},
		{20, 1, string(binary.BigEndian.AppendUint64(nil, 4111111111111111)), "∅"},
		{20, 1, string(binary.BigEndian.AppendUint64(nil, 4111111111111112)), string(binary.BigEndian.AppendUint64(nil, 4111111111111112))},
		{1700, 0, "4111111111111111", "∅"},
		{1700, 1, "\x00\x04\x00\x03\x00\x00\x00\x00\x10\x0f\x04\x57\x04\x57\x04\x57", "∅"}, // 4111 1111 1111 1111
		{1700, 1, "\x00\x04\x00\x03\x00\x00\x00\x00\x10\x0f", "\x00\x04\x00\x03\x00\x00\x00\x00\x10\x0f"},
		{17, 0, `\x` + fmt.Sprintf("%x", pem), "∅"},
		{17, 1, pem, "∅"},
		{1009, 0, "{a@b.co}", `{"[email]"}`},
		{1009, 0, `{x,"-----BEGIN PRIVATE KEY-----",MIIE,"-----END PRIVATE KEY-----"}`, "∅"},
		{1016, 0, "{1,4111111111111111}", `{"1",NULL}`},
		{1000, 0, "{t,f}", "{t,f}"},
		{142, 0, "<a>a@b.co</a>", "<a>[email]</a>"},
		{1009, 0, `{x,"a b@c.de\"",NULL,{}`, "∅"}, // no array
		{1009, 0, `{x,"a b@c.de\"",NULL}`, `{"x","a [email]\"",NULL}`},
		{99999, 0, "a@b.co", "∅"},
		{1114, 0, "2020-01-01 00:00:00", "2020-01-01 00:00:00"},
		{2950, 0, "41111111-1111-1111-0000-000000000000", "41111111-1111-1111-0000-000000000000"},
	}
	for _, tt := range tests {
		w := detectingRewriter(t, Field{Name: "c", Type: tt.oid, Format: tt.format})
		in := dataRow([][]byte{[]byte(tt.in)})
		out, err := w.Row(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := readRow(t, out)[0]; got != tt.want {
			t.Errorf("type %d format %d %q: %q, want %q", tt.oid, tt.format, tt.in, got, tt.want)
		}
		if changed := tt.in != tt.want; changed != (len(w.Applied()) > 0) || !changed && &out[0] != &in[0] {
			t.Errorf("%q: applied %v", tt.in, w.Applied())
		}
	}
}

func TestRowKeepsTheOthersAndCounts(t *testing.T) {
	text := Field{Name: "t", Type: 25}
	number := Field{Name: "n", Type: 23}
	w := detectingRewriter(t, text, number, text, text)
	row := dataRow([][]byte{[]byte("a@b.co and c@d.eu"), []byte("1"), nil, []byte(card)})
	before := bytes.Clone(row)
	for range 2 {
		out, err := w.Row(row)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := readRow(t, out), []string{"[email] and [email]", "1", "∅", "[payment-card]"}; !cmp.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !bytes.Equal(row, before) {
		t.Error("the row that came in was changed")
	}
	want := []event.MaskColumn{{Column: "t", Rule: "content: detect email", Count: 4}, {Column: "t", Rule: "content: detect payment-card", Count: 2}}
	if d := cmp.Diff(want, w.Applied()); d != "" {
		t.Error(d)
	}
	wide := dataRow([][]byte{[]byte("a@b.co" + strings.Repeat(" ", 1<<20)), nil, nil, nil})
	if _, err := w.Row(wide); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Row(row); err != nil || cap(w.buf) > keepBuffer {
		t.Errorf("a buffer of %d bytes outlived its row (%v)", cap(w.buf), err)
	}
	if !detectingRewriter(t, number).Idle() || detectingRewriter(t, text).Idle() {
		t.Error("Idle")
	}
}

func TestMalformedRows(t *testing.T) {
	good := dataRow([][]byte{[]byte("a@b.co"), []byte("x")})
	for name, row := range map[string][]byte{
		"empty": {}, "one byte": {0}, "other count": {0, 1}, "cut length": good[:4], "cut value": good[:8], "cut second": good[:13],
		"tail": append(bytes.Clone(good), 0), "negative": {0, 2, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0}, "giant": {0, 2, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"negative count": {0xff, 0xff},
	} {
		w := detectingRewriter(t, Field{Type: 25}, Field{Type: 25})
		if out, err := w.Row(row); !errors.Is(err, ErrMalformedRow) || out != nil {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
}

func TestCopyLines(t *testing.T) {
	r := detectAll(t)
	parser := pgsql.NewParser(pgsql.Options{})
	for sql, ok := range map[string]bool{
		"COPY t TO STDOUT": true, "COPY t TO STDOUT (FORMAT csv, HEADER)": true, "COPY t TO STDOUT (FORMAT text)": true,
		"COPY t TO STDOUT (FORMAT binary)": false, "COPY t TO STDOUT BINARY": false, "COPY BINARY t TO STDOUT": false,
	} {
		q, err := parser.Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		p, err := r.Plan(q.Statements[0], nil, nil)
		var w *CopyRewriter
		if err == nil {
			w, err = p.CopyRewriter(!ok)
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v", sql, err)
		}
		if err != nil {
			continue
		}
		if got, err := w.Data([]byte("1\ta@b.co\t" + card + "\n")); err != nil || string(got) != "1\t[email]\t[payment-card]\n" {
			t.Errorf("%s: %q, %v", sql, got, err)
		}
		if n := len(w.Applied()); n != 2 {
			t.Errorf("%s: applied %v", sql, w.Applied())
		}
	}
}

func FuzzRow(f *testing.F) {
	f.Add(dataRow([][]byte{[]byte("a@b.co"), []byte("\x01{\"a\": 4111111111111111}"), []byte("x"), nil}))
	f.Add(dataRow([][]byte{[]byte(pem), []byte("\x01\"\\\""), []byte("日本"), []byte("\x00\x04\x00\x03\x00\x00\x00\x00\x10\x0f\x04\x57\x04\x57\x04\x57")}))
	f.Add([]byte{0, 4, 0xff})
	f.Fuzz(func(t *testing.T, row []byte) {
		w := detectingRewriter(t, Field{Name: "a", Type: 25}, Field{Name: "b", Type: 3802, Format: 1}, Field{Name: "c", Type: 25}, Field{Name: "d", Type: 1700, Format: 1})
		w.fields[2].covering = newCovering(policy.Transform{KeepLast: 2}, nil, 25, 0)
		before := bytes.Clone(row)
		out, err := w.Row(row)
		if !bytes.Equal(row, before) {
			t.Fatal("the row that came in was changed")
		}
		if err != nil {
			return
		}
		got, in := readRow(t, out), readRow(t, row)
		if len(got) != 4 {
			t.Fatalf("%d columns", len(got))
		}
		for i := range got {
			if (in[i] == "∅") != (got[i] == "∅") && i != 3 && in[i] != "∅" && got[i] != "∅" {
				t.Errorf("column %d: NULL changed", i)
			}
		}
		// What came out has nothing to find in it any more.
		again := detectingRewriter(t, Field{Type: 25}, Field{Type: 3802, Format: 1}, Field{Type: 16}, Field{Type: 1700, Format: 1})
		twice, err := again.Row(bytes.Clone(out))
		if err != nil || !bytes.Equal(twice, out) {
			t.Errorf("%q became %q when covered again (%v)", out, twice, err)
		}
	})
}

// Rows of one execution and of another show the same code for the same value,
// and another key gives others.
func TestCodesInRows(t *testing.T) {
	show := func(key string, values ...string) (shown []string) {
		t.Helper()
		rules, err := Keys{"k": []byte(key)}.Compile(maskDoc(policy.MaskSpec{
			Targets: []string{"*"}, Columns: []policy.ColumnMask{{Match: "*.*.email", With: policy.Transform{HMAC: "k"}}},
		}), "db", policy.Principal{})
		if err != nil {
			t.Fatal(err)
		}
		with := &cover{with: policy.Transform{HMAC: "k"}, label: "m"}
		p := &Plan{rules: rules, columns: []planColumn{{name: "a", cover: with}, {name: "b", cover: with}}}
		w, err := p.Rewriter([]Field{{Name: "a", Type: 25}, {Name: "b", Type: 1043, Format: 1}})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			row, err := w.Row(dataRow([][]byte{[]byte(v), nil}))
			if err != nil {
				t.Fatal(err)
			}
			got := readRow(t, row)
			if got[1] != "∅" {
				t.Errorf("NULL became %q", got[1])
			}
			if strings.Contains(got[0], v) || len(got[0]) != 32 {
				t.Errorf("%q is shown as %q", v, got[0])
			}
			shown = append(shown, got[0])
		}
		return shown
	}
	const key = "a key of 16 bytes"
	first, again := show(key, "a@b.example", "c@d.example", "a@b.example"), show(key, "a@b.example")
	if first[0] != first[2] || first[0] != again[0] || first[0] == first[1] {
		t.Errorf("the codes are %q, then %q", first, again)
	}
	if other := show("another key of 16 bytes", "a@b.example"); other[0] == first[0] {
		t.Error("another key gives the same code")
	}
}

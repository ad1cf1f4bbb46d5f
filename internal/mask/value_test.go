package mask

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
)

func covered(t testing.TB, with policy.Transform, oid uint32, in string) string {
	t.Helper()
	out, ok := newCovering(with, coverKeys, oid, 0).appendValue(nil, []byte(in))
	if !ok {
		return "∅"
	}
	return string(out)
}

func TestFixedAndTruncated(t *testing.T) {
	for _, tt := range []struct {
		oid      uint32
		with     policy.Transform
		in, want string
	}{
		{1082, policy.Transform{Truncate: "year"}, "1987-06-05", "1987-01-01"},
		{1082, policy.Transform{Truncate: "month"}, "1987-06-05", "1987-06-01"},
		{1082, policy.Transform{Truncate: "year"}, "0044-03-15 BC", "0044-01-01 BC"},
		{1114, policy.Transform{Truncate: "year"}, "1999-12-31 23:59:59.5", "1999-01-01 00:00:00"},
		{1184, policy.Transform{Truncate: "year"}, "2000-01-01 00:30:00+01", "1999-01-01 00:00:00+00"},
		{1184, policy.Transform{Truncate: "month"}, "2000-01-01 00:30:00-03:30", "2000-01-01 00:00:00+00"},
		{1082, policy.Transform{Truncate: "year"}, "infinity", "∅"},
		{1082, policy.Transform{Truncate: "year"}, "05.06.1987", "∅"}, // another DateStyle
		{1082, policy.Transform{Truncate: "year"}, "1987-02-30", "∅"},
		{25, policy.Transform{Truncate: "year"}, "1987-06-05", "[redacted]"},
		{23, policy.Transform{Truncate: "year"}, "1987", "∅"},
		{25, policy.Transform{Fixed: "n/a"}, "x", "n/a"},
		{3802, policy.Transform{Fixed: "n/a"}, "{}", `"n/a"`},
		{3802, policy.Transform{Fixed: `{"a": 1}`}, "{}", `{"a": 1}`},
		{142, policy.Transform{Fixed: "a<b"}, "<x/>", "a&lt;b"},
		{23, policy.Transform{Fixed: "n/a"}, "1", "∅"},
		{21, policy.Transform{Fixed: "70000"}, "1", "∅"},
		{701, policy.Transform{Fixed: "0x10"}, "1", "∅"},
		{1114, policy.Transform{Fixed: "2000-01-01"}, "1987-06-05 10:00:00", "2000-01-01 00:00:00"},
		{1114, policy.Transform{Fixed: "2000-01-01T12:30:00"}, "1987-06-05 10:00:00", "2000-01-01 12:30:00"},
		{1184, policy.Transform{Fixed: "2000-01-01 12:00:00+02"}, "1987-06-05 10:00:00+00", "2000-01-01 10:00:00+00"},
		{650, policy.Transform{Fixed: "10.1.2.3/8"}, "10.0.0.0/8", "∅"}, // bits behind the mask
		{869, policy.Transform{Fixed: "10.1.2.3/8"}, "10.0.0.1", "10.1.2.3/8"},
		{1007, policy.Transform{Fixed: "0"}, "[0:1]={1,NULL}", `[0:1]={"0",NULL}`},
		{1009, policy.Transform{KeepLast: 2}, `{{abc,"d\"e f"},{NULL,""}}`, `{{"*bc","*** f"},{NULL,""}}`},
	} {
		if got := covered(t, tt.with, tt.oid, tt.in); got != tt.want {
			t.Errorf("type %d %+v %q: %q, want %q", tt.oid, tt.with, tt.in, got, tt.want)
		}
	}
}

// Digits stay digits, letters letters; the number of them, the sign, the scale
// and the rest stay; another value becomes another; the same the same.
func TestFormatPreserved(t *testing.T) {
	shape := func(s string) string {
		out := []byte(s)
		for i, c := range out {
			switch base, _ := class(c); base {
			case 0:
			default:
				out[i] = base
			}
		}
		return string(out)
	}
	with := policy.Transform{FormatPreserving: "k"}
	for _, tt := range []struct {
		oid uint32
		in  string
	}{
		{25, "+49 (731) 123-4567"}, {25, "AB-1234-xy"}, {1042, "Ab1  "}, {25, "4111 1111 1111 1111"}, {25, "7"}, {25, "--"},
		{23, "12345678"}, {23, "-70000"}, {21, "-32768"}, {20, "9223372036854775807"}, {1700, "1234.50"}, {1700, "-0.05"}, {1700, "98765432109876543210987654321"}, {790, "$1,234.56"},
		{1082, "1987-06-05"}, {1114, "1987-06-05 10:22:31"}, {1114, "1987-06-05 00:00:00"}, {1083, "10:22:31"},
	} {
		got := covered(t, with, tt.oid, tt.in)
		if shape(got) != shape(tt.in) {
			t.Errorf("type %d: %q became %q", tt.oid, tt.in, got)
		}
		if got == tt.in && tt.in != "--" {
			t.Errorf("type %d: %q stays", tt.oid, tt.in)
		}
		if again := covered(t, with, tt.oid, tt.in); again != got {
			t.Errorf("type %d: %q became %q, then %q", tt.oid, tt.in, got, again)
		}
	}
	if got := covered(t, with, 25, "Zoë Müller 日"); shape(got) != "Aaa Aaaaaa a" {
		t.Errorf("letters beyond ASCII: %q", got)
	}
	if got := covered(t, with, 25, fmt.Sprintf("%0200d", 1)); got != redacted {
		t.Errorf("long text: %q", got)
	}
	if a, b := covered(t, with, 1114, "1987-06-05 00:00:00"), covered(t, with, 1114, "1987-06-05 10:22:31"); a[10:] != " 00:00:00" || b[10:] == " 00:00:00" {
		t.Errorf("midnight became %q, another time %q", a, b)
	}
}

// Permutations: each value of a set becomes another value of it, no two the same.
func TestPermutationsAreOneToOne(t *testing.T) {
	p := newPermutation([]byte("a key of 16 bytes"))
	check := func(name string, low, high int64, swap func(int64) int64) {
		t.Helper()
		seen := map[int64]bool{}
		same := 0
		for v := low; v <= high; v++ {
			w := swap(v)
			if w < low || w > high || seen[w] {
				t.Fatalf("%s: %d became %d", name, v, w)
			}
			if seen[w] = true; v == w {
				same++
			}
		}
		if same > 10 {
			t.Errorf("%s: %d values stay", name, same)
		}
	}
	check("a byte", 0, 255, func(v int64) int64 { return int64(p.bits(uint64(v), 4)) })
	for _, bounds := range [][2]int64{{0, 9}, {10, 99}, {100, 999}, {-9, -1}, {-99, -10}, {-999, -100}} {
		check("digits", bounds[0], bounds[1], p.sameDigits)
	}
	for _, swap := range []func(int64) int64{p.integer, p.sameDigits} {
		from := map[int64]int64{}
		for v := int64(math.MinInt16); v <= math.MaxInt16; v += 13 {
			w := swap(v)
			if other, again := from[w]; again || w != int64(int16(w)) {
				t.Fatalf("%d became %d, as did %d", v, w, other)
			}
			from[w] = v
		}
	}
	for _, v := range []int64{math.MinInt64, math.MaxInt64, math.MinInt32, math.MaxInt32, 1 << 40, -1 << 40} {
		if a, b := p.sameDigits(v), p.integer(v); len(strconv.FormatInt(a, 10)) != len(strconv.FormatInt(v, 10)) || v == int64(int32(v)) != (b == int64(int32(b))) {
			t.Errorf("%d became %d and %d", v, a, b)
		}
	}
	other := newPermutation([]byte("another key of 16 bytes"))
	if p.integer(42) == other.integer(42) && p.integer(43) == other.integer(43) {
		t.Error("another key gives the same numbers")
	}
	var seen []string
	for i := range 676 {
		s := []symbol{{byte(i / 26), 26}, {byte(i % 26), 26}}
		p.symbols(s)
		seen = append(seen, string([]byte{s[0].value, s[1].value}))
	}
	slices.Sort(seen)
	if n := len(slices.Compact(seen)); n != 676 {
		t.Errorf("676 pairs of letters became %d", n)
	}
}

// A value that is made from masked ones is told by nothing, not by being NULL
// and not by the length of an array.
func TestDerivedValuesTellNothing(t *testing.T) {
	p := &Plan{rules: &Rules{}, columns: []planColumn{
		{name: "a", cover: &cover{with: policy.Transform{Redact: true}, derived: true}}, {name: "b", cover: &cover{with: policy.Transform{Redact: true}, derived: true}},
		{name: "c", cover: &cover{with: policy.Transform{Redact: true}, derived: true}}, {name: "d", cover: &cover{with: policy.Transform{Redact: true}}},
	}}
	w, err := p.Rewriter([]Field{{Name: "a", Type: 25}, {Name: "b", Type: 1009}, {Name: "c", Type: 3802, Format: 1}, {Name: "d", Type: 25}})
	if err != nil {
		t.Fatal(err)
	}
	var first string
	for _, row := range [][][]byte{{[]byte("x"), []byte("{a,b}"), []byte("\x01{}"), nil}, {nil, []byte("{a}"), nil, nil}, {nil, nil, []byte("\x01[]"), nil}} {
		out, err := w.Row(dataRow(row))
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%q", readRow(t, out))
		if first == "" {
			first = got
		}
		if want := `["[redacted]" "∅" "\x01\"[redacted]\"" "∅"]`; got != want {
			t.Errorf("%q is shown as %s, want %s", row, got, want)
		}
	}
}

// Any bytes of any type: no panic, bounded, what comes in isn't changed, and
// nothing is read as a type that it isn't.
func FuzzCover(f *testing.F) {
	binaryArray := func(elem uint32, values ...string) []byte {
		out := binary.BigEndian.AppendUint32(nil, 1)
		out = binary.BigEndian.AppendUint32(out, 0)
		out = binary.BigEndian.AppendUint32(out, elem)
		out = binary.BigEndian.AppendUint32(out, uint32(len(values)))
		out = binary.BigEndian.AppendUint32(out, 1)
		for _, v := range values {
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(v))), v...)
		}
		return out
	}
	for _, s := range []struct {
		oid    uint32
		binary bool
		v      []byte
	}{
		{25, false, []byte("Zoë 4111")}, {1009, false, []byte(`[0:1]={{a,"b\"c"},{NULL,x}}`)}, {1009, true, binaryArray(25, "a", "")}, {1016, true, binaryArray(20, "\x00\x0e\x9b\x29\x6c\x1b\x95\x47")},
		{1700, true, []byte("\x00\x04\x00\x03\x00\x00\x00\x00\x10\x0f\x04\x57\x04\x57\x04\x57")}, {1700, false, []byte("-123.450")}, {1700, true, []byte("\x00\x01\xff\xf0\x40\x00\x00\x40\x00\x01")},
		{701, false, []byte("-1.5e-300")}, {700, true, []byte("\x7f\x7f\xff\xff")}, {790, false, []byte("-$1,234.56")}, {1082, false, []byte("0044-03-15 BC")}, {1184, false, []byte("294276-12-31 23:59:59.999999+15:59:59")},
		{1114, true, []byte("\x80\x00\x00\x00\x00\x00\x00\x00")}, {17, false, []byte(`\x00ff`)}, {17, false, []byte(`a\\b\001`)}, {2950, false, []byte("550e8400-e29b-41d4-a716-446655440000")}, {3802, true, []byte("\x01{}")}, {99999, false, []byte("x")},
	} {
		f.Add(s.oid, s.binary, s.v)
	}
	all := detectAll(f)
	f.Fuzz(func(t *testing.T, oid uint32, inBinary bool, v []byte) {
		format := int16(0)
		if inBinary {
			format = 1
		}
		before := string(v)
		for name, with := range transforms {
			out, ok := newCovering(with, coverKeys, oid, format).appendValue([]byte("before"), v)
			if string(out[:6]) != "before" || !ok && len(out) != 6 {
				t.Fatalf("%s: what was before is gone: %q, %v", name, out, ok)
			}
			if most := arrayGrowth*len(v) + 2*arraySlack; len(out) > most {
				t.Errorf("%s: %d bytes became %d", name, len(v), len(out))
			}
		}
		w := all.rewriter([]Field{{Type: oid, Format: format}}, []*cover{nil})
		if out, changed := w.value(0, v); changed && len(out) > arrayGrowth*len(v)+2*arraySlack {
			t.Errorf("%d bytes became %d", len(v), len(out))
		}
		if string(v) != before {
			t.Error("the value that came in was changed")
		}
	})
}

// Whichever two transforms meet, and in whichever order, one comes out, that of
// both if they are the same.
func TestStrongerIsTotal(t *testing.T) {
	for name, a := range transforms {
		if stronger(a, a) != a {
			t.Errorf("%s and itself: %+v", name, stronger(a, a))
		}
		for other, b := range transforms {
			got := stronger(a, b)
			if got != stronger(b, a) {
				t.Errorf("%s and %s depend on their order", name, other)
			}
			if got == (policy.Transform{}) || a != b && (got.HMAC+got.FormatPreserving+got.Fixed != "") {
				t.Errorf("%s and %s: %+v", name, other, got)
			}
			for third, c := range transforms {
				if stronger(stronger(a, b), c) != stronger(a, stronger(b, c)) {
					t.Errorf("%s, %s and %s depend on their order", name, other, third)
				}
			}
		}
	}
	if got := stronger(policy.Transform{Truncate: "month"}, policy.Transform{Truncate: "year"}); got.Truncate != "year" {
		t.Errorf("month and year: %+v", got)
	}
}

func TestCompileChecksTransforms(t *testing.T) {
	compile := func(keys Keys, with policy.Transform) error {
		_, err := keys.Compile(maskDoc(policy.MaskSpec{Targets: []string{"*"}, Columns: []policy.ColumnMask{{Match: "*.*.c", With: with}}}), "db", policy.Principal{})
		return err
	}
	for name, with := range transforms {
		if err := compile(coverKeys, with); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, with := range map[string]policy.Transform{
		"no key": {FormatPreserving: "other"}, "a decade": {Truncate: "decade"}, "two": {Fixed: "x", Truncate: "year"}, "two keys": {HMAC: "k", FormatPreserving: "k"},
	} {
		if compile(coverKeys, with) == nil {
			t.Errorf("%s: compiled", name)
		}
	}
	docs := maskDoc(policy.MaskSpec{Targets: []string{"*"}, Columns: []policy.ColumnMask{{Match: "*.*.c", With: policy.Transform{FormatPreserving: "k"}}}})
	if got := KeyNames(docs, "db", policy.Principal{}); !slices.Equal(got, []string{"k"}) {
		t.Errorf("the keys are %q", got)
	}
}

package mask

import (
	"math/rand/v2"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

// BenchmarkDetectClean is the cost of looking at text in which nothing is.
func BenchmarkDetectClean(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the quick brown fox jumps over a lazy dog and runs along its river bank")
	numbers := strings.Fields("17 2024-05-03 10:22:31.123456 4711.25 -3 900000000001 A0049-731-1234")
	text := func(n int, lists ...[]string) []byte {
		var s strings.Builder
		for s.Len() < n {
			list := lists[r.IntN(len(lists))]
			s.WriteString(list[r.IntN(len(list))])
			s.WriteByte(' ')
		}
		return []byte(s.String()[:n])
	}
	b.Run("words", func(b *testing.B) { benchDetect(b, text(1000, words)) })
	b.Run("words and numbers", func(b *testing.B) { benchDetect(b, text(1000, words, numbers)) })
	b.Run("numbers", func(b *testing.B) { benchDetect(b, text(1000, numbers)) })
	b.Run("short", func(b *testing.B) { benchDetect(b, []byte("Schmidt Ulm")) })
	hundred := text(100, words, numbers)
	b.Run("100 bytes", func(b *testing.B) { benchDetect(b, hundred) })
	b.Run("100 bytes, five detectors", func(b *testing.B) {
		benchDetect(b, hundred, "payment-card", "email", "private-key", "jwt", "cloud-key")
	})
	b.Run("hex", func(b *testing.B) { benchDetect(b, []byte(strings.Repeat("9f86d081884c7d65", 60))) })
}

func benchDetect(b *testing.B, text []byte, detectors ...string) {
	rules := detectAll(b)
	if len(detectors) > 0 {
		var err error
		if rules, err = Compile(maskDoc(policy.MaskSpec{Targets: []string{"*"}, Detect: detectors}), "db", policy.Principal{}); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if out := rules.Bytes(text); &out[0] != &text[0] {
			b.Fatal("something was found")
		}
	}
}

// BenchmarkRow is a DataRow of pgbench_accounts: two integers and char(84).
func BenchmarkRow(b *testing.B) {
	fields := []Field{{Type: 23}, {Type: 23}, {Type: 23}, {Type: 1042}}
	row := dataRow([][]byte{[]byte("123456"), []byte("1"), []byte("0"), []byte(strings.Repeat(" ", 84))})
	run := func(b *testing.B, w *Rewriter) {
		b.SetBytes(int64(len(row)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := w.Row(row); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("detect", func(b *testing.B) { run(b, detectingRewriter(b, fields...)) })
	b.Run("mask", func(b *testing.B) {
		w := detectingRewriter(b, fields...)
		w.fields[3].covering = newCovering(policy.Transform{Redact: true}, nil, 1042, 0)
		run(b, w)
	})
}

// BenchmarkPlan is the cost of a statement that was planned before, and of one
// that wasn't.
func BenchmarkPlan(b *testing.B) {
	cat := &Catalog{byOID: map[uint32]*relation{}, byName: map[string][]*relation{}}
	cat.add(&relation{oid: 20000, schema: "public", name: "pgbench_accounts", kind: 'r', columns: []catalogColumn{{name: "aid", num: 1}, {name: "bid", num: 2}, {name: "abalance", num: 3}, {name: "filler", num: 4}}})
	rules, err := Compile([]policy.Mask{{Spec: policy.MaskSpec{Targets: []string{"*"},
		Columns: []policy.ColumnMask{{Match: "*.*.card*", With: policy.Transform{Redact: true}}}}}}, "db", policy.Principal{})
	if err != nil {
		b.Fatal(err)
	}
	q, err := pgsql.NewParser(pgsql.Options{}).Parse("SELECT abalance FROM pgbench_accounts WHERE aid = 12345")
	if err != nil {
		b.Fatal(err)
	}
	path := []string{"public"}
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := rules.Plan(q.Statements[0], cat, path); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := rules.trace(q.Statements[0], cat, path, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("rewriter", func(b *testing.B) {
		p, err := rules.Plan(q.Statements[0], cat, path)
		if err != nil {
			b.Fatal(err)
		}
		fields := []Field{{Name: "abalance", Table: 20000, Column: 3, Type: 23}}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Rewriter(fields); err != nil {
				b.Fatal(err)
			}
		}
	})
}

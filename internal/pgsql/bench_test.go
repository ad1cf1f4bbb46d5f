package pgsql

import (
	"fmt"
	"testing"
)

// BenchmarkParseShape is the statement of pgbench -S with an integer that was
// never seen before.
func BenchmarkParseShape(b *testing.B) {
	p := NewParser(Options{})
	texts := make([]string, 1024)
	for i := range texts {
		texts[i] = fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d;", i*7919)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := p.Parse(texts[i%len(texts)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseShapeOfStrings is what an ORM writes, with strings that were never
// seen before.
func BenchmarkParseShapeOfStrings(b *testing.B) {
	p := NewParser(Options{})
	texts := make([]string, 1024)
	for i := range texts {
		texts[i] = fmt.Sprintf(`SELECT "c"."id", "c"."name" FROM "customers" AS "c" WHERE "c"."email" = 'user%d@example.com' AND "c"."city" IN ('Ulm', 'Bonn %d') ORDER BY "c"."id" LIMIT 21`, i, i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := p.Parse(texts[i%len(texts)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseKnownText(b *testing.B) {
	p := NewParser(Options{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Parse("SELECT name FROM customers WHERE id = $1 AND city = 'Ulm'"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseNewText(b *testing.B) {
	p := NewParser(Options{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := p.Parse(fmt.Sprintf("SELECT name, count(*) AS n%d FROM customers c WHERE id = $1 AND city = 'Ulm'", i)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFacts(b *testing.B) {
	s := parseOne(b, NewParser(Options{}), "SELECT name FROM customers")
	b.ReportAllocs()
	for b.Loop() {
		if f := s.Facts("SELECT name FROM customers"); f.Kind == "" {
			b.Fatal("no kind")
		}
	}
}

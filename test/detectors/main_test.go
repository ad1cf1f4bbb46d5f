package main

import (
	"os"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/mask"
)

// floors are what each detector must reach on the corpus, in percent: a little
// less than what docs/detectors.md says, and deterministic, since the corpus is
// made from a seed.
var floors = map[string]struct{ precision, recall float64 }{
	"cloud-key": {99.5, 98.5}, "email": {99.5, 97.5}, "iban": {99.5, 99.5}, "jwt": {99.5, 99.5}, "payment-card": {97, 95},
	"phone": {99.5, 95}, "private-key": {99.5, 96}, "url-password": {99.5, 99.5}, "us-ssn": {99.5, 95},
}

func TestDetectorsReachTheirFloors(t *testing.T) {
	rows := corpus(seed, size)
	results, err := measure(rows)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		floor, known := floors[r.detector]
		if !known {
			t.Errorf("%s has no floor", r.detector)
		}
		if 100*r.precision < floor.precision || 100*r.recalls < floor.recall {
			t.Errorf("%s has precision %.1f %% and recall %.1f %%, want %.1f and %.1f", r.detector, 100*r.precision, 100*r.recalls, floor.precision, floor.recall)
		}
	}
	if len(results) != len(floors) {
		t.Errorf("%d detectors were measured, %d have floors", len(results), len(floors))
	}
	seen, secrets, changed, clean, err := together(rows)
	if err != nil {
		t.Fatal(err)
	}
	if 100*seen > 3*secrets || 100*changed > clean {
		t.Errorf("of %d secrets %d are seen, of %d rows without one %d are changed", secrets, seen, clean, changed)
	}
}

// The figures aren't those of one lucky seed.
func TestAnotherSeedGivesAlmostTheSame(t *testing.T) {
	results, err := measure(corpus(seed+1, size))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if floor := floors[r.detector]; 100*r.precision < floor.precision-2.5 || 100*r.recalls < floor.recall-2.5 {
			t.Errorf("%s has precision %.1f %% and recall %.1f %%", r.detector, 100*r.precision, 100*r.recalls)
		}
	}
}

func TestCorpusIsWhatItSays(t *testing.T) {
	rows := corpus(seed, size)
	if len(rows) < 10_000 {
		t.Errorf("%d rows", len(rows))
	}
	kinds, lookalikes := map[string]int{}, map[string]int{}
	clean := 0
	for _, r := range rows {
		if r.secret == "" {
			clean++
			lookalikes[r.from]++
			continue
		}
		kinds[r.kind]++
		if !strings.Contains(r.text, r.secret) {
			t.Fatalf("%q doesn't hold %q", r.text, r.secret)
		}
	}
	if clean != size/2 || len(lookalikes) < 25 {
		t.Errorf("%d rows without a secret, of %d kinds", clean, len(lookalikes))
	}
	for _, name := range mask.Detectors() {
		if kinds[name] < 600 {
			t.Errorf("%d rows for %s", kinds[name], name)
		}
	}
	again := corpus(seed, size)
	for i := range rows {
		if rows[i] != again[i] {
			t.Fatalf("row %d is %q, then %q", i, rows[i].text, again[i].text)
		}
	}
}

// What docs/detectors.md prints is what is measured.
func TestDocumentedFigures(t *testing.T) {
	const file = "../../docs/detectors.md"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rows := corpus(seed, size)
	results, err := measure(rows)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := report(&table, rows, results); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(before), table.String()) {
		t.Errorf("%s is not what is measured; run: make measure-detectors", file)
	}
}

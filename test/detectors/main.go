// Command detectors measures the content detectors of package mask: their
// precision and recall on a labelled corpus that it makes from a seed. It knows
// nothing of how they work.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
)

// The corpus that is measured, and that the tests hold to its floors.
const (
	seed = 20260706
	size = 12_000
)

func main() {
	seed := flag.Uint64("seed", seed, "of the corpus")
	size := flag.Int("size", size, "rows of the corpus")
	show := flag.Int("examples", 0, "print about so many of each kind of mistake")
	out := flag.String("o", "", "a document whose table is replaced, up to its end")
	flag.Parse()
	if err := run(*seed, *size, *show, *out); err != nil {
		fmt.Fprintln(os.Stderr, "detectors:", err)
		os.Exit(1)
	}
}

func run(seed uint64, size, show int, out string) error {
	rows := corpus(seed, size)
	results, err := measure(rows)
	if err != nil {
		return err
	}
	var table bytes.Buffer
	fmt.Fprintf(&table, "%d rows, seed %d:\n\n", size, seed)
	if err := report(&table, rows, results); err != nil {
		return err
	}
	if _, err := os.Stdout.Write(table.Bytes()); err != nil {
		return err
	}
	examples(os.Stdout, results, show)
	if out == "" {
		return nil
	}
	return replaceTable(out, table.Bytes())
}

// begin is where the table of the document begins.
const begin = "<!-- measured: make measure-detectors -->\n"

func replaceTable(file string, table []byte) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, _, found := bytes.Cut(text, []byte(begin))
	if !found {
		return fmt.Errorf("%s has no line %q", file, begin)
	}
	return os.WriteFile(file, append(append(head, begin+"\n"...), table...), 0o644)
}

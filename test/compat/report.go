package main

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// differences are the tests that may come out otherwise through Chaperone, a
// line each: the test, and behind it why.
//
//go:embed differences.txt
var differences string

// report prints what came of both runs, and tells whether all that differs is
// expected.
func report(out io.Writer, direct, through outcomes) (same bool, err error) {
	expected, err := parseDifferences(differences)
	if err != nil {
		return false, err
	}
	passDirect, failDirect, skipDirect := direct.count()
	passThrough, failThrough, skipThrough := through.count()
	fmt.Fprintf(out, "\ndirect   %4d pass %3d fail %3d skip\nthrough  %4d pass %3d fail %3d skip\n\n",
		passDirect, failDirect, skipDirect, passThrough, failThrough, skipThrough)
	names := map[string]bool{}
	for name := range direct {
		names[name] = true
	}
	for name := range through {
		names[name] = true
	}
	same = true
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, after := outcome(direct, name), outcome(through, name)
		if before == after {
			continue
		}
		why, known := expected[name]
		if !known {
			why, same = "NOT EXPECTED", false
		}
		fmt.Fprintf(out, "%s: direct %s, through %s: %s\n", name, before, after, why)
	}
	return same, nil
}

func outcome(o outcomes, name string) string {
	if got, ok := o[name]; ok {
		return got
	}
	return "not run"
}

func parseDifferences(text string) (map[string]string, error) {
	expected := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, why, ok := strings.Cut(line, " ")
		if !ok {
			return nil, fmt.Errorf("differences.txt: %s: no reason is given", name)
		}
		expected[name] = strings.TrimSpace(why)
	}
	return expected, lines.Err()
}

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// table is one of the report's.
type table struct {
	title  string
	note   string // below it
	header []string
	rows   [][]string
}

// series are the figures of one thing, one per round.
type series []float64

func (s series) sorted() series { return slices.Sorted(slices.Values(s)) }

func (s series) median() float64 { return s.sorted()[len(s)/2] }
func (s series) min() float64    { return slices.Min(s) }
func (s series) max() float64    { return slices.Max(s) }

// over are the ratios of figures of the same round.
func (s series) over(t series) series {
	ratios := make(series, len(s))
	for n := range s {
		ratios[n] = s[n] / t[n]
	}
	return ratios
}

// minus are the differences of figures of the same round.
func (s series) minus(t series) series {
	differences := make(series, len(s))
	for n := range s {
		differences[n] = s[n] - t[n]
	}
	return differences
}

func nanoseconds(ns float64) string {
	switch {
	case ns >= 1e6 || ns <= -1e6:
		return fmt.Sprintf("%.1f ms", ns/1e6)
	case ns >= 1e4 || ns <= -1e4:
		return fmt.Sprintf("%.2f µs", ns/1e3)
	}
	return fmt.Sprintf("%.0f ns", ns)
}

func ratio(ratio float64) string { return fmt.Sprintf("%.3f", ratio) }

func preface(o options) string {
	var kernel unix.Utsname
	release := "of unknown release"
	if err := unix.Uname(&kernel); err == nil {
		release = unix.ByteSliceToString(kernel.Release[:])
	}
	return fmt.Sprintf(`One machine (%d cores, Linux %s, %s), on loopback. One client process is moved from cgroup to cgroup, and makes
%d connections, or %d datagrams, by raw system calls for each sample, whose median counts. Nobody waits for a connection,
so none pays for waking somebody. Figures are medians of %d rounds of %d laps, with the order of callers changed from lap
to lap; ratios are to "%s" of the same lap, and "%s" is what noise does to them.
Few: 2 planners, 1 target. Many: %d planners, %d targets, %d protected addresses, %d rules of one profile.
The target's port is captured on every address too, and DNS.`,
		runtime.NumCPU(), release, runtime.GOARCH, o.each, 10*o.each, o.rounds, laps, base, again, o.many, o.many, o.many, o.many)
}

// writeText writes the report for a terminal.
func writeText(out io.Writer, o options, tables []table) error {
	if _, err := fmt.Fprintln(out, preface(o)); err != nil {
		return err
	}
	for _, t := range tables {
		fmt.Fprintf(out, "\n%s\n\n", t.title)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, strings.Join(t.header, "\t"))
		for _, row := range t.rows {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if t.note != "" {
			fmt.Fprintln(out, t.note)
		}
	}
	return nil
}

// markdown is the report for docs/benchmarks.md.
func markdown(o options, tables []table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Interception\n\nWritten by `make bench-intercept`. %s\n", preface(o))
	for _, t := range tables {
		fmt.Fprintf(&b, "\n## %s\n\n| %s |\n|---|%s\n", t.title, strings.Join(t.header, " | "), strings.Repeat("---:|", len(t.header)-1))
		for _, row := range t.rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
		if t.note != "" {
			fmt.Fprintf(&b, "\n%s\n", t.note)
		}
	}
	return b.String()
}

package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// markdown is the report: per workload, each path's median, its ratio to the
// direct path and to pgbouncer, and the proxy's processor time.
func (r *results) markdown(o options) string {
	var b strings.Builder
	var kernel unix.Utsname
	_ = unix.Uname(&kernel)
	fmt.Fprintf(&b, `# Benchmarks

Written by `+"`make bench`"+`. One machine (%d cores, Linux %s, %s) runs the clients, the
server and the proxies at once, so each takes processor time from the others: read the ratios, not the rates.
Medians of %d rounds, all paths in turn in each round, %v per pgbench run. No path has TLS. pgbouncer pools
sessions, one server connection for each client's, as Chaperone does. Chaperone runs with policy, column masks,
content detectors and `+"`record: durable`"+`, and publishes to a NATS server that is a process of its own on the same two cores, as it would be on another machine's;
the processor time is the daemon's alone. The relay in Go copies bytes and looks at none.

`, runtime.NumCPU(), unix.ByteSliceToString(kernel.Release[:]), runtime.GOARCH, o.rounds, o.each)
	for _, load := range r.workloads {
		fmt.Fprintf(&b, "## %s\n\n", load.title)
		fmt.Fprintf(&b, "| path | %s/s | of direct | of pgbouncer | proxy's CPU per %s |\n|---|---:|---:|---:|---:|\n", load.unit, load.unit)
		samples := r.samples[load.title]
		for _, path := range r.paths {
			cpu := "–"
			if path != "direct" {
				cpu = medianOf(samples[path], func(s sample) time.Duration { return s.cpu }).Round(100 * time.Nanosecond).String()
			}
			fmt.Fprintf(&b, "| %s | %.0f | %s | %s | %s |\n", path,
				medianOf(samples[path], rate), ratio(samples[path], samples["direct"]), ratio(samples[path], samples["pgbouncer"]), cpu)
		}
		b.WriteString("\n")
	}
	if r.opening != nil {
		direct, ours := r.opening["direct"], r.opening["chaperone"]
		fmt.Fprintf(&b, `## %s

With its first query, of a client that does one after the other; medians of %d client processes.

| | directly | through Chaperone | more |
|---|---:|---:|---:|
| the first of a fresh job | %v | %v | %v |
| a further one of the job | %v | %v | %v |

`, openingTitle, len(ours.first),
			short(median(direct.first)), short(median(ours.first)), short(median(ours.first)-median(direct.first)),
			short(median(direct.further)), short(median(ours.further)), short(median(ours.further)-median(direct.further)))
	}
	if r.idle != nil {
		fmt.Fprintf(&b, `## %s

%d sessions, each after one query, take %.1f KiB each of the daemon's memory (%d MiB before, %d MiB with them).

`, idleTitle, r.idle.sessions, float64(r.idle.with-r.idle.before)/1024/float64(r.idle.sessions), r.idle.before>>20, r.idle.with>>20)
	}
	if r.connect == nil {
		return b.String()
	}
	without, with := median(r.connect.without), median(r.connect.with)
	fmt.Fprintf(&b, `## %s

| | median of %d runs' medians |
|---|---:|
| no program attached | %v |
| in a planner's cgroup | %v |
| ratio | %.3f |
`, connectTitle, len(r.connect.with), without, with, float64(with)/float64(without))
	return b.String()
}

func short(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

func rate(s sample) float64 { return s.rate }

func medianOf[T int | float64 | time.Duration](samples []sample, of func(sample) T) T {
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	return median(values)
}

// ratio is the median of the ratios of samples of the same round; a dash where
// the other path was not measured.
func ratio(of, to []sample) string {
	if len(to) != len(of) {
		return "–"
	}
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = of[i].rate / to[i].rate
	}
	return fmt.Sprintf("%.2f", median(ratios))
}

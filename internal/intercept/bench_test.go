package intercept

import (
	"fmt"
	"sort"
	"testing"
)

// BenchmarkConnect times connect(2) on loopback: from a cgroup without programs, from a
// planner's to a port that is not captured, and from a planner's to one that is.
// They take turns, so that what else the machine does hits all alike, and the ratios are
// the medians of those within each round.
//
//	go test -run '^$' -bench Connect ./internal/intercept
func BenchmarkConnect(b *testing.B) {
	w := newWorld(b)
	w.captureTarget()
	kinds := []struct{ name, cgroup, to string }{
		{"none", w.outside, at(target4, otherPort)},
		{"free", w.job, at(target4, otherPort)},
		{"diverted", w.job, at(target4, capturedPort)},
	}
	p50, mean := map[string][]float64{}, map[string][]float64{}
	for b.Loop() {
		for _, k := range kinds {
			a := w.run(k.cgroup, "measure", k.to, "2000")
			p50[k.name] = append(p50[k.name], a.P50)
			mean[k.name] = append(mean[k.name], a.Mean)
		}
	}
	for _, k := range kinds {
		b.ReportMetric(median(p50[k.name]), k.name+"-p50-ns")
		b.ReportMetric(median(mean[k.name]), k.name+"-mean-ns")
	}
	for _, k := range kinds[1:] {
		b.ReportMetric(median(ratios(p50[k.name], p50["none"])), fmt.Sprintf("%s/none-p50", k.name))
		b.ReportMetric(median(ratios(mean[k.name], mean["none"])), fmt.Sprintf("%s/none-mean", k.name))
	}
}

func ratios(x, y []float64) []float64 {
	r := make([]float64, len(x))
	for n := range x {
		r[n] = x[n] / y[n]
	}
	return r
}

func median(x []float64) float64 {
	x = append([]float64(nil), x...)
	sort.Float64s(x)
	return x[len(x)/2]
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"chaperone.dev/chaperone/internal/intercept"
)

// variant is one caller and where it goes.
type variant struct {
	name     string
	cgroup   string
	to       netip.AddrPort
	guard    bool // with the guard of interfaces on lo
	diverted bool
}

// base is the name of the variant that the others are compared with.
const base = "no hooks"

// again is the same once more: what it differs by is noise.
const again = "no hooks, once more"

// measureConnects times connect(2).
func (w *world) measureConnects(ctx context.Context) ([]table, error) {
	other, target, elsewhere := at(otherHost, otherPort), at(targetHost, targetPort), at(otherHost, targetPort)
	free := []variant{
		{name: base, cgroup: w.outside, to: other},
		{name: again, cgroup: w.outside, to: other},
		{name: "no hooks, interface guarded", cgroup: w.outside, to: other, guard: true},
		{name: "unknown cgroup, no target", cgroup: w.unknown, to: other},
		{name: "bystander, no target", cgroup: w.passing, to: other},
		{name: "bystander, a target's port elsewhere", cgroup: w.passing, to: elsewhere},
		{name: "planner, no target", cgroup: w.planner, to: other},
		{name: "planner, no target, interface guarded", cgroup: w.planner, to: other, guard: true},
		{name: "planner, target: diverted", cgroup: w.planner, to: target, diverted: true},
		{name: "planner, target, interface guarded", cgroup: w.planner, to: target, guard: true, diverted: true},
	}
	ruled := []variant{
		{name: base, cgroup: w.outside, to: other},
		{name: again, cgroup: w.outside, to: other},
		{name: "bystander, no target", cgroup: w.passing, to: other},
		{name: "planner without profile, no target", cgroup: w.planner, to: other},
		{name: "planner with profile, allowed", cgroup: w.limited, to: other},
		{name: "planner with profile, interface guarded", cgroup: w.limited, to: other, guard: true},
		{name: "planner with profile, target: diverted", cgroup: w.limited, to: target, diverted: true},
	}
	return w.measureCalls(ctx, "connect(2)", request{Do: "connect", Count: w.o.each}, free, ruled)
}

// measureDatagrams times sendto(2).
func (w *world) measureDatagrams(ctx context.Context) ([]table, error) {
	other := at(otherHost, otherPort)
	free := []variant{
		{name: base, cgroup: w.outside, to: other},
		{name: again, cgroup: w.outside, to: other},
		{name: "no hooks, interface guarded", cgroup: w.outside, to: other, guard: true},
		{name: "bystander", cgroup: w.passing, to: other},
		{name: "planner", cgroup: w.planner, to: other},
		{name: "planner, interface guarded", cgroup: w.planner, to: other, guard: true},
	}
	ruled := []variant{
		{name: base, cgroup: w.outside, to: other},
		{name: again, cgroup: w.outside, to: other},
		{name: "bystander", cgroup: w.passing, to: other},
		{name: "planner without profile", cgroup: w.planner, to: other},
		{name: "planner with profile, allowed", cgroup: w.limited, to: other},
	}
	return w.measureCalls(ctx, "sendto(2) of 64 bytes to what is no target's", request{Do: "send", Count: 10 * w.o.each}, free, ruled)
}

// laps are how often all variants take turns in one round's visit of a state. What else
// the machine does lasts longer than a lap.
const laps = 5

// measureCalls measures all variants in all states, each lap in another order.
func (w *world) measureCalls(ctx context.Context, title string, r request, free, ruled []variant) ([]table, error) {
	samples := map[state]map[string]series{}
	for _, s := range states(0) {
		samples[s] = map[string]series{}
	}
	for round := range w.o.rounds {
		for _, s := range states(round) {
			if err := w.enforce(s); err != nil {
				return nil, err
			}
			variants := free
			if s.rules {
				variants = ruled
			}
			for lap := range laps {
				for _, v := range inTurn(variants, laps*round+lap) {
					p50, err := w.sample(ctx, v, r)
					if err != nil {
						return nil, fmt.Errorf("%s: %w", v.name, err)
					}
					samples[s][v.name] = append(samples[s][v.name], p50)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "  round %d of %d\n", round+1, w.o.rounds)
	}
	return []table{
		callTable(title, "no planner has a profile", w.o, free, samples[state{}], samples[state{large: true}]),
		callTable(title, "some planner has a profile", w.o, ruled, samples[state{rules: true}], samples[state{large: true, rules: true}]),
	}, nil
}

// inTurn has another one first, and another one before each, from lap to lap.
func inTurn(variants []variant, lap int) []variant {
	variants = slices.Clone(variants)
	if lap%2 == 1 {
		slices.Reverse(variants)
	}
	turn := lap / 2 % len(variants)
	return append(variants[turn:], variants[:turn]...)
}

// sample is the median of one run, and sees to it that what should be diverted was.
func (w *world) sample(ctx context.Context, v variant, r request) (p50 float64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if v.guard {
		if err := w.guard(true); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, w.guard(false)) }()
	}
	before, err := w.i.Stats()
	if err != nil {
		return 0, err
	}
	diverted := w.proxy.diverted.Load()
	r.To = v.to
	a, err := w.ask(v.cgroup, r)
	if err != nil {
		return 0, err
	}
	after, err := w.i.Stats()
	if err != nil {
		return 0, err
	}
	want := 0
	if v.diverted {
		want = r.Count
	}
	if got := after[intercept.Diverted] - before[intercept.Diverted]; got != uint64(want) {
		return 0, fmt.Errorf("%d connections were diverted, and not %d", got, want)
	}
	return a.P50, w.proxy.expect(ctx, diverted+int64(want))
}

// callTable compares variants with the base, and the large world with the small one.
func callTable(title, rules string, o options, variants []variant, few, many map[string]series) table {
	t := table{
		title: title + ": " + rules,
		header: []string{"caller", "median", "more than none", "ratio: median", "min – max",
			fmt.Sprintf("with %d", o.many), "ratio: median", "min – max", "many : few"},
	}
	for _, v := range variants {
		small, large := few[v.name].over(few[base]), many[v.name].over(many[base])
		t.rows = append(t.rows, []string{
			v.name,
			nanoseconds(few[v.name].median()), nanoseconds(few[v.name].minus(few[base]).median()),
			ratio(small.median()), ratio(small.min()) + " – " + ratio(small.max()),
			nanoseconds(many[v.name].median()),
			ratio(large.median()), ratio(large.min()) + " – " + ratio(large.max()),
			ratio(large.median() / small.median()),
		})
	}
	return t
}

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"chaperone.dev/chaperone/bpf"
	"chaperone.dev/chaperone/internal/intercept"
)

// measureOpen times loading, attaching and taking over, and looks at what the maps hold.
func (w *world) measureOpen(ctx context.Context) ([]table, error) {
	few, err := mapMemory(w.settings.PinDir)
	if err != nil {
		return nil, err
	}
	var load, fresh, again, crowded series
	for range w.o.rounds {
		if err := w.leave(); err != nil {
			return nil, err
		}
		for _, step := range []struct {
			into *series
			do   func() error
		}{
			{&load, loadOnly},
			{&fresh, func() (err error) { w.i, err = intercept.Open(ctx, w.settings); return err }},
			{nil, func() error { return w.i.Close() }},
			{&again, func() (err error) { w.i, err = intercept.Open(ctx, w.settings); return err }},
			{nil, func() error { return errors.Join(w.i.Close(), intercept.Detach(w.settings.PinDir)) }},
		} {
			if err := timedStep(step.into, step.do); err != nil {
				return nil, err
			}
		}
		w.i = nil
		if err := w.furnish(ctx); err != nil {
			return nil, err
		}
	}
	for range w.o.rounds {
		if err := errors.Join(w.enforce(state{}), w.enforce(state{large: true, rules: true})); err != nil {
			return nil, err
		}
	}
	many, err := mapMemory(w.settings.PinDir)
	if err != nil {
		return nil, err
	}
	for range w.o.rounds {
		if err := w.i.Close(); err != nil {
			return nil, err
		}
		if err := timedStep(&crowded, func() (err error) { w.i, err = intercept.Open(ctx, w.settings); return err }); err != nil {
			return nil, err
		}
		w.proxy.interceptor = w.i
	}
	times := table{title: "Start", header: []string{"what", "median", "min", "max"}, rows: [][]string{
		timeRow("load the programs onto new maps (verifier and JIT)", load),
		timeRow("intercept.Open: load, attach, pin, and prove by a planner's connection", fresh),
		timeRow("intercept.Open that takes over what is pinned", again),
		timeRow(fmt.Sprintf("the same with %d planners, targets and rules", w.o.many), crowded),
		timeRow("make a cgroup below the ancestor", w.costs.cgroups),
		timeRow("enrol a planner", w.costs.enrol),
		timeRow("capture and protect one of many targets", w.costs.capture),
		timeRow("allow one of many destinations", w.costs.allow),
	}}
	memory := table{title: "Memory of the maps", header: []string{"map", "few", "many"}}
	for _, name := range slices.Sorted(maps.Keys(few)) {
		memory.rows = append(memory.rows, []string{name, kilobytes(few[name]), kilobytes(many[name])})
	}
	return []table{times, memory}, nil
}

func timedStep(into *series, do func() error) error {
	started := time.Now()
	if err := do(); err != nil {
		return err
	}
	if into != nil {
		*into = append(*into, float64(time.Since(started)))
	}
	return nil
}

func timeRow(name string, s series) []string {
	return []string{name, nanoseconds(s.median()), nanoseconds(s.min()), nanoseconds(s.max())}
}

// leave ends what is in force.
func (w *world) leave() error {
	var errs []error
	if w.proxy != nil {
		errs = append(errs, w.proxy.close())
	}
	if w.i != nil {
		errs = append(errs, w.i.Close())
	}
	w.proxy, w.i, w.crowdIDs, w.state = nil, nil, nil, state{}
	if w.settings.PinDir != "" {
		errs = append(errs, intercept.Detach(w.settings.PinDir))
	}
	return errors.Join(errs...)
}

// loadOnly has the kernel verify and compile the programs, and lets go of them.
func loadOnly() error {
	spec, err := bpf.LoadIntercept()
	if err != nil {
		return err
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return err
	}
	c.Close()
	return nil
}

// mapMemory is what the kernel says that each pinned map holds, in bytes.
func mapMemory(pinDir string) (map[string]uint64, error) {
	pins, err := filepath.Glob(filepath.Join(pinDir, "*", "maps", "*"))
	if err != nil {
		return nil, err
	}
	held := map[string]uint64{}
	for _, pin := range pins {
		m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pin, err)
		}
		info, err := m.Info()
		if err = errors.Join(err, m.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", pin, err)
		}
		held[filepath.Base(pin)], _ = info.Memlock()
	}
	return held, nil
}

func kilobytes(n uint64) string { return fmt.Sprintf("%.1f KB", float64(n)/1e3) }

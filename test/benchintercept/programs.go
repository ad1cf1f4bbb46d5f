package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/lab"
)

// Addresses of a planner's network namespace, and of the node's end of it.
const (
	insideHost = "10.80.0.2"
	nodeHost   = "10.80.0.1"
)

// programs are the kernel programs that are pinned, by their names in the kernel.
type programs map[string]*ebpf.Program

func (p programs) close() error {
	var errs []error
	for _, program := range p {
		errs = append(errs, program.Close())
	}
	return errors.Join(errs...)
}

// add takes the programs of all pinned links that are not there yet.
func (p programs) add(pinDir string) error {
	pins, err := filepath.Glob(filepath.Join(pinDir, "*", "*", "*"))
	if err != nil {
		return err
	}
	for _, pin := range pins {
		if filepath.Base(filepath.Dir(pin)) == "maps" {
			continue
		}
		if err := p.addLink(pin); err != nil {
			return fmt.Errorf("%s: %w", pin, err)
		}
	}
	return nil
}

func (p programs) addLink(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return err
	}
	program, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return err
	}
	about, err := program.Info()
	if err != nil {
		return errors.Join(err, program.Close())
	}
	if _, known := p[about.Name]; known {
		return program.Close()
	}
	p[about.Name] = program
	return nil
}

// runs is how often a program ran, and for how long in all, in ns.
type runs struct{ count, time float64 }

func (p programs) runs() (map[string]runs, error) {
	all := map[string]runs{}
	for name, program := range p {
		s, err := program.Stats()
		if err != nil {
			return nil, fmt.Errorf("statistics of %s: %w", name, err)
		}
		all[name] = runs{float64(s.RunCount), float64(s.Runtime)}
	}
	return all, nil
}

// scenario is what is done while programs are timed.
type scenario struct {
	variant
	rules bool
	do    string // connect or send
	netns string
}

// measurePrograms has the kernel time each program, and lists their sizes.
func (w *world) measurePrograms(ctx context.Context) ([]table, error) {
	netns, err := lab.NewNetns(lab.NetnsOptions{
		Inside: []netip.Prefix{netip.MustParsePrefix(insideHost + "/24")}, Outside: []netip.Prefix{netip.MustParsePrefix(nodeHost + "/24")},
	})
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	guarded, err := w.i.GuardPlanner(intercept.Namespace{Path: netns.Path()}, w.plannerID)
	if err != nil {
		return nil, err
	}
	all := programs{}
	defer all.close()
	if err := errors.Join(w.guard(true), all.add(w.settings.PinDir), w.guard(false)); err != nil {
		return nil, err
	}
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("have the kernel time programs: %w", err)
	}
	defer counting.Close()
	empty, err := w.emptyProgram(ctx)
	if err != nil {
		return nil, err
	}
	t := table{
		title: "Time of each program", header: []string{"what is done", "program", "runs per call", "ns per run", fmt.Sprintf("with %d", w.o.many)},
		note: fmt.Sprintf("An empty program takes %.0f ns by the same clock, which is the clock's own.", empty),
	}
	for _, s := range w.scenarios(netns.Path()) {
		rows, err := w.timePrograms(ctx, all, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		t.rows = append(t.rows, rows...)
	}
	for _, index := range guarded {
		if err := w.i.Unguard(index); err != nil {
			return nil, err
		}
	}
	sizes, err := sizeTable(all)
	return []table{t, sizes}, err
}

func (w *world) scenarios(netns string) []scenario {
	other, target, elsewhere := at(otherHost, otherPort), at(targetHost, targetPort), at(otherHost, targetPort)
	return []scenario{
		{variant{name: "connect, planner, no target", cgroup: w.planner, to: other, guard: true}, false, "connect", ""},
		{variant{name: "connect, bystander, target's port elsewhere", cgroup: w.passing, to: elsewhere, guard: true}, false, "connect", ""},
		{variant{name: "connect, planner, diverted", cgroup: w.planner, to: target, guard: true, diverted: true}, false, "connect", ""},
		{variant{name: "connect, bystander, profiles exist", cgroup: w.passing, to: other, guard: true}, true, "connect", ""},
		{variant{name: "connect, planner with profile, allowed", cgroup: w.limited, to: other, guard: true}, true, "connect", ""},
		{variant{name: "send, planner", cgroup: w.planner, to: other, guard: true}, false, "send", ""},
		{variant{name: "send, bystander, profiles exist", cgroup: w.passing, to: other, guard: true}, true, "send", ""},
		{variant{name: "send, planner with profile, allowed", cgroup: w.limited, to: other, guard: true}, true, "send", ""},
		{variant{name: "send, planner of another namespace", cgroup: w.planner, to: at(nodeHost, otherPort)}, false, "send", netns},
		{variant{name: "the same, profiles exist", cgroup: w.planner, to: at(nodeHost, otherPort)}, true, "send", netns},
	}
}

// timePrograms does what a scenario says, in the small world and in the large one.
func (w *world) timePrograms(ctx context.Context, all programs, s scenario) ([][]string, error) {
	count := 5 * w.o.each
	var did [2]map[string]runs
	for n := range did {
		if err := w.enforce(state{large: n == 1, rules: s.rules}); err != nil {
			return nil, err
		}
		before, err := all.runs()
		if err != nil {
			return nil, err
		}
		if _, err := w.sample(ctx, s.variant, request{Do: s.do, Count: count, Netns: s.netns}); err != nil {
			return nil, err
		}
		if did[n], err = all.runs(); err != nil {
			return nil, err
		}
		for name, r := range before {
			did[n][name] = runs{did[n][name].count - r.count, did[n][name].time - r.time}
		}
	}
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(did[0])) {
		few, many := did[0][name], did[1][name]
		// Now and then the daemon's own sockets run a program too.
		if few.count < float64(count)/10 {
			continue
		}
		rows = append(rows, []string{s.name, name, fmt.Sprintf("%.1f", few.count/float64(count)),
			fmt.Sprintf("%.0f", few.time/few.count), fmt.Sprintf("%.0f", many.time/many.count)})
	}
	return rows, nil
}

// emptyProgram is what the kernel says that a program takes which does nothing.
func (w *world) emptyProgram(ctx context.Context) (float64, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		return 0, err
	}
	defer program.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: w.outside, Attach: ebpf.AttachCGroupInet4Connect, Program: program})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	if _, err := w.sample(ctx, variant{cgroup: w.outside, to: at(otherHost, otherPort)}, request{Do: "connect", Count: 5 * w.o.each}); err != nil {
		return 0, err
	}
	s, err := program.Stats()
	if err != nil {
		return 0, err
	}
	return float64(s.Runtime) / float64(s.RunCount), nil
}

func sizeTable(all programs) (table, error) {
	t := table{title: "Size of each program", header: []string{"program", "instructions", "instructions that the verifier went through", "machine code"}}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		info, err := all[name].Info()
		if err != nil {
			return t, err
		}
		translated, err := info.TranslatedSize()
		if err != nil {
			return t, err
		}
		jited, err := info.JitedSize()
		if err != nil {
			return t, err
		}
		verified, _ := info.VerifiedInstructions()
		t.rows = append(t.rows, []string{name, strconv.Itoa(translated / asm.InstructionSize), strconv.Itoa(int(verified)), fmt.Sprintf("%d B", jited)})
	}
	return t, nil
}

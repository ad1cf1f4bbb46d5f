package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/bpf"
	"chaperone.dev/chaperone/internal/intercept"
)

func kernelChecks() []check {
	checks := []check{
		{"kernel", checkKernel},
		{"kernel btf", checkBTF},
		{"kernel features", checkFeatures},
		{"kernel programs", checkPrograms},
		{"optional tcx", optional(probeTCX, "what guards interfaces is a classic filter, which is not pinned and which other tools may remove",
			"nothing; or run Linux 6.6 or newer")},
	}
	for _, p := range intercept.OptionalPrograms() {
		probe := func() error { return intercept.TryLoadOptional(p.Name) }
		checks = append(checks, check{"optional " + p.Name, optional(probe, "not covered are "+p.Lost,
			"keep planners from these by other means (docs/limitations.md); or run a kernel that takes the program")})
	}
	return checks
}

func checkKernel(context.Context, *subject) Result {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fail("", brief(err), "run it on Linux")
	}
	return ok(fmt.Sprintf("Linux %s, %s", unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:])))
}

func checkBTF(context.Context, *subject) Result {
	const path = "/sys/kernel/btf/vmlinux"
	info, err := os.Stat(path)
	switch {
	case err != nil && forbidden(err):
		return unseen(path, err)
	case err != nil:
		return fail("", path+" is missing: the programs can't be fitted to this kernel",
			"run a kernel with CONFIG_DEBUG_INFO_BTF=y, as the distributions' are, with /sys mounted")
	}
	return ok(fmt.Sprintf("%s, %s", path, size(info.Size())))
}

// checkFeatures probes for what the programs are made of, so that a kernel
// that refuses them is known by what it lacks.
func checkFeatures(ctx context.Context, _ *subject) Result {
	if !mayLook() {
		return unseen("what the kernel can do", unix.EPERM)
	}
	spec, err := bpf.LoadIntercept()
	if err != nil {
		return fail("", brief(err), "install Chaperone again")
	}
	probes := probesOf(spec)
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(probes)) {
		if ctx.Err() != nil {
			return fail("", "the probes take too long", "try again when the machine has less to do")
		}
		// Other errors are of the probe, and the programs themselves are loaded too.
		if errors.Is(probes[name](), ebpf.ErrNotSupported) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fail(fmt.Sprintf("%d of %d", len(probes)-len(missing), len(probes)), strings.Join(missing, "\n"),
			"run Linux 6.1 or newer with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF")
	}
	return ok(fmt.Sprintf("all %d map types, program types and helpers that the programs use", len(probes)))
}

func probesOf(spec *ebpf.CollectionSpec) map[string]func() error {
	probes := map[string]func() error{}
	for _, m := range spec.Maps {
		probes["map type "+m.Type.String()] = func() error { return features.HaveMapType(m.Type) }
	}
	for _, p := range spec.Programs {
		probes["program type "+p.Type.String()] = func() error { return features.HaveProgramType(p.Type) }
		for _, ins := range p.Instructions {
			if !ins.IsBuiltinCall() {
				continue
			}
			helper := asm.BuiltinFunc(ins.Constant)
			probes[fmt.Sprintf("helper %s in %s", helper, p.Type)] = func() error { return features.HaveProgramHelper(p.Type, helper) }
		}
	}
	return probes
}

// checkPrograms loads the programs, attaches none, and lets go of them.
func checkPrograms(context.Context, *subject) Result {
	if !mayLook() {
		return unseen("whether the programs load", unix.EPERM)
	}
	return loadResult(intercept.TryLoad())
}

func loadResult(names []string, err error) Result {
	var refused *ebpf.VerifierError
	switch {
	case errors.As(err, &refused):
		return fail("", refusal(err, refused),
			"run Linux 6.1 or newer; if this one is, report these lines with the kernel's release")
	case err != nil && forbidden(err):
		return fail("", "the kernel refuses them: "+cause(err), "see \"capabilities\", \"lockdown\" and \"security modules\"")
	case err != nil:
		return fail("", brief(err), "run Linux 6.1 or newer with CONFIG_CGROUP_BPF")
	}
	return ok(fmt.Sprintf("%d programs load: %s", len(names), strings.Join(names, ", ")))
}

// refusal is what the verifier said, with its last lines, where the reason is.
func refusal(err error, v *ebpf.VerifierError) string {
	const lines = 6
	log := v.Log[max(0, len(v.Log)-lines):]
	return "the verifier refuses them: " + brief(err) + "\n" + strings.Join(log, "\n")
}

// optional makes a check of a feature that is missed by nobody who lives with
// what is lost.
func optional(probe func() error, lost, do string) func(context.Context, *subject) Result {
	return func(context.Context, *subject) Result {
		if !mayLook() {
			return unseen("whether the kernel has it", unix.EPERM)
		}
		if err := probe(); err != nil {
			return warn("", fmt.Sprintf("not on this kernel (%s): %s", cause(err), lost), do)
		}
		return ok("the kernel has it")
	}
}

// mayLook tells whether this process may ask for and load what the checks of
// the kernel do. Without that the kernel refuses what it has and what it has not
// in the same words.
func mayLook() bool {
	return effective(unix.CAP_SYS_ADMIN) || effective(unix.CAP_BPF) && effective(unix.CAP_NET_ADMIN)
}

// cause is what the kernel said, where the rest is guesses about it.
func cause(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) && errno == unix.EPERM {
		return errno.Error()
	}
	line, _, _ := strings.Cut(brief(err), "\n")
	return line
}

// probeTCX asks what is attached to lo, which kernels without tcx can't.
func probeTCX() error {
	const loopback = 1 // the index of lo in every network namespace
	_, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXEgress})
	if errors.Is(err, fs.ErrNotExist) { // the first kernels with tcx, where nothing is attached
		return nil
	}
	return err
}

// size writes bytes the way the documents do.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/(1<<10), 0
	for value >= 1<<10 && unit < len(units)-1 {
		value /= 1 << 10
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const lsmList = "/sys/kernel/security/lsm"

func securityChecks() []check {
	return []check{
		{"jit", checkJIT},
		{"unprivileged bpf", checkUnprivileged},
		{"ptrace scope", checkPtraceScope},
		{"lockdown", checkLockdown},
		{"security modules", checkSecurityModules},
	}
}

// setting reads a one-line file of /proc or /sys. There is a result when it
// can't be read.
func setting(path, absent string) (string, *Result) {
	text, err := os.ReadFile(path)
	var r Result
	switch {
	case err == nil:
		return strings.TrimSpace(string(text)), nil
	case errors.Is(err, fs.ErrNotExist):
		r = skip(absent, "")
	default:
		r = unseen(path, err)
	}
	return "", &r
}

func checkJIT(context.Context, *subject) Result {
	value, r := setting("/proc/sys/net/core/bpf_jit_enable", "net.core.bpf_jit_enable is not shown in this network namespace")
	if r != nil {
		return *r
	}
	if value == "0" {
		return warn("net.core.bpf_jit_enable is 0", "the programs are interpreted, at each connection of a planner",
			"sysctl -w net.core.bpf_jit_enable=1")
	}
	return ok("net.core.bpf_jit_enable is " + value)
}

func checkUnprivileged(context.Context, *subject) Result {
	value, r := setting("/proc/sys/kernel/unprivileged_bpf_disabled", "this kernel has no kernel.unprivileged_bpf_disabled")
	if r != nil {
		return *r
	}
	if value == "0" {
		return warn("kernel.unprivileged_bpf_disabled is 0", "a planner without any capability may load BPF programs",
			"sysctl -w kernel.unprivileged_bpf_disabled=2")
	}
	return ok("kernel.unprivileged_bpf_disabled is " + value)
}

func checkPtraceScope(context.Context, *subject) Result {
	const lost = "a planner may trace other processes of its user, and act as they do, outside of its job"
	const do = "run planners as a user of their own; or boot with yama among lsm= and set kernel.yama.ptrace_scope to 1 or more"
	text, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if errors.Is(err, fs.ErrNotExist) {
		return warn("this kernel has no yama", lost, do)
	}
	if err != nil {
		return unseen("kernel.yama.ptrace_scope", err)
	}
	value := strings.TrimSpace(string(text))
	if value == "0" {
		return warn("kernel.yama.ptrace_scope is 0", lost, do)
	}
	return ok("kernel.yama.ptrace_scope is " + value)
}

func checkLockdown(context.Context, *subject) Result {
	value, r := setting("/sys/kernel/security/lockdown", "no lockdown, or securityfs is not mounted")
	if r != nil {
		return *r
	}
	// "none [integrity] confidentiality": the brackets are around what holds.
	_, after, _ := strings.Cut(value, "[")
	mode, _, _ := strings.Cut(after, "]")
	if mode == "confidentiality" {
		return warn("lockdown is confidentiality", "programs may not read kernel memory, by which some of them name processes",
			"see \"kernel programs\"; where they are refused boot with lockdown=integrity")
	}
	return ok("lockdown is " + mode)
}

// checkSecurityModules says which modules the kernel has, and whether one
// confines this process, as it would confine a daemon that is started the
// same way.
func checkSecurityModules(context.Context, *subject) Result {
	list, r := setting(lsmList, "")
	found := "the list is not shown here (no securityfs)"
	if r == nil {
		found = list
	}
	label := ownLabel()
	if label == "" {
		return ok(found + "; this process is not confined")
	}
	found += "; this process is " + label
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		if value, err := os.ReadFile("/sys/fs/selinux/enforce"); err == nil && strings.TrimSpace(string(value)) != "1" {
			return ok(found + " (SELinux is permissive)")
		}
		if strings.Contains(label, ":unconfined_t:") || strings.Contains(label, ":spc_t:") {
			return ok(found)
		}
	} else if label == "unconfined" || strings.HasSuffix(label, "(complain)") {
		return ok(found)
	}
	return warn(found, "its profile may refuse bpf, mount, ptrace or the pins",
		"see the audit log for denials, and permit them in the profile, or run the daemon unconfined")
}

// ownLabel is the label that a security module gives this process.
func ownLabel() string {
	for _, path := range []string{"/proc/self/attr/apparmor/current", "/proc/self/attr/current"} {
		if text, err := os.ReadFile(path); err == nil {
			return strings.TrimRight(string(text), "\x00\n")
		}
	}
	return ""
}

// capability is one that the daemon uses.
type capability struct {
	name   string
	number uintptr
	lost   string // without it; empty: the daemon can't work
}

func capabilities() []capability {
	return []capability{
		{"CAP_BPF", unix.CAP_BPF, ""},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, ""},
		{"CAP_PERFMON", unix.CAP_PERFMON, ""},
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, "no bpffs is mounted, and connections of other network namespaces are refused"},
		{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, "what runs as another user is recorded without its executable"},
	}
}

func checkCapabilities(_ context.Context, s *subject) Result {
	var have, lost []string
	needed := false
	for _, c := range capabilities() {
		switch {
		case effective(c.number):
			have = append(have, c.name)
		case c.lost == "":
			needed = true
			lost = append(lost, "without "+c.name+" nothing is enforced")
		default:
			lost = append(lost, "without "+c.name+" "+c.lost)
		}
	}
	found := strings.Join(have, ", ")
	if found == "" {
		found = "none of what the daemon needs"
	}
	switch {
	case len(lost) == 0:
		return ok(found)
	case !s.root:
		return skip(found+", but this process is not root's, as the daemon is", asRoot)
	case needed:
		return fail(found, strings.Join(lost, "\n"), "give the daemon's unit or container these capabilities")
	}
	return warn(found, strings.Join(lost, "\n"), "give the daemon's unit or container these capabilities")
}

// effective tells whether this thread has a capability.
func effective(number uintptr) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if unix.Capget(&header, &sets[0]) != nil {
		return false
	}
	return sets[number/32].Effective&(1<<(number%32)) != 0
}

// checkNamespaces compares with the inode numbers of the initial namespaces
// (include/linux/proc_ns.h), which are the same on every kernel.
func checkNamespaces(context.Context, *subject) Result {
	var others, hidden []string
	for _, ns := range []struct{ name, initial, lost, do string }{
		{"pid", "pid:[4026531836]", "processes of planners have other numbers than the kernel tells", "hostPID, --pid=host"},
		{"cgroup", "cgroup:[4026531835]", "paths of cgroups are others than those of the mount", "--cgroupns=host"},
		{"user", "user:[4026531837]", "capabilities don't hold for the machine", "no user namespace"},
	} {
		name, err := os.Readlink("/proc/self/ns/" + ns.name)
		if err != nil {
			hidden = append(hidden, ns.name)
		} else if name != ns.initial {
			others = append(others, fmt.Sprintf("not in the host's %s namespace: %s (%s)", ns.name, ns.lost, ns.do))
		}
	}
	switch {
	case len(others) > 0:
		return fail("", strings.Join(others, "\n"), "run the daemon in the host's namespaces")
	case len(hidden) > 0:
		return skip("this kernel or /proc doesn't show namespaces: "+strings.Join(hidden, ", "), asRoot)
	}
	return ok("the host's pid, cgroup and user namespaces")
}

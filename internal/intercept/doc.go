// Package intercept diverts the connections of planners into this process and
// says, of each, where it was going and who opened it.
//
// It loads and pins the programs of package bpf, keeps their maps true, and owns
// the listening sockets. It knows cgroups, addresses and sockets. What a
// planner is, what a target is and what may be said to it are not its business,
// and it reads or writes no byte of a connection.
//
// # How a connection gets here
//
// The programs are attached once, at an ancestor cgroup. Below it a cgroup is
// a planner (see [Interceptor.Enroll]), the daemon's own, or a stranger. A
// planner's connect(2) to a captured destination (see [Interceptor.Capture]) is
// sent to the listener on loopback in its own network namespace (see
// [Interceptor.Listen]); the kernel carries the true destination and the
// identity of the caller to the accepted socket, where [Interceptor.Origin]
// takes them, once. A stranger's is refused. All else goes its way.
//
// # Without the daemon
//
// Links and maps are pinned in a bpffs, and neither [Interceptor.Close] nor the
// death of the process unpins them: a planner's connections to what is captured
// are then refused with ECONNREFUSED, since the programs find no listener that
// the daemon marked as its own, and those from new cgroups with EPERM. The next
// [Open] takes over what is pinned, program by program, and never detaches one
// before the next is in its place. Only [Detach] ends it.
//
// # What it needs
//
// Linux 6.1 with BTF, cgroup v2 mounted with its root (beside v1 or alone), the
// host's PID and cgroup namespaces, and CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON;
// CAP_SYS_ADMIN too to mount a bpffs and to listen in other namespaces.
package intercept

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The programs, all attached at one ancestor cgroup. Below it a cgroup is a
 * planner (or inside of one), the daemon's own, or a stranger:
 *
 *                         planner    daemon   stranger
 *   captured destination  diverted   passes   refused
 *   any other             passes     passes   passes
 *
 * When in doubt they refuse. Returning 0 is refusing: with EPERM, or with what
 * bpf_set_retval() was told.
 */
#include "socket.h"
#include "handover.h"
#include "belt.h"

/* What no map holds gets into BTF, and so into Go, by being mentioned. */
const struct {
	enum role role;
	enum verdict verdict;
	enum outcome outcome;
	enum hook hook;
	struct report report;
} *mentioned __attribute__((unused));

char _license[] SEC("license") = "GPL";

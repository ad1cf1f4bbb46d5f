// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The programs. Those of sockets are attached at one ancestor cgroup, the others
 * at interfaces. Below the ancestor a cgroup is a planner (or inside of one), the
 * daemon's own, a bystander that is known to be no planner, or unknown:
 *
 *                         planner     daemon   bystander   unknown
 *   captured destination  diverted    passes   passes      refused
 *   any other             by profile  passes   passes      passes, or held
 *
 * Where the belt is the node's, the ancestor is the root: bystanders, and what is
 * outside of the planners' part of the tree, are refused the addresses of targets.
 *
 * When in doubt they refuse. Returning 0 is refusing: with EPERM, or with what
 * bpf_set_retval() was told.
 */
#include "socket.h"
#include "datagram.h"
#include "handover.h"
#include "belt.h"
#include "interface.h"

/* What no map holds gets into BTF, and so into Go, by being mentioned. */
const struct {
	enum role role;
	enum verdict verdict;
	enum outcome outcome;
	enum hook hook;
	struct report report;
} *mentioned __attribute__((unused));

char _license[] SEC("license") = "GPL";

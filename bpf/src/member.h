/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Who is asking. The programs run for the *socket's* cgroup being below the
 * ancestor; who asks is the current task where there is one (sockets can be
 * handed on), and the socket's cgroup for packets.
 */
#ifndef CHAPERONE_MEMBER_H
#define CHAPERONE_MEMBER_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

/*
 * How deep below the root an enrolled cgroup may be. Not how deep its
 * processes may nest cgroups in it: the walk goes down from the root, so it meets the
 * enrolled one first.
 */
#define MAX_DEPTH 16

/* The parts of the kernel's own types that are read; CO-RE finds them. */
struct kernfs_node {
	__u64 id;
} __attribute__((preserve_access_index));

struct cgroup {
	struct kernfs_node *kn;
} __attribute__((preserve_access_index));

struct css_set {
	struct cgroup *dfl_cgrp;
} __attribute__((preserve_access_index));

struct task_struct {
	__u64 start_boottime;
	__s32 pid;
	__s32 tgid;
	struct task_struct *group_leader;
	struct css_set *cgroups;
	char comm[16];
} __attribute__((preserve_access_index));

enum side {
	SIDE_PLANNER,
	SIDE_BYSTANDER,
	SIDE_UNKNOWN, /* below the planners' ancestor, and not known yet */
	SIDE_EXEMPT,
	SIDE_SHARED,  /* some planner; what else it may do its own sockets are asked */
	SIDE_OUTSIDE, /* elsewhere on the node; only where the belt is the node's */
};

/* Somebody who asks. member and id are a planner's, else NULL and 0. */
struct party {
	struct member *member;
	__u64 id;
	enum side side;
	__u32 pad;
};

static __always_inline bool is_daemon(__u64 cgroup)
{
	const struct member *m = bpf_map_lookup_elem(&members, &cgroup);

	return m && m->role == ROLE_DAEMON;
}

/* Takes one step of the walk down from the root. True ends it. */
static __always_inline bool meets(struct party *p, __u64 id, __u64 area)
{
	struct member *m;

	if (!id)
		return true;
	if (id == area)
		p->side = SIDE_UNKNOWN;
	m = bpf_map_lookup_elem(&members, &id);
	if (!m)
		return false;
	if (m->role == ROLE_PLANNER) {
		p->member = m;
		p->id = id;
		p->side = SIDE_PLANNER;
		return true;
	}
	if (m->role == ROLE_BYSTANDER) {
		p->side = SIDE_BYSTANDER;
		return true;
	}
	if (m->role == ROLE_EXEMPT) {
		p->side = SIDE_EXEMPT;
		return true;
	}
	return false;
}

/*
 * The quick answer for a process or socket of a known cgroup itself: one lookup
 * instead of a walk. True when the walk need not be taken. Cgroups inside a planner's are
 * never known as anything else, which the daemon sees to.
 */
static __always_inline bool is_known(__u64 cgroup, struct party *p, bool *daemon)
{
	struct member *m = bpf_map_lookup_elem(&members, &cgroup);

	p->member = NULL;
	p->id = 0;
	p->pad = 0;
	*daemon = false;
	if (!m)
		return false;
	if (m->role == ROLE_DAEMON) {
		*daemon = true;
		return true;
	}
	if (m->role == ROLE_PLANNER) {
		p->member = m;
		p->id = cgroup;
		p->side = SIDE_PLANNER;
		return true;
	}
	if (m->role == ROLE_BYSTANDER) {
		p->side = SIDE_BYSTANDER;
		return true;
	}
	return false;
}

static __always_inline void nobody(struct party *p, enum side side)
{
	p->member = NULL;
	p->id = 0;
	p->side = side;
	p->pad = 0;
}

/* What somebody is before anything is known of his cgroups. */
static __always_inline enum side stranger(const struct config *c)
{
	return c && c->flags & NODE_BELT ? SIDE_OUTSIDE : SIDE_UNKNOWN;
}

/* Who the current task is: side, as long as nothing is known of its cgroups. */
static __always_inline void current_party_or(const struct config *c, struct party *p,
					     enum side side)
{
	__u64 area = c ? c->area : 0;

	nobody(p, side);
	for (int level = 1; level <= MAX_DEPTH; level++)
		if (meets(p, bpf_get_current_ancestor_cgroup_id(level), area))
			break;
}

static __always_inline void current_party(const struct config *c, struct party *p)
{
	current_party_or(c, p, stranger(c));
}

/* Whose socket sends a packet: side, as long as nothing is known of its cgroups. */
static __always_inline void packet_party(struct __sk_buff *skb, const struct config *c,
					 struct party *p, enum side side)
{
	__u64 area = c ? c->area : 0;

	nobody(p, side);
	for (int level = 1; level <= MAX_DEPTH; level++)
		if (meets(p, bpf_skb_ancestor_cgroup_id(skb, level), area))
			break;
}

static __always_inline void current_process(struct process *p)
{
	const struct task_struct *task = (const void *)bpf_get_current_task();
	__u64 id = bpf_get_current_pid_tgid();
	__u64 user = bpf_get_current_uid_gid();

	p->started = 0;
	if (bpf_core_field_exists(task->start_boottime))
		p->started = BPF_CORE_READ(task, group_leader, start_boottime);
	p->tgid = id >> 32;
	p->tid = (__u32)id;
	p->uid = (__u32)user;
	p->gid = user >> 32;
	bpf_get_current_comm(p->comm, sizeof(p->comm));
}

/*
 * The process that sends a packet, if the current one is of the socket's very
 * cgroup: packets also leave on behalf of whoever was interrupted.
 */
static __always_inline void sending_process(struct process *p, __u64 cgroup)
{
	const struct task_struct *task = (const void *)bpf_get_current_task();

	if (!cgroup || BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id) != cgroup)
		return;
	if (bpf_core_field_exists(task->start_boottime))
		p->started = BPF_CORE_READ(task, group_leader, start_boottime);
	p->tgid = BPF_CORE_READ(task, tgid);
	p->tid = BPF_CORE_READ(task, pid);
	bpf_core_read_str(p->comm, sizeof(p->comm), &task->comm);
}

#endif

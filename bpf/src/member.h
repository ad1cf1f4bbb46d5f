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

/* The part of the kernel's own types that is read; CO-RE finds it. */
struct task_struct {
	__u64 start_boottime;
	struct task_struct *group_leader;
} __attribute__((preserve_access_index));

static __always_inline bool is_daemon(__u64 cgroup)
{
	const struct member *m = bpf_map_lookup_elem(&members, &cgroup);

	return m && m->role == ROLE_DAEMON;
}

/* The planner that the current task belongs to and its id, or NULL. */
static __always_inline struct member *current_planner(__u64 *id)
{
	for (int level = 1; level <= MAX_DEPTH; level++) {
		struct member *m;

		*id = bpf_get_current_ancestor_cgroup_id(level);
		if (!*id)
			break;
		m = bpf_map_lookup_elem(&members, id);
		if (m && m->role == ROLE_PLANNER)
			return m;
	}
	*id = 0;
	return NULL;
}

/* The planner that a packet's socket belongs to and its id, or NULL. */
static __always_inline struct member *packet_planner(struct __sk_buff *skb, __u64 *id)
{
	for (int level = 1; level <= MAX_DEPTH; level++) {
		struct member *m;

		*id = bpf_skb_ancestor_cgroup_id(skb, level);
		if (!*id)
			break;
		m = bpf_map_lookup_elem(&members, id);
		if (m && m->role == ROLE_PLANNER)
			return m;
	}
	*id = 0;
	return NULL;
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

#endif

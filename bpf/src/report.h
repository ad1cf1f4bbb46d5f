/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Counting what happened, exactly, and reporting what was refused, at a rate
 * that a flood of attempts can't raise.
 */
#ifndef CHAPERONE_REPORT_H
#define CHAPERONE_REPORT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "member.h"

#define REPORTS_PER_SECOND 64 /* by one planner, or by all strangers together */
#define SECOND 1000000000ULL

static __always_inline void count(enum outcome outcome)
{
	__u32 index = outcome;
	__u64 *n = bpf_map_lookup_elem(&stats, &index);

	/* By add alone: a hook that interrupts another on this CPU loses no count. */
	if (n)
		__sync_fetch_and_add(n, 1);
}

/* Spends from the planner's budget, or from that of all others. */
static __always_inline bool may_report(const struct party *who, __u64 now)
{
	struct budget *b;

	if (who->member) {
		b = &who->member->budget;
	} else {
		const __u32 zero = 0;

		b = bpf_map_lookup_elem(&strangers, &zero);
		if (!b)
			return false;
	}
	/* Two CPUs may race here, which lets a few reports more through. */
	if (now - b->since >= SECOND) {
		b->since = now;
		b->spent = 0;
	}
	if (b->spent >= REPORTS_PER_SECOND)
		return false;
	__sync_fetch_and_add(&b->spent, 1);
	return true;
}

/*
 * Counts the outcome and returns a cleared report of it to be filled in and
 * submitted, or NULL when there is to be none.
 */
static __always_inline struct report *report(enum hook hook, enum outcome outcome,
					     const struct party *who)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct report *r;

	count(outcome);
	if (!may_report(who, now)) {
		count(UNREPORTED);
		return NULL;
	}
	r = bpf_ringbuf_reserve(&reports, sizeof(*r), 0);
	if (!r) {
		count(UNREPORTED);
		return NULL;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->at = now;
	r->outcome = outcome;
	r->hook = hook;
	r->workload = who->id;
	return r;
}

#endif

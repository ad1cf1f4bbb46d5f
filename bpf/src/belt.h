/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The belt: every packet that a socket below the ancestor sends, whatever made
 * the socket and whenever. It knows the socket's cgroup, and the packet.
 */
#ifndef CHAPERONE_BELT_H
#define CHAPERONE_BELT_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "maps.h"
#include "member.h"
#include "packet.h"
#include "report.h"
#include "rules.h"

#define DROP 0
#define FORWARD 1

/* What the belt says of a packet. */
struct verdict_of {
	enum outcome outcome;
	bool drop;
	__u8 pad[3];
};

static __always_inline struct verdict_of forwarded(void)
{
	return (struct verdict_of){.drop = false};
}

static __always_inline struct verdict_of dropped(enum outcome outcome)
{
	return (struct verdict_of){.outcome = outcome, .drop = true};
}

static __always_inline void report_packet(const struct packet *p, enum hook hook,
					  enum outcome outcome, const struct party *who,
					  __u64 cgroup, __u16 family)
{
	struct report *r = report(hook, outcome, who);

	if (r) {
		r->cgroup = cgroup;
		r->address = p->to;
		r->port = p->port;
		r->family = family;
		r->protocol = p->protocol;
		sending_process(&r->process, cgroup);
		bpf_ringbuf_submit(r, 0);
	}
}

/*
 * Of a packet without a readable port only the address is known. From a planner, and
 * from who may be one, it is dropped when a capture could hold for it; from others only
 * when its address itself is listed, since with a port captured on any address
 * nothing of their fragments, ICMP or tunnels would be left.
 */
static __always_inline bool may_hide(const struct config *c, const struct packet *p,
				     const struct party *who)
{
	if (who->member && (who->member->profile || c->flags & ANY_ADDRESS))
		return true;
	if (who->side == SIDE_UNKNOWN && c->flags & (ANY_ADDRESS | HOLD_UNKNOWN))
		return true;
	if (who->side == SIDE_SHARED && c->flags & ANY_ADDRESS)
		return true;
	if (who->side == SIDE_EXEMPT || (who->side == SIDE_BYSTANDER && !(c->flags & NODE_BELT)))
		return false;
	return is_listed(&p->to);
}

/* Decides a packet that is not the daemon's. Its address is normalised. */
static __always_inline struct verdict_of judge(struct __sk_buff *skb, const struct config *c,
					       const struct packet *p, const struct party *who)
{
	if (!p->readable)
		return may_hide(c, p, who) ? dropped(DROPPED_UNREADABLE) : forwarded();
	/* Diverted connections, where all ports of loopback are captured. */
	if (p->protocol == IPPROTO_TCP && bpf_ntohs(p->port) == c->port && is_loopback(&p->to))
		return forwarded();
	if (maybe_captured(c, p->port) && capture_of(c, &p->to, p->port)) {
		if (who->member || is_kept_from(c, who, &p->to))
			return dropped(DROPPED_TARGET);
		return forwarded();
	}
	/* Answers to who connected to a planner are its own affair. */
	if (p->protocol == IPPROTO_TCP && !opens(skb, p))
		return forwarded();
	return may_leave(c, who, &p->to, p->port) ? forwarded() : dropped(DROPPED_EGRESS);
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	const struct config *c = configuration();
	const bool v4 = skb->protocol == bpf_htons(ETH_P_IP);
	const void *data = (const void *)(long)skb->data;
	const void *end = (const void *)(long)skb->data_end;
	const __u16 family = v4 ? AF_INET : AF_INET6;
	struct verdict_of v;
	struct party who;
	struct packet p;
	struct plain plain;
	bool known, daemon;
	__u64 cgroup;

	if (read_plain(data, end, v4, &plain, &p)) {
		if (c && is_let_go(c, &plain))
			return FORWARD;
	} else {
		__builtin_memset(&p, 0, sizeof(p));
		if (v4 ? !read_v4(skb, &p) : !read_v6(skb, &p)) {
			count(DROPPED_UNREADABLE);
			return DROP;
		}
	}
	if (c && p.readable && is_free(c, p.port))
		return FORWARD;
	cgroup = bpf_skb_cgroup_id(skb);
	known = is_known(cgroup, &who, &daemon);
	if (daemon)
		return FORWARD;
	if (!known)
		packet_party(skb, c, &who, stranger(c));
	if (!c) {
		report_packet(&p, HOOK_EGRESS, REFUSED_FAULT, &who, cgroup, family);
		return DROP;
	}
	normalise(&p.to);
	v = judge(skb, c, &p, &who);
	if (!v.drop)
		return FORWARD;
	report_packet(&p, HOOK_EGRESS, v.outcome, &who, cgroup, family);
	return DROP;
}

#endif

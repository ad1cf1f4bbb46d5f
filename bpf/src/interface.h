/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The second belt, at network interfaces: it sees what no socket hook does, the
 * frames of packet sockets and of tunnels, and what a planner's own network
 * namespace sends, by whatever means. There are two places for it:
 *
 *   from_planner   on the node's end of a veth whose other end is in a planner's
 *                  namespace, ingress: all that arrives is that planner's
 *   from_node      on an uplink of the node, egress: a frame is whose socket it is
 *
 * Both let go on with TCX_NEXT, so that a CNI's own programs still run.
 */
#ifndef CHAPERONE_INTERFACE_H
#define CHAPERONE_INTERFACE_H

#include "belt.h"

#define LET_ON (-1) /* TC_ACT_UNSPEC, TCX_NEXT */
#define SHOT 2	    /* TC_ACT_SHOT */

/*
 * The frame's own word for what it carries. skb->protocol is what the sender of a
 * packet socket said, and need not be true.
 */
static __always_inline __be16 carried(struct __sk_buff *skb, bool ether)
{
	__u8 version;
	__be16 type;

	if (ether) {
		if (bpf_skb_load_bytes_relative(skb, 12, &type, sizeof(type), BPF_HDR_START_MAC))
			return 0;
		return type;
	}
	if (!read_at(skb, 0, &version, sizeof(version)))
		return 0;
	if (version >> 4 == 4)
		return bpf_htons(ETH_P_IP);
	return version >> 4 == 6 ? bpf_htons(ETH_P_IPV6) : 0;
}

/* Whether a frame is plain, and for a port that nothing is asked of. Most are. */
static __always_inline bool is_plain(struct __sk_buff *skb, const struct config *c, bool ether)
{
	const void *data = (const void *)(long)skb->data;
	const void *end = (const void *)(long)skb->data_end;
	const struct ethhdr *link = data;
	struct packet unused;
	struct plain plain;
	bool v4;

	if (!c)
		return false;
	if (ether) {
		if ((const void *)(link + 1) > end)
			return false;
		v4 = link->h_proto == bpf_htons(ETH_P_IP);
		if (!v4 && link->h_proto != bpf_htons(ETH_P_IPV6))
			return false;
		data = link + 1;
	} else {
		if (data + 1 > end)
			return false;
		v4 = *(const __u8 *)data >> 4 == 4;
		if (!v4 && *(const __u8 *)data >> 4 != 6)
			return false;
	}
	return read_plain(data, end, v4, &plain, &unused) && is_let_go(c, &plain);
}

static __always_inline int shoot(const struct packet *p, enum outcome outcome,
				 const struct party *who, __u64 cgroup, __u16 family)
{
	report_packet(p, HOOK_INTERFACE, outcome, who, cgroup, family);
	return SHOT;
}

/* Neighbour discovery, errors, echo: nothing that a service is reached by. */
static __always_inline bool is_control(const struct packet *p)
{
	return p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6;
}

/*
 * Decides a frame. control says that the namespace's own kernel speaks here too, whose
 * ICMP must get through.
 */
static __always_inline int inspect(struct __sk_buff *skb, const struct config *c,
				   const struct party *who, __u64 cgroup, bool ether, bool control)
{
	const __be16 type = carried(skb, ether);
	struct verdict_of v;
	struct packet p;
	__u16 family;

	__builtin_memset(&p, 0, sizeof(p));
	if (type == bpf_htons(ETH_P_ARP))
		return LET_ON;
	if (type == bpf_htons(ETH_P_IP) ? !read_v4(skb, &p)
					: type != bpf_htons(ETH_P_IPV6) || !read_v6(skb, &p)) {
		/* A tag, a label, a tunnel: an address may be anywhere in it. */
		if (!who->member && who->side != SIDE_UNKNOWN && who->side != SIDE_SHARED)
			return LET_ON;
		return shoot(&p, DROPPED_UNREADABLE, who, cgroup, 0);
	}
	family = type == bpf_htons(ETH_P_IP) ? AF_INET : AF_INET6;
	if (!c)
		return shoot(&p, REFUSED_FAULT, who, cgroup, family);
	if (control && is_control(&p) && !is_listed(&p.to))
		return LET_ON;
	v = judge(skb, c, &p, who);
	return v.drop ? shoot(&p, v.outcome, who, cgroup, family) : LET_ON;
}

static __always_inline int planners_frame(struct __sk_buff *skb, bool ether)
{
	const struct config *c = configuration();
	__u32 index = skb->ifindex;
	struct party who;
	const __u64 *id;

	if (is_plain(skb, c, ether))
		return LET_ON;
	nobody(&who, SIDE_UNKNOWN);
	id = bpf_map_lookup_elem(&interfaces, &index);
	if (id && *id == SHARED) {
		who.side = SIDE_SHARED;
	} else if (id && *id) {
		struct member *m = bpf_map_lookup_elem(&members, id);

		if (m && m->role == ROLE_PLANNER) {
			who.member = m;
			who.id = *id;
			who.side = SIDE_PLANNER;
		}
	}
	return inspect(skb, c, &who, 0, ether, true);
}

static __always_inline int nodes_frame(struct __sk_buff *skb, bool ether)
{
	const struct config *c = configuration();
	bool known, daemon;
	struct party who;
	__u64 cgroup;

	if (is_plain(skb, c, ether))
		return LET_ON;
	cgroup = bpf_skb_cgroup_id(skb);
	known = is_known(cgroup, &who, &daemon);
	if (daemon)
		return LET_ON;
	/* Without a socket it was forwarded, or came out of a tunnel: whose it is can't be told. */
	if (!known)
		packet_party(skb, c, &who, SIDE_OUTSIDE);
	return inspect(skb, c, &who, cgroup, ether, false);
}

SEC("tc")
int from_planner(struct __sk_buff *skb)
{
	return planners_frame(skb, true);
}

SEC("tc")
int from_planner_raw(struct __sk_buff *skb)
{
	return planners_frame(skb, false);
}

SEC("tc")
int from_node(struct __sk_buff *skb)
{
	return nodes_frame(skb, true);
}

SEC("tc")
int from_node_raw(struct __sk_buff *skb)
{
	return nodes_frame(skb, false);
}

#endif

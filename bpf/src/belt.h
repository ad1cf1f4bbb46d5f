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
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "maps.h"
#include "member.h"
#include "report.h"

#define DROP 0
#define FORWARD 1

#define FRAGMENT_OFFSET 0x1fff /* of iphdr.frag_off */
#define MAX_EXTENSIONS 6

#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif

struct packet {
	struct address to;
	__be16 port;
	__u8 protocol;
	bool readable; /* port holds, and to is where the packet ends up */
	__u32 pad;
};

/* The protocols whose header begins with source and destination port. */
static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
	       protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP;
}

static __always_inline void read_port(struct __sk_buff *skb, __u32 offset, struct packet *p)
{
	if (has_ports(p->protocol))
		p->readable = !bpf_skb_load_bytes(skb, offset + 2, &p->port, sizeof(p->port));
}

static __always_inline bool read_v4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return false;
	address_of_v4(&p->to, ip.daddr);
	p->protocol = ip.protocol;
	/* Options can route a packet on to another address than the one in the header. */
	if (ip.ihl == 5 && !(ip.frag_off & bpf_htons(FRAGMENT_OFFSET)))
		read_port(skb, sizeof(ip), p);
	return true;
}

static __always_inline bool read_v6(struct __sk_buff *skb, struct packet *p)
{
	__u32 offset = sizeof(struct ipv6hdr);
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
		return false;
	__builtin_memcpy(&p->to, &ip.daddr, sizeof(p->to));
	p->protocol = ip.nexthdr;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct {
			__u8 next;
			__u8 length;
			__be16 fragment;
		} extension;

		/* A routing header is as good as options: unreadable. */
		if (p->protocol != IPPROTO_HOPOPTS && p->protocol != IPPROTO_DSTOPTS &&
		    p->protocol != IPPROTO_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return true;
		if (p->protocol != IPPROTO_FRAGMENT)
			offset += (extension.length + 1) * 8;
		else if (extension.fragment & bpf_htons(0xfff8))
			return true;
		else
			offset += 8;
		p->protocol = extension.next;
	}
	read_port(skb, offset, p);
	return true;
}

/*
 * The port that a plain TCP or UDP packet goes to, read where it lies. It is
 * what nearly every packet is asked for first, and most are let go by it.
 */
static __always_inline bool plain_port(const struct __sk_buff *skb, bool v4, __be16 *port)
{
	const void *data = (const void *)(long)skb->data;
	const void *end = (const void *)(long)skb->data_end;
	const struct ipv6hdr *ip6 = data;
	const struct iphdr *ip = data;
	const __be16 *ports;
	__u8 protocol;

	if (v4) {
		ports = (const void *)(ip + 1);
		if ((const void *)(ports + 2) > end)
			return false;
		if (ip->ihl != 5 || ip->frag_off & bpf_htons(FRAGMENT_OFFSET))
			return false;
		protocol = ip->protocol;
	} else {
		ports = (const void *)(ip6 + 1);
		if ((const void *)(ports + 2) > end)
			return false;
		protocol = ip6->nexthdr;
	}
	*port = ports[1];
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static __always_inline int drop(const struct packet *p, enum outcome outcome,
				struct member *planner, __u64 workload, __u64 cgroup, __u16 family)
{
	struct report *r = report(HOOK_EGRESS, outcome, planner);

	if (r) {
		r->workload = workload;
		r->cgroup = cgroup;
		r->address = p->to;
		r->port = p->port;
		r->family = family;
		r->protocol = p->protocol;
		bpf_ringbuf_submit(r, 0);
	}
	return DROP;
}

/*
 * Of a packet without a readable port only the address is known. From a planner
 * it is dropped when a capture could hold for it; from a stranger only when
 * its address itself is listed, since with a port captured on any address
 * nothing of the strangers' fragments, ICMP or tunnels would be left.
 */
static __always_inline bool drop_unreadable(const struct config *c, const struct packet *p,
					    const struct member *planner)
{
	if (planner && c->any & ANY_ADDRESS)
		return true;
	return bpf_map_lookup_elem(&addresses, &p->to);
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	const struct config *c = configuration();
	const bool v4 = skb->protocol == bpf_htons(ETH_P_IP);
	const __u16 family = v4 ? AF_INET : AF_INET6;
	struct member *planner;
	struct packet p;
	__u64 cgroup, workload;
	__be16 port;

	if (c && plain_port(skb, v4, &port) && !maybe_captured(c, port))
		return FORWARD;
	__builtin_memset(&p, 0, sizeof(p));
	if (v4 ? !read_v4(skb, &p) : !read_v6(skb, &p)) {
		count(DROPPED_UNREADABLE);
		return DROP;
	}
	if (c && p.readable && !maybe_captured(c, p.port))
		return FORWARD;
	cgroup = bpf_skb_cgroup_id(skb);
	if (is_daemon(cgroup))
		return FORWARD;
	planner = packet_planner(skb, &workload);
	if (!c)
		return drop(&p, REFUSED_FAULT, planner, workload, cgroup, family);
	normalise(&p.to);
	if (!p.readable) {
		if (!drop_unreadable(c, &p, planner))
			return FORWARD;
		return drop(&p, DROPPED_UNREADABLE, planner, workload, cgroup, family);
	}
	/* Diverted connections, where all ports of loopback are captured. */
	if (p.protocol == IPPROTO_TCP && bpf_ntohs(p.port) == c->port && is_loopback(&p.to))
		return FORWARD;
	if (!capture_of(c, &p.to, p.port))
		return FORWARD;
	return drop(&p, DROPPED_TARGET, planner, workload, cgroup, family);
}

#endif

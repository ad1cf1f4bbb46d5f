/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Where a packet goes, read from what a stranger wrote into it. All offsets are
 * from the network header, so that it serves where there is a link header too.
 */
#ifndef CHAPERONE_PACKET_H
#define CHAPERONE_PACKET_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"

#define FRAGMENT_OFFSET 0x1fff /* of iphdr.frag_off */
#define MAX_EXTENSIONS 6

#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif

struct packet {
	struct address to;
	__u32 offset; /* of the transport header, from the network header */
	__be16 port;
	__u8 protocol;
	bool readable; /* port holds, and to is where the packet ends up */
};

/* The protocols whose header begins with source and destination port. */
static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
	       protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP;
}

static __always_inline bool read_at(struct __sk_buff *skb, __u32 offset, void *to, __u32 size)
{
	return !bpf_skb_load_bytes_relative(skb, offset, to, size, BPF_HDR_START_NET);
}

static __always_inline void read_port(struct __sk_buff *skb, __u32 offset, struct packet *p)
{
	p->offset = offset;
	if (has_ports(p->protocol))
		p->readable = read_at(skb, offset + 2, &p->port, sizeof(p->port));
}

static __always_inline bool read_v4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr ip;

	if (!read_at(skb, 0, &ip, sizeof(ip)))
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

	if (!read_at(skb, 0, &ip, sizeof(ip)))
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
		if (!read_at(skb, offset, &extension, sizeof(extension)))
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

/* Whether a TCP packet asks for a connection. What can't be read does. */
static __always_inline bool opens(struct __sk_buff *skb, const struct packet *p)
{
	__u8 flags;

	if (!read_at(skb, p->offset + 13, &flags, sizeof(flags)))
		return true;
	return (flags & 0x12) == 0x02; /* SYN without ACK */
}

/* What nearly every packet is let go by. */
struct plain {
	__be16 port;
	__u8 protocol;
	bool opens; /* a datagram, or a TCP packet that asks for a connection */
};

/*
 * Reads a plain TCP or UDP packet where it lies. False when it takes a closer
 * look.
 */
static __always_inline bool read_plain(const void *data, const void *end, bool v4, struct plain *p,
				       struct packet *whole)
{
	const struct ipv6hdr *ip6 = data;
	const struct iphdr *ip = data;
	const __u8 *transport;

	if (v4) {
		transport = (const void *)(ip + 1);
		if ((const void *)(transport + 14) > end)
			return false;
		if (ip->ihl != 5 || ip->frag_off & bpf_htons(FRAGMENT_OFFSET))
			return false;
		p->protocol = ip->protocol;
		address_of_v4(&whole->to, ip->daddr);
		whole->offset = sizeof(*ip);
	} else {
		transport = (const void *)(ip6 + 1);
		if ((const void *)(transport + 14) > end)
			return false;
		p->protocol = ip6->nexthdr;
		__builtin_memcpy(&whole->to, &ip6->daddr, sizeof(whole->to));
		whole->offset = sizeof(*ip6);
	}
	p->port = *(const __be16 *)(transport + 2);
	p->opens = p->protocol != IPPROTO_TCP || (transport[13] & 0x12) == 0x02;
	whole->port = p->port;
	whole->protocol = p->protocol;
	whole->readable = p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP;
	return whole->readable;
}

/* Whether nothing is asked of such a packet, whoever sends it. */
static __always_inline bool is_let_go(const struct config *c, const struct plain *p)
{
	if (maybe_captured(c, p->port))
		return false;
	return !p->opens || !(c->flags & (EGRESS_RULES | HOLD_UNKNOWN));
}

#endif
